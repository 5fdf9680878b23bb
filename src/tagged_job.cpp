// SPDX-License-Identifier: Apache-2.0
#include "tagged_job.hpp"

#include <cassert>
#include <mutex>
#include <new>
#include <utility>

#include "pool_core.hpp"
#include "submit.hpp"

namespace taskpool::detail {

// --- The index -------------------------------------------------------------------------------------------------------

tagged_job* tag_index::find(const place& where) const noexcept {
    if (!jobs_)
        return nullptr;
    const auto found = jobs_->find(where);
    return found == jobs_->end() ? nullptr : found->second;
}

void tag_index::add(tagged_job& t) {
    if (!jobs_)
        jobs_ = std::make_unique<jobs>();
    assert(find(place_of(t)) == nullptr); // I-TAG-1: else it would have been replaced
    jobs_->emplace(place_of(t), &t);
    t.listed.store(true, std::memory_order_relaxed); // the job's push publishes it
}

void tag_index::remove(tagged_job& t) noexcept {
    jobs_->erase(place_of(t));
    if (jobs_->empty())
        jobs_.reset();
    // release pairs with the acquire in unlist: who owns the job may end it from here on, and sees what replaced it.
    t.listed.store(false, std::memory_order_release);
}

// --- In the lane -----------------------------------------------------------------------------------------------------

namespace {

tagged_job* pointer_in(void* storage) noexcept { return *std::launder(reinterpret_cast<tagged_job**>(storage)); }

/// REQUIRES: the shard's lock.
void unlist_locked(tagged_job& t) noexcept {
    if (t.listed.load(std::memory_order_relaxed)) // written under this lock
        t.core.shard_of(*t.in).tags.remove(t);
}

/// REQUIRES: the caller owns the job, which lies in no lane.
void unlist(tagged_job& t) noexcept {
    // acquire pairs with the release in remove. Nobody lists it again; and the pool may be gone when it is not listed.
    if (!t.listed.load(std::memory_order_acquire))
        return;
    const std::lock_guard lock(t.core.shard_of(*t.in).lock);
    unlist_locked(t);
}

} // namespace

const job_ops tagged_ops = {
    [](void* storage, const running_job& job) {
        tagged_job& t = *pointer_in(storage);
        unlist(t);
        t.ops->run(t.storage, job);
    },
    [](void* storage) {
        const std::unique_ptr<tagged_job> t(pointer_in(storage));
        unlist(*t);
        if (t->ops->destroy != nullptr)
            t->ops->destroy(t->storage);
    },
    nullptr,
};

void unlist_tagged_locked(job_slot& job) noexcept {
    if (job.ops == &tagged_ops)
        unlist_locked(*pointer_in(job.storage));
}

// --- On the way there ------------------------------------------------------------------------------------------------

tagged_source::tagged_source(pool_core& core, std::string_view tag, job_source& job, stop_action on_stop)
    : from_(job), made_(std::make_unique<tagged_job>(core, tag, on_stop)) {
    ops = &tagged_ops;
    store = [](job_source& self, void* storage) {
        auto& from = static_cast<tagged_source&>(self).from_;
        auto& made = static_cast<tagged_source&>(self).made_;
        made->in = from.accepted_in = self.accepted_in;
        auto& tags = made->core.shard_of(*made->in).tags;
        tags.add(*made);
        try {
            from.store(from, made->storage);
        } catch (...) {
            tags.remove(*made);
            throw;
        }
        made->ops = from.ops;
        new (storage) tagged_job*(made.release());
    };
}

/// Whether the job is in a worker's hands and was cancelled, or its key paused, since.
bool tagged_source::is_too_late_locked(lane& l, const tagged_job& t) const noexcept {
    const std::lock_guard lock(l.head_lock);
    // relaxed: under head_lock, like the write in cancel.
    if (!l.has_job || !(l.paused || l.cancelled.load(std::memory_order_relaxed)))
        return false;
    bool waits = false;
    l.each_waiting_locked([&](job_slot& slot) { waits |= slot.ops == &tagged_ops && pointer_in(slot.storage) == &t; });
    return !waits;
}

bool tagged_source::replace_locked(lane& l, job_slot& replaced) {
    shard& s = made_->core.shard_of(l);
    tagged_job* const t = s.tags.find({&l, made_->tag, made_->on_stop});
    if (t == nullptr)
        return false;
    assert(l.state >= lane_state::active); // I-TAG-2
    if (is_too_late_locked(l, *t)) {
        s.tags.remove(*t);
        return false;
    }
    from_.accepted_in = &l;
    from_.store(from_, made_->storage);
    replaced.ops = std::exchange(t->ops, from_.ops);
    replaced.on_stop = t->on_stop;
    move_callable(*replaced.ops, replaced.storage, t->storage);
    move_callable(*t->ops, t->storage, made_->storage);
    ++s.accepted;
    ++s.discarded;
    ++s.replaced;
    return true;
}

submit_result pool_core::submit(const key_view& key, std::string_view tag, job_source& job, const job_options& how,
                                const patience& wait) {
    const auto [s, hash] = place_of(key);
    tagged_source source(*this, tag, job, how.on_stop);
    return submit(
        s, [&, &table = s.table, hash = hash]() -> lane& { return table.find_or_make_locked(key, hash); }, source, how,
        wait);
}

} // namespace taskpool::detail
