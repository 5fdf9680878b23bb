// SPDX-License-Identifier: Apache-2.0
#include "lane_table.hpp"

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

namespace taskpool::detail {

void* lane_maker::allocate(std::size_t behind) const {
    const auto size = lane_size() + behind;
    return alignment_ <= __STDCPP_DEFAULT_NEW_ALIGNMENT__ ? ::operator new(size)
                                                          : ::operator new(size, std::align_val_t(alignment_));
}

void lane_maker::deallocate(void* block) const noexcept {
    if (alignment_ <= __STDCPP_DEFAULT_NEW_ALIGNMENT__)
        ::operator delete(block);
    else
        ::operator delete(block, std::align_val_t(alignment_));
}

template <class Construct>
lane* lane_maker::make(void* block, std::uint16_t shard, Construct construct_key) const {
    try {
        construct_key(block);
    } catch (...) {
        deallocate(block);
        throw;
    }
    lane* const l = new (static_cast<std::byte*>(block) + key_room_) lane;
    l->shard = shard;
    return l;
}

lane* lane_maker::make(void* block, const key_view& key, std::uint16_t shard) const {
    return make(block, shard, [&](void* at) { keys.construct(at, key.view); });
}

lane* lane_maker::make_beside(const lane& of, std::size_t behind) const {
    return make(allocate(behind), of.shard, [&](void* at) { keys.copy(at, key_of(of)); });
}

lane* lane_maker::make_without_key(std::uint16_t shard) const {
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): unmake_without_key() finds it again, before the lane
    return make(allocate(), shard, [](void*) {});
}

void* lane_maker::unmake(lane* l) const noexcept {
    keys.destroy(key_of(*l));
    return unmake_without_key(l);
}

void* lane_maker::unmake_without_key(lane* l) const noexcept {
    void* const block = key_of(*l);
    l->~lane();
    return block;
}

lane_table::~lane_table() {
    for (lane* const l : lanes_)
        if (l != nullptr)
            maker_->free(l);
    while (spares_.size() > 0)
        maker_->deallocate(spares_.take());
}

std::size_t lane_table::find_place(const key_view& key, std::uint32_t mark) const {
    const std::uint32_t* const marks = marks_.data();
    const std::size_t last = mask();
    std::size_t i = mark & last;
    while (marks[i] != no_mark &&
           (marks[i] != mark || !maker_->keys.equal(maker_->functions.get(), maker_->key_of(*lanes_[i]), key.view)))
        i = (i + 1) & last;
    return i;
}

lane* lane_table::find_locked(const key_view& key, std::uint32_t hash) const {
    return used_ == 0 ? nullptr : lanes_[find_place(key, mark_of(hash))];
}

lane& lane_table::find_or_make_locked(const key_view& key, std::uint32_t hash) {
    const auto mark = mark_of(hash);
    std::size_t place = 0;
    if (!lanes_.empty()) {
        place = find_place(key, mark);
        if (lane* const l = lanes_[place]) {
            // Not the one that was made last: a submit may come back to it, from a wait for room.
            if (l->state == lane_state::idle && l != last_made_)
                ++idle_found_;
            return *l;
        }
    }
    if ((used_ + 1) * 4 > lanes_.size() * 3) {
        make_room();
        place = find_free_place(mark);
    }
    void* const block = spares_.size() > 0 ? spares_.take() : maker_->allocate();
    lane* const l = maker_->make(block, key, shard_);
    last_made_ = l;
    l->attends = new_ones_attend_; // nobody else knows it yet
    put(place, l, mark);
    return *l;
}

std::size_t lane_table::find_free_place(std::uint32_t mark) const noexcept {
    assert(used_ < lanes_.size()); // I-TABLE-1: there is an end to each run of places
    std::size_t i = mark & mask();
    while (marks_[i] != no_mark)
        i = (i + 1) & mask();
    return i;
}

void lane_table::put(std::size_t place, lane* l, std::uint32_t mark) noexcept {
    lanes_[place] = l;
    marks_[place] = mark;
    ++used_;
}

bool lane_table::erase(std::size_t place) noexcept {
    const std::size_t last = mask();
    std::size_t gap = place;
    bool crossed = false;
    for (std::size_t i = (gap + 1) & last; marks_[i] != no_mark; i = (i + 1) & last) {
        // The lane at i may move into the gap unless its own place lies behind the gap.
        const std::size_t from_home = (i - marks_[i]) & last;
        const std::size_t from_gap = (i - gap) & last;
        if (from_home >= from_gap) {
            lanes_[gap] = lanes_[i];
            marks_[gap] = marks_[i];
            crossed |= i < gap;
            gap = i;
        }
    }
    lanes_[gap] = nullptr;
    marks_[gap] = no_mark;
    --used_;
    ++changes_;
    return crossed;
}

void lane_table::resize(std::size_t places) {
    std::vector<lane*> lanes(places);
    std::vector<std::uint32_t> marks(places);
    lanes.swap(lanes_);
    marks.swap(marks_);
    used_ = 0;
    unswept_ = 0;
    ++changes_;
    for (std::size_t i = 0; i < lanes.size(); ++i)
        if (lanes[i] != nullptr)
            put(find_free_place(marks[i]), lanes[i], marks[i]);
    assert(used_ + static_cast<std::size_t>(std::count(lanes.begin(), lanes.end(), nullptr)) ==
           lanes.size()); // I-TABLE-1
}

void lane_table::make_room() {
    if (std::exchange(idle_found_, 0) >= (used_ + 7) / 8 && !lanes_.empty() &&
        lanes_.size() * 2 <= most_places_for_idle_) {
        try {
            resize(lanes_.size() * 2);
            return;
        } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): what is idle may be enough
        }
    }
    // Down to half of what it may hold: further idle ones may come again.
    const auto places = lanes_.size();
    for (auto left = places; left > 0 && used_ * 8 > places * 3; left -= least_places)
        sweep(least_places);
    // Worth the sweep where it made a quarter of the table free; else sweeps would come ever more often.
    if (used_ * 2 >= places)
        resize(std::max(least_places, places * 2));
}

/// Frees idle lanes among the next places, going round, and keeps their memory.
void lane_table::sweep(std::size_t most) noexcept {
    if (unswept_ == 0)
        unswept_ = lanes_.size();
    // From the last place to the first: what lies behind the place at hand has been swept, so that little shifts back.
    for (; most > 0 && unswept_ > 0; --most) {
        lane* const l = lanes_[unswept_ - 1];
        if (l != nullptr && l->state == lane_state::idle && l->pins == 0 && !l->left_behind) {
            assert(l->waiting() == 0 && l->extras == nullptr && !l->has_job); // I-LANE-6, I-TABLE-2
            const bool crossed = erase(unswept_ - 1);
            spares_.put(maker_->unmake(l));
            if (crossed) {
                unswept_ = lanes_.size(); // one that has not been looked at lies behind now
                continue;
            }
        }
        --unswept_;
    }
}

std::size_t lane_table::sweep_locked(std::size_t most) noexcept {
    sweep(most);
    for (auto left = 2 * most; left > 0 && spares_.size() > 0; --left) // a round frees them all
        maker_->deallocate(spares_.take());
    if (unswept_ == 0 && lanes_.size() > least_places && used_ * 8 < lanes_.size()) {
        try {
            auto places = lanes_.size();
            while (places > least_places && used_ * 4 < places)
                places /= 2;
            resize(places);
        } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): it stays as large as it is
        }
    }
    return unswept_;
}

} // namespace taskpool::detail
