// SPDX-License-Identifier: Apache-2.0
// From the submit of a job of several keys to its end. Longer than 400 lines, since its places come and go together.
#include "together.hpp"

#include <algorithm>
#include <cassert>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "pool_core.hpp"
#include "shared_job.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

static constexpr tick ticks_between_doubts = 100; // of coroutines' waits

// --- The job and its places ------------------------------------------------------------------------------------------

std::size_t joint_memory::size(std::size_t places) noexcept {
    static_assert(sizeof(joint_job) % alignof(joint_place) == 0 && alignof(joint_job) >= alignof(joint_place) &&
                  alignof(joint_job) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
    return sizeof(joint_job) + std::max(places, places_in_kept) * sizeof(joint_place);
}

void joint_memory::prefetch(std::size_t places) const noexcept {
    const auto* const block = static_cast<const std::byte*>(spares_.first());
    if (block == nullptr || places > places_in_kept)
        return;
    for (std::size_t i = 0; i < size(places); i += 64)
        sync::prefetch_to_write(block + i);
    sync::prefetch_to_write(block + size(places) - 1); // it need not begin with a line
}

void* joint_memory::allocate(std::size_t places) {
    if (places <= places_in_kept && spares_.size() > 0)
        return spares_.take();
    return ::operator new(size(places));
}

bool joint_memory::keep(void* block, std::size_t places) noexcept {
    if (places > places_in_kept || spares_.size() == most_kept)
        return false;
    spares_.put(block);
    return true;
}

void joint_memory::shrink() noexcept {
    while (spares_.size() > 0)
        ::operator delete(spares_.take());
}

joint_job* joint_job::make(pool_core& core, shard& of_first, std::size_t places) {
    return new (of_first.spare_joints.allocate(places)) joint_job(core, of_first);
}

void joint_job::add_place(lane& l) noexcept {
    auto* const place = new (reinterpret_cast<joint_place*>(this + 1) + count) joint_place;
    place->core = &core;
    place->in = &l;
    place->joint = this;
    place->counts = false; // but that of the lane in which the job runs
    place->end = [](job_extras& self) noexcept { self.core->end_place(static_cast<joint_place&>(self)); };
    ++count;
    // relaxed: its lanes' locks publish both.
    references.store(count, std::memory_order_relaxed);
    missing.store(static_cast<std::int32_t>(count), std::memory_order_relaxed);
}

void* joint_job::unmake() noexcept {
    for (auto& place : places())
        place.~joint_place();
    this->~joint_job();
    return this;
}

bool joint_job::gives_up(std::uint32_t of_caller) noexcept {
    assert(references.load(std::memory_order_relaxed) >= of_caller); // I-TOGETHER-3. relaxed: they are the caller's.
    // release: what they were used for comes before the end; pairs with the acquire of whoever drops the last.
    return references.fetch_sub(of_caller, std::memory_order_acq_rel) == of_caller;
}

void joint_job::drop_references(std::uint32_t how_many) noexcept {
    if (!gives_up(how_many))
        return;
    if (core.is_forked())
        return free(); // another thread may have had the shard's lock
    shard& s = first_shard;
    const auto places_made = count;
    void* const memory = unmake();
    {
        const std::lock_guard shard_lock(s.lock);
        if (s.spare_joints.keep(memory, places_made))
            return;
    }
    ::operator delete(memory);
}

void joint_job::drop_reference_locked() noexcept {
    if (gives_up(1))
        free();
}

namespace {

/// What the slot of a place holds. The job, too, so that its line and those of the place are asked for at once.
struct place_pointer {
    joint_place* place;
    joint_job* whole;
};

place_pointer& pointer_in(void* storage) noexcept { return *std::launder(reinterpret_cast<place_pointer*>(storage)); }

void run_place(void* storage, const running_job& job) {
    const joint_place& place = *pointer_in(storage).place;
    if (!place.runs) {
        pointer_in(storage).place = nullptr; // it is left of a job that was killed
        return;
    }
    job.joint = place.joint;
    place.joint->ops->run(place.joint->storage, job);
}

/// The callable of a job that was run in this place.
void destroy_place(void* storage) {
    if (const joint_place* const place = pointer_in(storage).place;
        place != nullptr && place->joint->ops->destroy != nullptr)
        place->joint->ops->destroy(place->joint->storage);
}

static_assert(sizeof(place_pointer) <= inline_job_size && std::is_trivially_copyable_v<place_pointer>);
constexpr job_ops joint_ops = {run_place, destroy_place, nullptr, job_kind::once};

} // namespace

joint_place& place_in(job_slot& slot) noexcept { return *pointer_in(slot.storage).place; }
joint_job& joint_in(job_slot& slot) noexcept { return *pointer_in(slot.storage).whole; }

bool kill(joint_place& place) noexcept {
    joint_job& whole = *place.joint;
    auto missing = whole.now_missing();
    // relaxed: the callable came to the caller by the lane's lock, and places are released under those of their lanes.
    while (missing > 0 && !whole.missing.compare_exchange_weak(missing, joint_job::over, std::memory_order_relaxed)) {
    }
    if (missing <= 0)
        return false;
    // relaxed: the place has a reference.
    whole.references.fetch_add(1, std::memory_order_relaxed);
    return true;
}

/// The place at the front has come to its turn before others of its job: it holds the lane from now on. False, where
/// nothing has changed, if it is the last one, or its job was killed. REQUIRES: both locks, ownership, which ends where
/// true.
bool pool_core::hold_place_locked(shard& s, lane& l, job_slot& front) noexcept {
    joint_place& place = place_in(front);
    joint_job& whole = joint_in(front);
    sync::prefetch_to_write(&place); // what is written below, while that of `missing` is on its way
    sync::prefetch_to_write(&place.next);
    assert(l.attends && l.state == lane_state::active && place.in == &l && place.holds == 0); // I-TOGETHER-1
    auto missing = whole.now_missing();
    // release: what ran in this lane comes before the job. Pairs with the last one's acquire (come_locked), which reads
    // what the others between have made of it, too.
    while (missing > 1 && !whole.missing.compare_exchange_weak(missing, missing - 1, std::memory_order_release)) {
    }
    if (missing <= 1)
        return false;
    place.holds = 1;
    job_slot taken;
    place.number = l.take_locked(taken);
    l.link_locked(place);
    l.has_job = true;
    suspend_locked(l);
    ++s.suspended;
    return true;
}

/// The same for a lane that is to be queued, and then need not be: no worker is asked for what it would only suspend.
/// False also where the lane waits for something else, or somebody is to be told of its room. REQUIRES: as before.
bool pool_core::hold_at_once_locked(shard& s, lane& l, job_slot& front) noexcept {
    return is_joint(front.on_stop) && !is_stopping() && !s.guarded && !l.paused && !s.rates.concern(l) &&
           shares_of_locked(l) == nullptr && (!l.room_wanted || l.waiting() > settings.lane_capacity / 2 + 1) &&
           hold_place_locked(s, l, front);
}

/// The place at the front has come to its turn: it holds the lane and waits for others, or it is the worker's (`own`)
/// to run the job in it, to discard it, or to clear it away. REQUIRES: both locks, ownership.
turn pool_core::come_locked(shard& s, lane& l, job_slot& front) noexcept {
    const bool lives = !is_stopping() || runs_in_stop(front.on_stop);
    if (lives && hold_place_locked(s, l, front)) {
        if (!l.has_room_to_tell_locked(settings.lane_capacity))
            return turn::holds;
        ++l.pins;
        return turn::pinned;
    }
    joint_place& place = place_in(front);
    joint_job& whole = *place.joint;
    auto missing = lives ? whole.now_missing() : joint_job::over;
    assert(missing == 1 || missing == joint_job::over); // I-TOGETHER-2
    // acquire pairs with the releases of those before, in hold_place_locked.
    while (missing > 0 && !whole.missing.compare_exchange_weak(missing, joint_job::runs, std::memory_order_acquire)) {
    }
    if (missing > 0) {
        whole.runs_in = &l;
        assert(l.pins > 0); // I-TOGETHER-2
        --l.pins;
        place.runs = place.counts = true;
        front.on_stop = joint_must_run; // it has begun
    }
    place.number = l.taken.load(std::memory_order_relaxed) + 1; // under the lane's lock
    l.link_locked(place);
    return turn::own;
}

bool is_cancelled(const joint_job& job) noexcept {
    return job.cancelled.load(std::memory_order_relaxed); // a request, which publishes nothing
}

/// The job in this place has ended, or what was left of it.
void pool_core::end_place(joint_place& place) noexcept {
    joint_job& whole = *place.joint;
    whole.drop_references(1 + (place.runs ? end_joint(whole) : 0));
}

/// The job is over, and so are the holds and the pins of its places, but for that in which it ran. How many holds: each
/// had a reference. REQUIRES: no lock held.
std::uint32_t pool_core::end_joint(joint_job& whole) noexcept {
    if (is_forked())
        return 0;     // another thread may have been changing what it has
    whole.set_over(); // so that nobody waits for one of its lanes to release another
    std::uint32_t released = 0;
    for (auto& place : whole.places())
        if (!place.runs && release_place(place))
            ++released;
    return released;
}

/// Ends the place's hold of its lane, and its pin. Whether it had a hold; if not, it gets none: the job is over.
/// REQUIRES: no lock held.
bool pool_core::release_place(joint_place& place) noexcept {
    lane& l = *place.in;
    shard& s = shard_of(l);
    std::optional<tick> ready;
    bool had_hold = false;
    bool wakes_keeper = false;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        had_hold = place.holds > 0;
        if (had_hold) {
            assert(l.state == lane_state::suspended && place.holds == 1); // I-TOGETHER-1
            --s.suspended;
            l.end_job_locked();
            if (job_slot* const front = l.front_locked()) {
                const tick age = front->age;
                l.state = lane_state::active;
                if (!hold_at_once_locked(s, l, *front))
                    ready = age;
            } else {
                go_idle_locked(s, l);
            }
        }
        wakes_keeper = unpin_locked(l);
    }
    if (ready)
        enqueue(l, *ready); // ours since it is active and in no queue
    if (wakes_keeper)
        poke_keeper();
    return had_hold;
}

