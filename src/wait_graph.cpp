// SPDX-License-Identifier: Apache-2.0
#include "wait_graph.hpp"

#include <algorithm>
#include <cassert>
#include <functional>
#include <mutex>
#include <optional>
#include <unordered_set>

#include "barrier.hpp"
#include "coroutine.hpp"
#include "together.hpp"

namespace taskpool::detail {

wait_graph& wait_graph::instance() noexcept {
    // Never destroyed: static pools may outlive other static objects.
    alignas(wait_graph) static std::byte memory[sizeof(wait_graph)];
    static auto* const graph = new (memory) wait_graph;
    return *graph;
}

/// A stuck wait of a lane's jobs, its shared ones included, or null.
const wait_graph::wait* wait_graph::stuck_wait_of(const lane* l) const noexcept {
    if (const auto at = waits_.find(l); at != waits_.end() && at->second.stuck)
        return &at->second;
    const auto [first, last] = beside_.equal_range(l);
    for (auto at = first; at != last; ++at)
        if (const wait& w = waits_.at(at->second); w.stuck)
            return &w;
    return nullptr;
}

/// Asks `f` for the future of each job that is still to end before this future's is submitted, until it says no.
template <class F>
static bool each_before(const future_core& future, F f) {
    return future.each_before(&f,
                              [](void* self, const future_core& before) { return (*static_cast<F*>(self))(before); });
}

/// Tells `f` what a wait for a lane waits for: how much of which lanes.
template <class F>
void wait_graph::each_part(const target& what, F f) {
    const auto add_future = [&](const future_core& future) {
        const auto number = future.number();
        f(future.where(), number == 0 ? reach{.kind = reach::all} : reach{reach::before, number + 1});
        return true;
    };
    if (what.future == nullptr) { // for room, until the lane takes its next job
        f(what.for_lane, reach{.kind = what.for_room ? reach::none : reach::all});
    } else if (!what.future->is_ready()) { // else its lane may be gone
        add_future(*what.future);
        each_before(*what.future, add_future);
    }
}

/// The lanes whose current jobs must end for a wait for a lane to end.
std::vector<const lane*> wait_graph::lanes_before(const target& what) {
    std::vector<const lane*> lanes;
    std::optional<all_shards_lock> all;
    if (what.in != nullptr && what.in->has_joint_jobs())
        all.emplace(*what.in);
    each_part(what, [&](const lane* l, reach how_far) {
        const auto before = all ? lanes_before_locked(*l, how_far) : std::vector{l};
        lanes.insert(lanes.end(), before.begin(), before.end());
    });
    return lanes;
}

/// Whether jobs of this lane must end for a wait to end.
bool wait_graph::waits_for(const target& what, const lane* l) {
    if (what.for_lane == nullptr)
        return false;
    const auto lanes = lanes_before(what);
    return std::find(lanes.begin(), lanes.end(), l) != lanes.end();
}

/// Whether the waits from one lane to the next end where nobody waits. False: they may yet end.
bool wait_graph::chain_ends(const target& what) const {
    const target* t = &what;
    for (std::size_t links = 0; links <= waits_.size(); ++links) {
        if (is_over(*t))
            return true;
        if (t->for_lane == nullptr || t->for_timed ||
            (t->in != nullptr && (t->in->has_joint_jobs() || t->in->has_barriers())) ||
            (t->future != nullptr && !each_before(*t->future, [](auto&) { return false; })))
            return false;
        if (beside_.contains(t->for_lane))
            return false; // there are several
        const auto next = waits_.find(t->for_lane);
        if (next == waits_.end())
            return true;
        t = &next->second.what;
    }
    return false;
}

/// Whether a pool takes no job: who waits for room is told so.
static bool refuses(const pool_core& pool) noexcept {
    const auto& last = pool.shards.back(); // closed after the others
    const std::lock_guard lock(last.lock);
    return last.closed || pool.is_overloaded();
}

namespace {

/// While it lives nothing is pushed to a pool, and no room given.
class room_lock {
  public:
    explicit room_lock(const pool_core& of) : in_(of), gate_(of.gate.lock()), workers_(of.lock_workers()), all_(of) {}

