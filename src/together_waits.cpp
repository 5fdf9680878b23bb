// SPDX-License-Identifier: Apache-2.0
// Jobs of several keys in the wait graph: what a place of a lane's queue waits for, through them.
#include <functional>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "pool_core.hpp"
#include "together.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

all_shards_lock::all_shards_lock(const pool_core& of) noexcept : core_(of) {
    for (auto& s : core_.shards)
        s.lock.lock();
}
all_shards_lock::~all_shards_lock() {
    for (auto& s : core_.shards)
        s.lock.unlock();
}

namespace {

/// The lanes that are before something, through jobs of several keys. Under all shards' locks.
class lanes_before {
  public:
    ~lanes_before() {
        for (joint_job* const whole : known_)
            whole->drop_reference_locked();
    }

    /// Those before the first slot of the lane's queue for which `ends` says so, or that a worker has taken.
    template <class Ends>
    void add(lane& l, Ends ends) {
        lane_seen& seen = look(l);
        if (seen.current != nullptr) {
            add(*seen.current->joint);
            if (ends(seen.current, static_cast<std::uint32_t>(seen.current->number)))
                return;
        }
        for (; seen.added < seen.places.size(); ++seen.added) {
            const auto& [place, number] = seen.places[seen.added];
            if (ends(place, number))
                return;
            add(*place->joint);
        }
    }
    void add(const lane& l, reach how_far) {
        add(const_cast<lane&>(l), [how_far](const joint_place*, std::uint32_t number) {
            return how_far.kind != reach::all &&
                   (how_far.kind == reach::none || static_cast<std::int32_t>(number - how_far.number) >= 0);
        });
    }
    /// Goes on from the jobs that were found. All lanes.
    const std::vector<const lane*>& all() {
        for (std::size_t i = 0; i < found_.size(); ++i) {
            joint_job& whole = *found_[i];
            // No place arrives under the shards' locks, which published runs_in; an end or a kill may come.
            const auto missing = whole.now_missing();
            if (missing == joint_job::runs)
                lanes_.push_back(whole.runs_in);
            else if (missing > 0)
                for (const auto& sought : whole.places())
                    if (sought.holds == 0)
                        add(*sought.in, [&](const joint_place* place, std::uint32_t) { return place == &sought; });
        }
        return lanes_;
    }
    /// One of the jobs that waits for such a lane, or null. REQUIRES: all() has gone on.
    template <class F>
    joint_job* waiting_for(F is_such) const {
        for (joint_job* const whole : found_) {
            if (whole->now_missing() <= 0)
                continue;
            for (const auto& place : whole->places())
                if (place.holds == 0 && is_such(place.in))
                    return whole;
        }
        return nullptr;
    }

  private:
    struct lane_seen {
        const joint_place* current = nullptr;
        std::vector<std::pair<const joint_place*, std::uint32_t>> places; // in its queue, with their numbers
        std::size_t added = 0;                                            // of these
    };

    lane_seen& look(lane& l) {
        const auto [at, is_new] = seen_.try_emplace(&l);
        lane_seen& seen = at->second;
        if (!is_new)
            return seen;
        lanes_.push_back(&l);
        const std::lock_guard lock(l.head_lock);
        const job_extras* const e = l.current_extras_locked();
        if (e != nullptr && e->joint != nullptr) {
            seen.current = static_cast<const joint_place*>(e);
            know(*e->joint);
        }
        auto number = static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)); // under the lane's lock
        l.each_waiting_locked([&](job_slot& slot) {
            ++number;
            if (!is_joint(slot.on_stop))
                return;
            seen.places.emplace_back(&place_in(slot), number);
            know(joint_in(slot));
        });
        return seen;
    }
    void know(joint_job& whole) {
        if (known_.insert(&whole).second)
            whole.references.fetch_add(1, std::memory_order_relaxed); // there is one of a place
    }
    void add(joint_job& whole) {
        if (added_.insert(&whole).second)
            found_.push_back(&whole);
    }

    std::unordered_map<const lane*, lane_seen> seen_;
    std::unordered_set<joint_job*> known_; // with a reference to each
    std::unordered_set<joint_job*> added_;
    std::vector<joint_job*> found_; // the same, in turn
    std::vector<const lane*> lanes_;
};

} // namespace

std::vector<const lane*> lanes_before_locked(const lane& l, reach how_far) {
    lanes_before before;
    before.add(l, how_far);
    return before.all();
}

joint_job* kill_before_locked(const lane& l, reach how_far, const std::function<bool(const lane*)>& is_stuck) {
    lanes_before before;
    before.add(l, how_far);
    before.all();
    joint_job* const found = before.waiting_for(is_stuck);
    if (found == nullptr || !kill(found->places().front()))
        return nullptr;
    shard& s = found->first_shard;
    ++s.discarded;
    ++s.budget;
    return found;
}

} // namespace taskpool::detail