/// The job came too late: its end is not that of a job, and its tokens were not needed.
void pool_core::expire_joint(joint_job& whole) noexcept {
    for (auto& place : whole.places()) {
        if (place.runs) {
            const std::lock_guard lock(place.in->head_lock);
            place.counts = false;
        }
        give_token_back(*place.in);
    }
}

/// Kills the job for which the lane is held while it waits for other lanes. It, or null. REQUIRES: both locks.
joint_job* pool_core::kill_current_locked(shard& s, lane& l) noexcept {
    job_extras* const e = l.current_extras_locked();
    if (e == nullptr || e->joint == nullptr || !kill(static_cast<joint_place&>(*e)))
        return nullptr;
    ++s.discarded;
    ++s.budget;
    return e->joint;
}

/// Reports and ends a job that the caller has killed. `l`: of one of its places. REQUIRES: no lock held.
void pool_core::discard_joint(const lane& l, joint_job& killed, discard_reason why) noexcept {
    report_discard(maker.key_of(l), why);
    destroy_callable(maker.key_of(l), killed.ops, killed.storage);
    killed.drop_references(1 + end_joint(killed));
}

/// For the keeper.
void pool_core::doubt_joint_jobs() noexcept {
    if (manual || clock.now() - joint_jobs_doubted_ < ticks_between_doubts)
        return;
    joint_jobs_doubted_ = clock.now();
    discard_stuck_joint_job();
}

