// SPDX-License-Identifier: Apache-2.0
#include "timer_wheel.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

namespace taskpool::detail {

void timer_wheel::insert(timer_node& n) noexcept {
    assert(!n.is_linked());
    n.due = std::max(n.due, time_);
    link(n);
    ++size_;
}

void timer_wheel::remove(timer_node& n) noexcept {
    assert(n.is_linked() && n.due >= time_); // I-WHEEL-1
    unlink(n, place_of(n.due));
    --size_;
}

timer_wheel::batch timer_wheel::advance(std::uint64_t now, std::size_t most) noexcept {
    now = std::max(now, time_);
    batch result{nullptr, false};
    timer_node** end = &result.first;
    for (;;) {
        const auto p = first_occupied();
        if (!p || begin_of(*p) > now) {
            // No node changes place: time stays before the beginning of every occupied slot, so at each level where
            // there are nodes its digit is still the highest that differs from theirs.
            time_ = now;
            return result;
        }
        time_ = begin_of(*p); // what lies in later slots keeps its place for the same reason
        if (p->level > 0) {
            cascade(*p);
            continue;
        }
        while (timer_node* const n = first_in_[0][p->slot]) {
            if (most == 0) {
                result.more = true;
                return result;
            }
            assert(n->due == time_); // I-WHEEL-3
            unlink(*n, *p);
            *end = n;
            end = &n->next;
            --size_;
            --most;
        }
    }
}

std::optional<std::uint64_t> timer_wheel::next_wake() const noexcept {
    const auto p = first_occupied();
    if (!p)
        return std::nullopt;
    return begin_of(*p);
}

timer_wheel::place timer_wheel::place_of(std::uint64_t due) const noexcept {
    const auto highest_bit = static_cast<unsigned>(std::bit_width((due ^ time_) | 1)) - 1;
    const unsigned level = highest_bit / digit_bits;
    return {level, static_cast<unsigned>(due >> (level * digit_bits)) % slots};
}

std::optional<timer_wheel::place> timer_wheel::first_occupied() const noexcept {
    for (unsigned level = 0; level < levels; ++level)
        if (occupied_[level] != 0)
            return place{level, static_cast<unsigned>(std::countr_zero(occupied_[level]))};
    return std::nullopt;
}

// The digits above the level are time's own, those below are 0.
std::uint64_t timer_wheel::begin_of(place p) const noexcept {
    const unsigned shift = p.level * digit_bits;
    return ((time_ >> shift) / slots * slots + p.slot) << shift;
}

void timer_wheel::link(timer_node& n) noexcept {
    const place p = place_of(n.due);
    assert(p.level == 0 || begin_of(p) > time_); // I-WHEEL-2
    timer_node*& first = first_in_[p.level][p.slot];
    n.next = nullptr;
    if (first == nullptr) {
        n.previous = first = &n;
        occupied_[p.level] |= std::uint64_t{1} << p.slot;
    } else {
        n.previous = first->previous;
        n.previous->next = first->previous = &n;
    }
}

void timer_wheel::unlink(timer_node& n, place p) noexcept {
    timer_node*& first = first_in_[p.level][p.slot];
    assert(first != nullptr && (occupied_[p.level] >> p.slot & 1) != 0); // I-WHEEL-5
    if (n.next != nullptr)
        n.next->previous = n.previous;
    else
        first->previous = n.previous;
    if (first != &n)
        n.previous->next = n.next;
    else if ((first = n.next) == nullptr)
        occupied_[p.level] &= ~(std::uint64_t{1} << p.slot);
    n.next = n.previous = nullptr;
}

void timer_wheel::cascade(place p) noexcept {
    timer_node* n = first_in_[p.level][p.slot];
    first_in_[p.level][p.slot] = nullptr;
    occupied_[p.level] &= ~(std::uint64_t{1} << p.slot);
    assert(begin_of(p) == time_ && (!first_occupied() || first_occupied()->level >= p.level)); // I-WHEEL-4
    while (n != nullptr) {
        timer_node* const next = n->next;
        assert(place_of(n->due).level < p.level);
        link(*n);
        n = next;
    }
}

} // namespace taskpool::detail
