// SPDX-License-Identifier: Apache-2.0
// CAF: an actor for each key, in a map, which runs the jobs that are sent to it.
#include <caf/all.hpp>

#include "common.hpp"

namespace bench {

struct caf_message {
    job run;
};

} // namespace bench

#if CAF_VERSION < 1800
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(bench::caf_message)
#else
CAF_BEGIN_TYPE_ID_BLOCK(bench, first_custom_type_id)
CAF_ADD_TYPE_ID(bench, (bench::caf_message))
CAF_END_TYPE_ID_BLOCK(bench)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(bench::caf_message)
#endif

namespace bench {

class caf_peer {
  public:
    static constexpr std::string_view name = "caf";
    static constexpr std::uint32_t max_keys = 1'000'000;

    static std::string version() { return dotted(CAF_MAJOR_VERSION, CAF_MINOR_VERSION, CAF_PATCH_VERSION); }

    caf_peer(unsigned workers, bool held) : system_(configure(workers)), held_(held) {
        held_.hold(workers, [this](job waits) {
            holders_.push_back(spawn());
            caf::anon_send(holders_.back(), caf_message{std::move(waits)});
        });
    }
    void release() { held_.release(); }

    template <class Job>
    void submit(std::string_view key, Job j) {
        caf::anon_send(actors_.find_or_make(key, [this] { return std::make_unique<caf::actor>(spawn()); }),
                       caf_message{std::move(j)});
    }

  private:
    caf::actor_system_config& configure(unsigned workers) {
#if CAF_VERSION < 1800
        config_.set("scheduler.max-threads", workers);
#else
        config_.set("caf.scheduler.max-threads", workers);
#endif
        return config_;
    }

    caf::actor spawn() {
        return system_.spawn([](caf::event_based_actor*) -> caf::behavior {
            return {[](const caf_message& message) { message.run(); }};
        });
    }

    caf::actor_system_config config_;
    caf::actor_system system_;
    growing_map<caf::actor> actors_;
    std::vector<caf::actor> holders_;
    worker_hold held_;
};

} // namespace bench

int main(int argc, char** argv) {
#if CAF_VERSION >= 1800
    caf::init_global_meta_objects<caf::id_block::bench>();
    caf::core::init_global_meta_objects();
#endif
    bench::run<bench::caf_peer>(argc, argv);
}
