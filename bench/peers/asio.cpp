// SPDX-License-Identifier: Apache-2.0
// Asio: a strand for each key, in a map, over an io_context that the workers run.
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/strand.hpp>
#include <asio/version.hpp>

#include "common.hpp"

namespace bench {

class asio_peer {
  public:
    static constexpr std::string_view name = "asio";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    static std::string version() {
        return dotted(ASIO_VERSION / 100000, ASIO_VERSION / 100 % 1000, ASIO_VERSION % 100);
    }

    asio_peer(unsigned workers, bool held)
        : workers_(workers), context_(static_cast<int>(workers)), work_(context_.get_executor()) {
        if (!held)
            release();
    }
    void release() {
        start_threads(workers_, [this](unsigned) { context_.run(); });
    }

    template <class Job>
    void submit(std::string_view key, Job j) {
        asio::post(strands_.find_or_make(key, [this] { return std::make_unique<strand>(context_.get_executor()); }),
                   std::move(j));
    }

  private:
    using strand = asio::strand<asio::io_context::executor_type>;
    unsigned workers_;
    asio::io_context context_;
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    growing_map<strand> strands_;
};

} // namespace bench

BENCH_MAIN(bench::asio_peer)