/// Discards a job of several keys that has come before what a coroutine waits for and waits for that, if there is one.
void pool_core::discard_stuck_joint_job() noexcept {
    joint_job* const killed = has_joint_jobs() ? wait_graph::instance().kill_what_stops_coroutines(*this) : nullptr;
    if (killed == nullptr)
        return;
    const lane& l = *killed->places().front().in; // pinned until the end
    tell_of_room(shard_of(l), 1);
    discard_joint(l, *killed, discard_reason::would_deadlock);
}

// --- Submitting ------------------------------------------------------------------------------------------------------

/// One of its keys, on the way to its lane.
struct pool_core::joint_target {
    shard* in;
    std::uint32_t hash;
    const key_view* key;
    lane* l;     // or null: the same as one before
    chunk* more; // or null; owned
    bool ready;
};

namespace {

/// Locks the shards of some targets, which are in the order of their shards.
template <class Target>
class shards_lock {
  public:
    explicit shards_lock(std::span<Target> targets) noexcept : targets_(targets) {
        each_shard([](shard& s) { s.lock.lock(); });
    }
    ~shards_lock() {
        each_shard([](shard& s) { s.lock.unlock(); });
    }
    shards_lock(const shards_lock&) = delete;
    shards_lock& operator=(const shards_lock&) = delete;

