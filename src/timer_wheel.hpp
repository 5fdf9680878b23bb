// SPDX-License-Identifier: Apache-2.0
// What is to happen at a later tick: a hierarchical timing wheel (G. Varghese and T. Lauck, "Hashed and Hierarchical
// Timing Wheels", SOSP 1987, scheme 7), its nodes inside what they time. No threads, no locks, no allocation: the owner
// calls all of it under one lock.
//
// A tick is read as 11 digits of 6 bits, so that every 64-bit tick is reached directly. A level belongs to each digit,
// and has 64 slots, each a list of nodes in order of insertion. A node lies at the level of the highest digit in which
// its due differs from the wheel's time, in the slot of its due's digit there. So a level covers what is left of the
// block of 64 slots that time is in: nothing goes round, and all of a level is due before any of the next.
//
// A node is *unlinked* -> insert -> *linked* -> remove or advance -> *unlinked*. When time comes to the beginning of a
// slot above level 0, the slot *cascades*: its nodes move down, each at most once per level in its life. Time passes
// from occupied slot to occupied slot, never tick by tick.
//
//   I-WHEEL-1  A linked node is not due before `time_`, and lies where place_of(due) says. So it need not say itself.
//   I-WHEEL-2  At level 0 the slots before time's digit are empty; above it, those up to and with time's digit.
//   I-WHEEL-3  The earliest node is in the first occupied slot of the first occupied level (follows from 1).
//   I-WHEEL-4  Nodes of one tick lie in one slot (follows from 1), in order of insertion: a slot cascades as a whole,
//              front to back, and only when all levels below it are empty.
//   I-WHEEL-5  A bit of `occupied_` is set if and only if its slot has a node.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace taskpool::detail {

/// To be derived from by what waits. It belongs to the caller, lies in at most one wheel, and while it does may neither
/// move nor end, nor may the caller write its fields.
struct timer_node {
    timer_node* next = nullptr;     // in the slot, null for the last; in a batch, the one that is due after it
    timer_node* previous = nullptr; // in the slot, for the first the last; null if and only if not linked
    std::uint64_t due = 0;          // in ticks of the wheel

    bool is_linked() const noexcept { return previous != nullptr; }
};
static_assert(sizeof(timer_node) <= 24);

/// Ticks are 64 bits wide and never wrap (unlike detail::tick); what one stands for is the owner's. The wheel does not
/// own its nodes: it may end with some in it, which then must not be removed.
class timer_wheel {
  public:
    explicit timer_wheel(std::uint64_t time = 0) noexcept : time_(time) {}
    timer_wheel(const timer_wheel&) = delete;
    timer_wheel& operator=(const timer_wheel&) = delete;

    /// REQUIRES: n is not linked, n.due is set. A due before time() is raised to time(): the node is given back by the
    /// next advance, whatever its `now`, behind those that are due at time() already. O(1).
    void insert(timer_node& n) noexcept;

    /// REQUIRES: n is linked, in this wheel (what a batch gave back no longer is). O(1).
    void remove(timer_node& n) noexcept;

    struct batch {
        timer_node* first; // the rest follow by `next`; null when none is due. None of them is linked.
        bool more;         // are due at the same `now`: call again
    };

    /// Moves time to `now`, and unlinks and gives back the first `most` of the nodes that are due at or before it. Time
    /// never goes back: a `now` before time() counts as time().
    ///
    /// Order: by due as insert left it, and nodes of one tick in order of insertion, however far ahead each was
    /// inserted and however often it cascaded. This holds across batches too, with anything inserted or removed between
    /// them: while more are due, time() stands at the tick of the first that is left.
    ///
    /// Takes time by the nodes given back and those that cascade, not by the ticks passed. `most` does not bound the
    /// latter: a slot cascades as a whole. advance(2^64 - 1) empties the wheel.
    [[nodiscard]] batch advance(std::uint64_t now, std::size_t most = std::numeric_limits<std::size_t>::max()) noexcept;

    /// The tick at which advance is to be called next for nothing to be late; none when the wheel is empty. Never after
    /// the first due and never before time(), and time() itself only when a node is due. Exact when a node is due in
    /// time's own block of 64 ticks, else the beginning of a slot that is to cascade. Who sleeps until next_wake() over
    /// and over wakes for one node at most once per level, so 5 times when it was due within 2^24 ticks (4.6 hours of
    /// milliseconds), and 11 times at the very most.
    std::optional<std::uint64_t> next_wake() const noexcept;

    /// The tick that advance has reached: its `now`, or while more are due the tick of the first that is left.
    std::uint64_t time() const noexcept { return time_; }

    /// How many nodes are linked.
    std::size_t size() const noexcept { return size_; }

  private:
    static constexpr unsigned digit_bits = 6;
    static constexpr unsigned slots = 1U << digit_bits;
    static constexpr unsigned levels = (64 + digit_bits - 1) / digit_bits;

    struct place {
        unsigned level;
        unsigned slot;
    };
    place place_of(std::uint64_t due) const noexcept;
    std::optional<place> first_occupied() const noexcept;
    std::uint64_t begin_of(place p) const noexcept;
    void link(timer_node& n) noexcept;
    void unlink(timer_node& n, place p) noexcept;
    void cascade(place p) noexcept;

    std::uint64_t time_;
    std::size_t size_ = 0;
    std::array<std::uint64_t, levels> occupied_{};                  // a bit per slot
    std::array<std::array<timer_node*, slots>, levels> first_in_{}; // null, or the first; its `previous` is the last
};

} // namespace taskpool::detail