    /// Whether there is room, that of all jobs whose taking happened before this included.
    bool has_room() const noexcept {
        return in_.gate.has_room_locked(in_.shards, [this] { return in_.taken_by_workers_locked(); });
    }

  private:
    const pool_core& in_;
    const std::unique_lock<sync::mutex> gate_;
    const std::unique_lock<sync::mutex> workers_; // a mutex, so taken before the shards' spin locks
    const all_shards_lock all_;
};

} // namespace

/// Marks the waits that cannot end: all of them at first, less those that can, until no more is found.
void wait_graph::find_stuck() {
    for (auto& [in, w] : waits_)
        w.stuck = true;
    for (bool changed = true; changed;) {
        changed = false;
        for (auto& [in, w] : waits_) {
            if (w.stuck && can_end(w.what)) {
                w.stuck = false;
                changed = true;
            }
        }
    }
}

/// Whether a wait can end if all that are not marked as stuck do.
bool wait_graph::can_end(const target& what) const {
    if (what.room_in != nullptr)
        return refuses(*what.room_in) || makes_room(*what.room_in);
    if (is_over(what))
        return true;
    if (what.for_pool != nullptr)
        return none_is_stuck(*what.for_pool);
    if (what.in != nullptr && holds_up_what_is_behind(*what.in) && is_behind_barrier(what))
        return false;
    const bool waits_for_room = what.for_timed && what.in->settings.when_full != overflow::reject;
    return is_free(lanes_before(what)) && (!waits_for_room || makes_room(*what.in));
}

/// Whether none of these lanes' jobs is in a stuck wait.
bool wait_graph::is_free(const std::vector<const lane*>& lanes) const noexcept {
    return std::all_of(lanes.begin(), lanes.end(), [this](const lane* l) { return stuck_wait_of(l) == nullptr; });
}

bool wait_graph::none_is_stuck(const pool_core& in) const noexcept {
    return std::none_of(waits_.begin(), waits_.end(),
                        [&](const auto& w) { return w.second.stuck && w.second.core == &in; });
}

/// Whether the first barrier cannot run.
bool wait_graph::holds_up_what_is_behind(const pool_core& in) const noexcept {
    return in.has_barriers() && (for_barriers_ || stuck_wait_of(&in.barrier->own) != nullptr) && !none_is_stuck(in);
}

/// Whether there is room in a pool, or will be when a waiting job starts.
bool wait_graph::makes_room(const pool_core& in) const {
    if (!in.has_joint_jobs() && one_can_start(in, false))
        return true;
    // As of one instant: room that has come may have been given to a job that the look has passed by. Jobs may still be
    // taken, so room is asked for after the look.
    const room_lock lock(in);
    return one_can_start(in, true) || lock.has_room();
}

/// Whether one of a pool's waiting jobs can start. Of jobs of several keys only where `all_locked`, all shards.
bool wait_graph::one_can_start(const pool_core& in, bool all_locked) const {
    const bool all_behind_are_held_up = holds_up_what_is_behind(in);
    bool any_waits = false;
    for (auto& s : in.shards) {
        const std::unique_lock lock = all_locked ? std::unique_lock(s.lock, std::defer_lock) : std::unique_lock(s.lock);
        if (s.active == 0)
            continue;
        for (lane* const l : s.table.places_locked()) {
            if (l == nullptr || l->state == lane_state::idle)
                continue;
            std::uint32_t next = 0; // the number of the lane's next job
            bool is_behind = false; // it comes after a barrier
            {
                const std::lock_guard head_lock(l->head_lock);
                bool has_detached = false;
                for (const job_extras* e = l->extras; e != nullptr && !has_detached; e = e->next)
                    has_detached = e->detached && e->is_coroutine();
                if (l->waiting() == 0 && !has_detached) // a detached coroutine has its place in the pool, too
                    continue;
                const job_slot* const front = l->front_locked();
                is_behind = all_behind_are_held_up && (front == nullptr || later(front->era, s.open_era));
                next = static_cast<std::uint32_t>(l->taken.load(std::memory_order_relaxed)) + 1; // under head_lock
            }
            any_waits = true;
            if (is_behind)
                continue;
            if (all_locked && in.has_joint_jobs() ? is_free(lanes_before_locked(*l, {reach::before, next + 1}))
                                                  : stuck_wait_of(l) == nullptr)
                return true;
        }
    }
    return all_locked && !any_waits && !all_behind_are_held_up; // only barriers wait
}

/// Whether what is waited for has come already, though the waiting job may not have woken up yet; or nobody has to wait
/// for that job.
bool wait_graph::is_over(const target& what) noexcept {
    if (what.room_in != nullptr)
        return refuses(*what.room_in) || room_lock(*what.room_in).has_room();
    if (what.for_room)
        return refuses(*what.in) || what.for_lane->waiting() < what.in->settings.lane_capacity;
    return (what.by != nullptr && !keeps_lane(*what.by)) || (what.future != nullptr && what.future->is_ready());
}

/// Whether what is waited for comes after a barrier. REQUIRES: it is not over, and of a pool with barriers.
bool wait_graph::is_behind_barrier(const target& what) {
    const bool is_of_job = what.future != nullptr;
    if (is_of_job && !each_before(*what.future, [](auto&) { return false; }))
        return true; // it is still to be submitted
    const all_shards_lock lock(*what.in);
    if (is_of_job && what.future->is_ready())
        return false; // and its lane may be gone
    const lane& l = *what.for_lane;
    if (what.for_room)
        return is_behind_barrier_locked(*what.in, l, {reach::none});
    if (is_of_job)
        return is_behind_barrier_locked(*what.in, l, *what.future);
    return is_behind_barrier_locked(*what.in, l, {reach::all});
}

/// Whether a wait cannot end for the sake of barriers alone.
bool wait_graph::never_ends(const pool_core& core, const lane& waiting, const target& what) {
    if (!core.has_barriers() || (what.in != &core && what.room_in != &core) || is_over(what))
        return false;
    return &waiting == &core.barrier->own || what.for_lane == &core.barrier->own;
}

bool wait_graph::holds_up_barriers(const pool_core& pool) noexcept {
    const auto waits_there = [&](const auto& w) { return w.second.core == &pool; };
    const std::lock_guard lock(mutex_);
    if (std::none_of(waits_.begin(), waits_.end(), waits_there))
        return false;
    bool holds_up = false;
    for_barriers_ = true;
    try {
        find_stuck();
        holds_up =
            std::any_of(waits_.begin(), waits_.end(), [&](const auto& w) { return waits_there(w) && w.second.stuck; });
    } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): it is asked again
    }
    for_barriers_ = false;
    return holds_up;
}