  private:
    template <class F>
    void each_shard(F f) noexcept {
        const shard* before = nullptr;
        for (auto& t : targets_)
            if (std::exchange(before, t.in) != t.in)
                f(*t.in);
    }

    const std::span<Target> targets_;
};

} // namespace

/// Puts the job into all of its lanes, or none. Where there is no room, `full` gets the lane, pinned, and `poor` its
/// shard, or that which has none of the pool's. Strong guarantee. REQUIRES: the locks of all shards.
pool_core::attempt pool_core::place_locked(std::span<joint_target> targets, job_source& job, const job_options& how,
                                           tick age, lane*& full, shard*& poor) {
    targets.front().in->spare_joints.prefetch(targets.size());
    for (auto& t : targets) {
        t.l = nullptr;
        t.more = nullptr;
    }
    // Lanes are pinned, so that looking one up does not free another, which is idle; and then until the job is over.
    struct at_end {
        std::span<joint_target> targets;
        ~at_end() {
            for (auto& t : targets) {
                if (t.l != nullptr)
                    --t.l->pins;
                delete t.more;
            }
        }
    } owned{targets};
    std::size_t places = 0;
    for (std::size_t i = 0; i < targets.size(); ++i) {
        auto& t = targets[i];
        if (t.in->closed)
            return attempt::stopped;
        t.l = &t.in->table.find_or_make_locked(*t.key, t.hash);
        for (std::size_t j = i; t.l != nullptr && j > 0 && targets[j - 1].in == t.in && targets[j - 1].hash == t.hash;
             --j)
            if (targets[j - 1].l == t.l)
                t.l = nullptr;
        if (t.l != nullptr) {
            ++t.l->pins;
            ++places;
        }
    }
    const auto limit = keeps_latest() ? 1 : static_cast<std::uint32_t>(settings.lane_capacity);
    auto& first = targets.front();
    poor = first.in;
    full = first.l;
    auto answer = first.in->budget == 0 ? attempt::pool_full : attempt::accepted;
    for (auto& t : targets) {
        if (t.l == nullptr || t.l->waiting_locked(limit) < limit)
            continue;
        answer = attempt::lane_full;
        poor = t.in;
        full = t.l;
        break;
    }
    if (answer != attempt::accepted) {
        ++full->pins;
        return answer;
    }
    for (auto& t : targets)
        if (t.l != nullptr && t.l->needs_chunk_locked())
            t.more = new chunk;
    struct freed {
        void operator()(joint_job* made) const noexcept { made->free(); }
    };
    std::unique_ptr<joint_job, freed> made(joint_job::make(*this, *first.in, places));
    job.accepted_in = first.l;
    job.store(job, made->storage);
    // From here on nothing fails.
    made->ops = job.ops;
    for (auto& t : targets)
        if (t.l != nullptr)
            made->add_place(*t.l);
    struct source final : job_source {
        joint_place* place;
    } from;
    from.place = made.release()->places().data(); // which own it
    from.ops = &joint_ops;
    from.store = [](job_source& self, void* storage) {
        joint_place* const place = static_cast<source&>(self).place;
        new (storage) place_pointer{place, place->joint};
    };
    const job_options as_place{how.on_stop == stop_action::run ? joint_must_run : joint, how.priority};
    for (auto& t : targets) {
        if (t.l == nullptr)
            continue;
        if (t.more != nullptr)
            t.l->add_chunk_locked(std::unique_ptr<chunk>(std::exchange(t.more, nullptr)));
        expect_special_locked(*t.l);
        t.l->push_locked(from, age, as_place, t.in->era);
        ++from.place;
        if (t.l->state < lane_state::active && activate_locked(*t.in, *t.l)) {
            t.ready = true;
            if (workers_at.wants_waking()) { // not for this. Else one comes anyway, or the pool has not started.
                const std::lock_guard lock(t.l->head_lock);
                t.ready = !hold_at_once_locked(*t.in, *t.l, *t.l->front_locked());
            }
        }
    }
    owned.targets = {}; // their pins are the job's now, and no chunk is left
    --first.in->budget;
    ++first.in->accepted;
    ++first.in->together;
    return attempt::accepted;
}

