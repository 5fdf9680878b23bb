// SPDX-License-Identifier: Apache-2.0
// Each key has a thread of its own, for ever. Not run with more keys than a machine has threads to spare.
#include "common.hpp"

namespace bench {

class thread_per_key {
  public:
    static constexpr std::string_view name = "thread-per-key";
    static constexpr std::uint32_t max_keys = 1'000;

    thread_per_key(unsigned, bool) {} // its threads cannot be held: `memory` measures what keys take that are idle
    void release() {}

    template <class Job>
    void submit(std::string_view key, Job j) {
        threads_
            .find_or_make(key,
                          [] {
                              auto box = std::make_unique<mailbox>();
                              std::thread([at = box.get()] { at->run_for_ever(); }).detach();
                              return box;
                          })
            .push(std::move(j));
    }

  private:
    growing_map<mailbox> threads_;
};

} // namespace bench

BENCH_MAIN(bench::thread_per_key)
