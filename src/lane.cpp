// SPDX-License-Identifier: Apache-2.0
// See lane.hpp for the states, the two ends and the invariants.
#include "lane.hpp"

#include <cassert>
#include <cstring>
#include <memory>
#include <utility>

namespace taskpool::detail {

// A push asks for the lines of a later one: a worker has had them, and the next lock that is taken waits until what was
// written has arrived there.
constexpr int slots_ahead = sync::scaled(4, 1);

void move_callable(const job_ops& ops, void* to, void* from) noexcept {
    if (ops.relocate != nullptr)
        ops.relocate(to, from);
    else
        std::memcpy(to, from, inline_job_size);
}

void relocate(job_slot& to, job_slot& from) noexcept {
    std::memcpy(&to, &from, offsetof(job_slot, storage)); // one move of 16 bytes
    move_callable(*from.ops, to.storage, from.storage);
}

void lane::push_locked(job_source& source, tick age, const job_options& how, barrier_era era) {
    const auto fill = [&](job_slot& slot) {
        source.accepted_in = this;
        source.store(source, slot.storage);
        slot.ops = source.ops;
        slot.age = age;
        slot.on_stop = how.on_stop;
        slot.priority = how.priority;
        slot.era = era;
        if (runs_in_stop(how.on_stop))
            has_must_run = true;
    };
    if (tail_index == at_inline_slot) {
        fill(inline_slot);
        tail_index = chunk::slots_in_all; // the next one needs a chunk
    } else if (tail_index < chunk::slots_in_all) {
        fill(tail->slots[tail_index]);
        if (tail_index + slots_ahead < chunk::slots_in_all)
            sync::prefetch_to_write(&tail->slots[tail_index + slots_ahead]);
        ++tail_index;
    } else {
        auto added = std::unique_ptr<chunk>(new chunk); // slots stay raw until they are filled
        for (int i = 1; i <= slots_ahead; ++i)
            sync::prefetch_to_write(&added->slots[i]);
        added->next = nullptr;
        fill(added->slots[0]);
        // The head reads `next`, or `head` itself, only after it has seen the count that is published below.
        (tail != nullptr ? tail->next : head) = added.get();
        tail = added.release();
        tail_index = 1;
    }
    // release pairs with the acquire in front_locked: publishes the slot, and the chunk's link.
    pushed.store(pushed.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void lane::add_chunk_locked(std::unique_ptr<chunk> added) noexcept {
    added->next = nullptr;
    // As in push_locked.
    (tail != nullptr ? tail->next : head) = added.get();
    tail = added.release();
    tail_index = 0;
}

std::uint32_t lane::waiting_locked(std::uint32_t limit) noexcept {
    // relaxed: `pushed` is ours, under the shard's lock; `taken` is only a count: a slot is not used again for its
    // sake.
    const auto end = pushed.load(std::memory_order_relaxed);
    if (end - taken_seen >= limit)
        taken_seen = static_cast<std::uint32_t>(taken.load(std::memory_order_relaxed));
    assert(static_cast<std::int32_t>(end - taken_seen) >= 0); // I-LANE-5
    return end - taken_seen;
}

std::uint32_t lane::waiting() const noexcept {
    // relaxed: a hint, stale by nature and far off while the lane is being rewound.
    return pushed.load(std::memory_order_relaxed) - static_cast<std::uint32_t>(taken.load(std::memory_order_relaxed));
}

/// The next slot to take from chunks; frees the one before when it was its last.
static job_slot& next_slot(chunk*& head, std::uint8_t& index) noexcept {
    if (index == chunk::slots_in_all) {
        delete std::exchange(head, head->next);
        index = 0;
    }
    return head->slots[index];
}

job_slot* lane::front_locked() noexcept {
    const auto begin = static_cast<std::uint32_t>(taken.load(std::memory_order_relaxed)); // ours, under head_lock
    if (begin == pushed_seen) {
        // acquire pairs with the release in push_locked.
        pushed_seen = pushed.load(std::memory_order_acquire);
        if (begin == pushed_seen)
            return nullptr;
    }
    return head_index == at_inline_slot ? &inline_slot : &next_slot(head, head_index);
}

std::uint64_t lane::take_locked(job_slot& to) noexcept {
    if (head_index == at_inline_slot) {
        relocate(to, inline_slot);
        head_index = 0; // of the first chunk, which the tail makes when it needs one
    } else {
        relocate(to, head->slots[head_index]);
        ++head_index;
    }
    const auto number = taken.load(std::memory_order_relaxed) + 1; // ours, under head_lock
    assert(static_cast<std::uint32_t>(number - 1) != pushed_seen); // I-LANE-3: it has been published
    // relaxed: a count; it publishes nothing (see waiting_locked).
    taken.store(number, std::memory_order_relaxed);
    return number;
}

cut_jobs lane::cut_locked() noexcept {
    cut_jobs cut;
    // relaxed: both ends are ours.
    const auto end = pushed.load(std::memory_order_relaxed);
    const auto begin = taken.load(std::memory_order_relaxed);
    cut.count = end - static_cast<std::uint32_t>(begin);
    if (cut.count == 0)
        return cut;
    if (head_index == at_inline_slot) {
        relocate(cut.inline_slot, inline_slot);
        cut.has_inline = true;
        head_index = 0;
    }
    cut.head = head;
    cut.head_index = head_index;
    taken.store(begin + cut.count, std::memory_order_relaxed); // as in take_locked
    head = tail = nullptr;
    head_index = tail_index = at_inline_slot;
    pushed_seen = taken_seen = end;
    return cut;
}

void lane::link_locked(job_extras& e) noexcept {
    e.previous = nullptr;
    e.next = extras;
    if (extras != nullptr)
        extras->previous = &e;
    sync::atomic_ref(extras).store(&e, std::memory_order_relaxed); // see may_have_extras
}

void lane::unlink_locked(job_extras& e) noexcept {
    if (e.previous != nullptr)
        e.previous->next = e.next;
    else
        sync::atomic_ref(extras).store(e.next, std::memory_order_relaxed); // see may_have_extras
    if (e.next != nullptr)
        e.next->previous = e.previous;
}

job_extras* lane::end_job_locked() noexcept {
    has_job = false;
    // relaxed: written under head_lock only.
    cancelled.store(false, std::memory_order_relaxed);
    job_extras* const e = current_extras_locked();
    if (e != nullptr)
        unlink_locked(*e);
    return e;
}

void lane::rewind_locked() noexcept {
    assert(waiting() == 0 && (head == nullptr || head->next == nullptr)); // I-LANE-1
    delete head; // the last chunk, if any; all its slots are taken
    head = tail = nullptr;
    head_index = tail_index = at_inline_slot;
    pushed_seen = taken_seen = 0;
    has_must_run = has_special = false;
    // relaxed: both ends are ours; the next owner comes through the shard's lock.
    pushed.store(0, std::memory_order_relaxed);
    taken.store(0, std::memory_order_relaxed);
}

void lane::linger_locked() noexcept {
    const auto number = taken.load(std::memory_order_relaxed);
    rewind_locked();
    // relaxed: as in rewind_locked.
    pushed_seen = taken_seen = static_cast<std::uint32_t>(number);
    pushed.store(pushed_seen, std::memory_order_relaxed);
    taken.store(number, std::memory_order_relaxed);
    state = lane_state::lingering;
}

bool cut_jobs::next(job_slot& to) noexcept {
    if (count == 0) {
        delete std::exchange(head, nullptr);
        return false;
    }
    --count;
    if (has_inline) {
        relocate(to, inline_slot);
        has_inline = false;
        return true;
    }
    relocate(to, next_slot(head, head_index));
    ++head_index;
    return true;
}

} // namespace taskpool::detail
