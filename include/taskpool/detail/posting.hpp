// SPDX-License-Identifier: Apache-2.0
// What executors of other libraries need of the core: to post to a lane without waiting for room, to know whether they
// are inside it, and to say that more is to come. Nothing here is for users.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <taskpool/detail/core.hpp>
#include <taskpool/export.hpp>
#include <taskpool/task_pool.hpp>

namespace taskpool::detail {

/// Whether the calling thread runs a job of this lane.
TASKPOOL_EXPORT bool runs_here(const lane& l) noexcept;

/// Reports the exception that is being handled as a failure of the calling thread's job, which goes on. REQUIRES: there
/// is one.
TASKPOOL_EXPORT void report_failure_here() noexcept;

/// Outstanding work: drain() waits until all that has begun has ended; stop() does not. May be called under any lock,
/// but for the end of a lane's last work.
TASKPOOL_EXPORT void begin_work(pool_core& core, lane& l) noexcept;
TASKPOOL_EXPORT void end_work(pool_core& core, lane& l) noexcept;

/// What a component keeps with a pool, from its first use until the pool's memory is given back.
class companion {
  public:
    companion() noexcept = default;
    companion(const companion&) = delete;
    companion& operator=(const companion&) = delete;
    virtual ~companion() = default;

    /// stop() has joined the threads: no job runs any more. Called once, by the thread that stops the pool.
    virtual void pool_has_stopped() noexcept = 0;
};

/// The pool's companion of a kind, which any address may stand for; `make` makes it at the first use. Throws what that
/// throws, and std::bad_alloc.
TASKPOOL_EXPORT companion& companion_of(pool_core& core, const void* kind, std::unique_ptr<companion> (*make)());

/// A lane that executors share: what a basic_lane is, without the type of the key.
class posting_lane {
  public:
    template <class Key>
    explicit posting_lane(const basic_lane<Key>& handle) noexcept
        : core_(lane_access::core(handle)), lane_(lane_access::lane_of(handle)) {
        share_lane(*core_, lane_);
    }
    posting_lane(const posting_lane&) = delete;
    posting_lane& operator=(const posting_lane&) = delete;
    ~posting_lane() { release_lane(*core_, lane_); }

    pool_core& core() const noexcept { return *core_; }
    bool is_same(const posting_lane& other) const noexcept {
        return &lane_ == &other.lane_;
    } // keeps its key's only lane
    bool runs_here() const noexcept { return detail::runs_here(lane_); }
    void begin_work() const noexcept { detail::begin_work(*core_, lane_); }
    void end_work() const noexcept { detail::end_work(*core_, lane_); }

    /// Puts `f` behind what waits in the lane, without waiting and however full that is. Answers accepted, or stopped:
    /// then `f` is untouched. Throws std::bad_alloc and what moving `f` throws, having done nothing.
    template <class F>
    submit_status post(F&& f) const {
        static_assert(!std::is_reference_v<F>);
        auto make = [&f](lane&) -> F { return std::forward<F>(f); };
        job_source_of<std::string, F, decltype(make)> source(make);
        return submit(*core_, lane_, source, {.on_stop = posted}, {patience::none}).status();
    }

  private:
    const std::shared_ptr<pool_core> core_;
    lane& lane_;
};

} // namespace taskpool::detail