submit_result pool_core::submit_together(std::span<const key_view> keys, job_source& job, const job_options& how,
                                         const patience& wait) {
    if (keys.empty())
        throw std::invalid_argument("taskpool: submit_together without a key");
    few_or_many<joint_target> list(keys.size());
    const auto targets = list.all();
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto [s, hash] = place_of(keys[i]);
        targets[i] = {.in = &s, .hash = hash, .key = &keys[i], .l = nullptr, .more = nullptr, .ready = false};
    }
    std::sort(targets.begin(), targets.end(),
              [](const auto& a, const auto& b) { return a.in != b.in ? a.in < b.in : a.hash < b.hash; });
    // relaxed: who must see it waits in a job, and asks again (drain), or is not ordered with this submit.
    has_joint_jobs_.store(true, std::memory_order_relaxed);
    submit_result refusal = submit_status::full;
    for (bool may_wait = wait.kind != patience::none && settings.when_full == overflow::block;;) {
        if (is_forked()) {
            refusal = submit_status::stopped;
            break;
        }
        lane* full = nullptr;
        shard* poor = nullptr;
        const tick now = clock.now();
        const tick age = aged(now, how.priority);
        auto result = attempt::accepted;
        {
            const shards_lock<joint_target> lock(targets);
            result = place_locked(targets, job, how, age, full, poor);
        }
        if (result == attempt::accepted) {
            for (const auto& t : targets)
                if (t.ready)
                    enqueue(*t.l, age, now);
            return submit_status::accepted;
        }
        if (result == attempt::stopped) {
            refusal = submit_status::stopped;
            break;
        }
        const bool in_pool = result == attempt::pool_full;
        if (manual && settings.max_wait)
            watch_load();
        auto granted = is_overloaded() ? pool_gate::answer::shut : pool_gate::answer::full;
        if (in_pool)
            granted = gate.grant(shards, *poor, [&] { return taken_by_workers(); });
        if (!wait_or_refuse(*full, granted == pool_gate::answer::granted, in_pool, granted == pool_gate::answer::shut,
                            may_wait, wait, refusal))
            break;
        may_wait = may_wait && refusal != submit_status::timed_out; // then one last look
    }
    targets.front().in->rejected.fetch_add(1, std::memory_order_relaxed); // a figure by itself
    return refusal;
}

} // namespace taskpool::detail
