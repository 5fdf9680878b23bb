// SPDX-License-Identifier: Apache-2.0
// A peer for bench_test.py: sound, or with the fault that the environment's BENCH_FAULT names.
#include <cstdlib>
#include <optional>

#include "../peers/common.hpp"

namespace bench {

class faulty_peer {
  public:
    static constexpr std::string_view name = "faulty";
    static constexpr std::uint32_t max_keys = 1'000;

    faulty_peer(unsigned, bool) {
        start_threads(1, [this](unsigned) { box_.run_for_ever(); });
    }
    void release() {}

    template <class Job>
    void submit(std::string_view, Job j) {
        const bool now = ++submitted_ % 100 == 0 && submitted_ < 1'000;
        if (now && fault_ == "drop")
            return;
        if (now && fault_ == "swap") {
            later_ = std::move(j);
            return;
        }
        if (now && fault_ == "crash")
            std::abort();
        if (now && fault_ == "twice")
            box_.push(j);
        box_.push(std::move(j));
        if (later_)
            box_.push(std::move(*std::exchange(later_, std::nullopt)));
    }

  private:
    static std::string_view fault() {
        const char* const named = std::getenv("BENCH_FAULT");
        return named == nullptr ? "" : named;
    }

    const std::string_view fault_ = fault();
    mailbox box_;
    std::uint64_t submitted_ = 0;
    std::optional<job> later_;
};

} // namespace bench

BENCH_MAIN(bench::faulty_peer)
