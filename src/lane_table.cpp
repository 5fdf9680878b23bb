// SPDX-License-Identifier: Apache-2.0
#include "lane_table.hpp"

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

namespace taskpool::detail {

template <class Construct>
lane* lane_maker::make(std::uint16_t shard, std::size_t behind, Construct construct_key) const {
    const auto size = key_room_ + sizeof(lane) + behind;
    void* const block = alignment_ <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
                            ? ::operator new(size)
                            : ::operator new(size, std::align_val_t(alignment_));
    try {
        construct_key(block);
    } catch (...) {
        free_block(block);
        throw;
    }
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): free() finds it again, before the lane
    lane* const l = new (static_cast<std::byte*>(block) + key_room_) lane;
    l->shard = shard;
    return l;
}

lane* lane_maker::make(const key_view& key, std::uint16_t shard) const {
    return make(shard, 0, [&](void* at) { keys.construct(at, key.view); });
}

lane* lane_maker::make_beside(const lane& of, std::size_t behind) const {
    return make(of.shard, behind, [&](void* at) { keys.copy(at, key_of(of)); });
}

lane* lane_maker::make_without_key(std::uint16_t shard) const {
    return make(shard, 0, [](void*) {});
}

void lane_maker::free(lane* l) const noexcept {
    keys.destroy(key_of(*l));
    free_without_key(l);
}

void lane_maker::free_without_key(lane* l) const noexcept {
    void* const block = key_of(*l);
    l->~lane();
    free_block(block);
}

void lane_maker::free_block(void* block) const noexcept {
    if (alignment_ <= __STDCPP_DEFAULT_NEW_ALIGNMENT__)
        ::operator delete(block);
    else
        ::operator delete(block, std::align_val_t(alignment_));
}

lane_table::~lane_table() {
    for (lane* const l : lanes_)
        if (l != nullptr)
            maker_->free(l);
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
    lane* const l = maker_->make(key, shard_);
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

void lane_table::erase(std::size_t place) noexcept {
    const std::size_t last = mask();
    std::size_t gap = place;
    for (std::size_t i = (gap + 1) & last; marks_[i] != no_mark; i = (i + 1) & last) {
        // The lane at i may move into the gap unless its own place lies behind the gap.
        const std::size_t from_home = (i - marks_[i]) & last;
        const std::size_t from_gap = (i - gap) & last;
        if (from_home >= from_gap) {
            lanes_[gap] = lanes_[i];
            marks_[gap] = marks_[i];
            gap = i;
        }
    }
    lanes_[gap] = nullptr;
    marks_[gap] = no_mark;
    --used_;
    ++changes_;
}

void lane_table::resize(std::size_t places) {
    std::vector<lane*> lanes(places);
    std::vector<std::uint32_t> marks(places);
    lanes.swap(lanes_);
    marks.swap(marks_);
    used_ = 0;
    sweep_at_ = 0;
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
    if (!lanes_.empty()) {
        sweep_at_ = 0;
        const auto places = lanes_.size();
        sweep_locked(places);
        // Worth the sweep where it made a quarter of the table free; else sweeps would come ever more often.
        if (lanes_.size() < places || used_ * 8 < places * 4)
            return;
    }
    resize(std::max<std::size_t>(8, lanes_.size() * 2));
}

std::size_t lane_table::sweep_locked(std::size_t most) noexcept {
    for (; most > 0 && sweep_at_ < lanes_.size(); --most) {
        lane* const l = lanes_[sweep_at_];
        sync::prefetch(lanes_[(sweep_at_ + 8) & mask()]); // null is as good as any
        if (l != nullptr && l->state == lane_state::idle && l->pins == 0 && !l->left_behind) {
            assert(l->waiting() == 0 && l->extras == nullptr && !l->has_job); // I-LANE-6, I-TABLE-2
            erase(sweep_at_); // may move another lane here: look at this place again
            maker_->free(l);
        } else {
            ++sweep_at_;
        }
    }
    if (sweep_at_ < lanes_.size())
        return lanes_.size() - sweep_at_;
    sweep_at_ = 0;
    if (lanes_.size() > 8 && used_ * 8 < lanes_.size()) {
        try {
            auto places = lanes_.size();
            while (places > 8 && used_ * 4 < places)
                places /= 2;
            resize(places);
        } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): it stays as large as it is
        }
    }
    return 0;
}

} // namespace taskpool::detail