joint_job* wait_graph::kill_what_stops_coroutines(pool_core& pool) noexcept {
    const auto is_asked_for = [&](const wait& w) { return w.what.by != nullptr && w.what.in == &pool; };
    const std::lock_guard lock(mutex_);
    if (std::none_of(waits_.begin(), waits_.end(), [&](const auto& w) { return is_asked_for(w.second); }))
        return nullptr;
    joint_job* killed = nullptr;
    try {
        find_stuck();
        const std::function<bool(const lane*)> is_stuck = [this](const lane* l) { return stuck_wait_of(l) != nullptr; };
        for (const auto& [in, w] : waits_) {
            if (!w.stuck || !is_asked_for(w))
                continue;
            const all_shards_lock all(pool);
            each_part(w.what, [&](const lane* l, reach how_far) {
                if (killed == nullptr)
                    killed = kill_before_locked(*l, how_far, is_stuck);
            });
            if (killed != nullptr)
                break;
        }
    } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): it is asked again
    }
    return killed;
}

/// The jobs' keys from one stuck wait to the next, until they repeat.
std::vector<std::string> wait_graph::keys_from(const lane& waiting) const {
    std::vector<std::string> keys;
    std::unordered_set<const lane*> path;
    for (const lane* in = &waiting; in != nullptr;) {
        const wait& w = waits_.at(in);
        path.insert(in);
        keys.push_back(w.core->describe(*in));
        const auto next = std::find_if(waits_.begin(), waits_.end(), [&](const auto& other) {
            return other.second.stuck && !path.contains(other.first) &&
                   (waits_for(w.what, other.second.of) || other.second.core == w.what.for_pool ||
                    other.second.core == w.what.room_in);
        });
        in = next == waits_.end() ? nullptr : next->first;
    }
    return keys;
}

