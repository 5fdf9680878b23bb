// SPDX-License-Identifier: Apache-2.0
// The key's hash says which of the workers runs its jobs: in order, but not exact, since keys of one worker wait for
// each other.
#include "common.hpp"

namespace bench {

class hash_onto_2 {
  public:
    static constexpr std::string_view name = "hash-onto-2";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    hash_onto_2(unsigned workers, bool held) : boxes_(workers) {
        for (auto& box : boxes_)
            box.hold(held);
        start_threads(workers, [this](unsigned i) { boxes_[i].run_for_ever(); });
    }
    void release() {
        for (auto& box : boxes_)
            box.hold(false);
    }

    template <class Job>
    void submit(std::string_view key, Job j) {
        boxes_[string_hash()(key) % boxes_.size()].push(std::move(j));
    }

  private:
    std::vector<mailbox> boxes_;
};

} // namespace bench

BENCH_MAIN(bench::hash_onto_2)