bool wait_graph::enter(pool_core& core, const lane& waiting, const target& what, bool holds_thread, bool has_deadline,
                       refusal& because) {
    const std::lock_guard lock(mutex_);
    erase(waits_.find(&waiting)); // of a coroutine that has lent its key since
    add(waiting, {&core, what, holds_thread, &core.key_lane(waiting)});
    core.waiting_threads += holds_thread ? 1U : 0U;
    try {
        if (never_ends(core, waiting, what)) {
            because.keys = {core.describe(waiting)};
            because.why = &waiting == &core.barrier->own ? "a barrier's job waits for what comes after it, or is done"
                                                         : "a job waits for a barrier, which waits for the job";
        } else if (!chain_ends(what)) {
            find_stuck();
            if (waits_.at(&waiting).stuck) {
                because.keys = keys_from(waiting);
                because.why = what.room_in != nullptr    ? "jobs of these keys fill the pool and wait for room in it"
                              : because.keys.size() == 1 ? "a job waits for its own key"
                                                         : "jobs of these keys wait for each other";
            }
        }
        const auto most_threads = core.settings.max_threads;
        if (because.why.empty() && holds_thread && !has_deadline && what.needs_thread &&
            (what.in == &core || what.room_in == &core) && !is_over(what) && core.waiting_threads >= most_threads) {
            const auto threads = std::count_if(waits_.begin(), waits_.end(), [&](const auto& w) {
                return w.second.core == &core && w.second.holds_thread && !is_over(w.second.what);
            });
            if (static_cast<std::size_t>(threads) >= most_threads) {
                because.keys.push_back(core.describe(waiting));
                because.why = "all threads of the pool would wait";
            }
        }
    } catch (...) {
        erase(waits_.find(&waiting));
        throw;
    }
    if (!because.why.empty() || has_deadline)
        erase(waits_.find(&waiting));
    else
        core.doubt_barriers();
    return because.why.empty();
}

void wait_graph::enter_or_throw(pool_core& core, const lane& waiting, const target& what, bool holds_thread,
                                bool has_deadline) {
    refusal because;
    if (enter(core, waiting, what, holds_thread, has_deadline, because))
        return;
    std::string text = because.why + ": ";
    for (const auto& key : because.keys)
        text += (&key == because.keys.data() ? "\"" : ", \"") + key.substr(0, 200) + "\"";
    throw deadlock_error(text, std::move(because.keys));
}

void wait_graph::leave(const lane& waiting, const future_core* of) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = waits_.find(&waiting);
    if (at != waits_.end() && (of == nullptr || at->second.what.future == of))
        erase(at);
}

void wait_graph::add(const lane& waiting, const wait& w) {
    assert(!waits_.contains(&waiting)); // I-GRAPH-1
    if (w.of != &waiting)
        beside_.emplace(w.of, &waiting);
    try {
        waits_.emplace(&waiting, w);
    } catch (...) {
        if (w.of != &waiting)
            beside_.erase(std::find_if(beside_.begin(), beside_.end(), [&](auto& e) { return e.second == &waiting; }));
        throw;
    }
}

void wait_graph::erase(waits::iterator at) noexcept {
    if (at == waits_.end())
        return;
    at->second.core->waiting_threads -= at->second.holds_thread ? 1U : 0U;
    const auto [first, last] = beside_.equal_range(at->second.of);
    const auto entry = std::find_if(first, last, [&](const auto& e) { return e.second == at->first; });
    if (entry != last)
        beside_.erase(entry);
    waits_.erase(at);
}

job_wait::job_wait(running_job* job, const wait_graph::target& what, bool has_deadline)
    : job_(job), recorded_(job != nullptr && !has_deadline) {
    if (job_ == nullptr)
        return;
    wait_graph::instance().enter_or_throw(job_->core, job_->in, what, true, has_deadline);
    job_->core.enter_blocking(job_->by);
}

job_wait::~job_wait() {
    if (job_ == nullptr)
        return;
    job_->core.leave_blocking(job_->by);
    if (recorded_)
        wait_graph::instance().leave(job_->in);
}

} // namespace taskpool::detail
