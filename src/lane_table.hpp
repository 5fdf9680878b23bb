// SPDX-License-Identifier: Apache-2.0
// Key -> lane: look-up, creation and reclamation, for one shard of the keys.
//
// An open-addressing table with linear probing (and deletion by shifting back, Knuth vol. 3, 6.4, algorithm R), kept at
// most 3/4 full. Beside the pointers lie *marks*, hashes that also tell which places are taken: probing reads only
// those, mostly in one cache line, and touches a lane only when its hash is the right one.
// Nobody frees a lane when it goes idle: it may be wanted again at once. Idle lanes are swept by the keeper in passing,
// so that a key is forgotten within about a second (G7), and when the table would have to grow. But where idle ones
// were found again, one for each eight lanes since the table was last full, its keys come and go: then it grows all the
// same, up to a bound. Else the same lanes would be freed and made over and over. Where they are, for keys that come
// once, a full table forgets idle ones until half of what it may hold is left, and their memory goes to the next new
// ones; the keeper frees the rest when it sweeps.
//
//   I-TABLE-1  Every lane of the shard is in the table exactly once, reachable from its hash's place without a gap.
//              A place has a mark exactly where it has a lane.
//   I-TABLE-2  A lane is freed only in a sweep and in the destructor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "lane.hpp"
#include "spare_blocks.hpp"
#include "sync.hpp"

namespace taskpool::detail {

/// Where lanes come from: each with its key before it, in one block. So the key is next to the tail, which a submit
/// needs anyway; behind the lane it would share a line with the head, which a worker writes meanwhile.
class lane_maker {
  public:
    lane_maker(const key_type& type, std::shared_ptr<const void> key_functions)
        : keys(type), functions(std::move(key_functions)), alignment_(std::max(type.alignment, alignof(lane))),
          key_room_((type.size + alignment_ - 1) / alignment_ * alignment_) {}

    /// Memory for a lane with its key, and so many bytes behind it for its maker's use. Throws std::bad_alloc.
    void* allocate(std::size_t behind = 0) const;
    void deallocate(void* block) const noexcept;

    /// Makes a lane in such memory. Frees that, and throws, where copying the key throws.
    lane* make(void* block, const key_view& key, std::uint16_t shard) const;
    /// The same with a copy of another one's key, in memory of its own.
    lane* make_beside(const lane& of, std::size_t behind) const;
    /// The same without a key, where that would lie.
    lane* make_without_key(std::uint16_t shard) const;

    /// Destroys a lane and its key. Returns its memory.
    void* unmake(lane* l) const noexcept;
    void free(lane* l) const noexcept { deallocate(unmake(l)); }
    void free_without_key(lane* l) const noexcept { deallocate(unmake_without_key(l)); }

    std::size_t lane_size() const noexcept { return key_room_ + sizeof(lane); } // with its key
    void* key_of(lane& l) const noexcept { return reinterpret_cast<std::byte*>(&l) - key_room_; }
    const void* key_of(const lane& l) const noexcept { return reinterpret_cast<const std::byte*>(&l) - key_room_; }

    const key_type& keys;
    const std::shared_ptr<const void> functions;

  private:
    template <class Construct>
    lane* make(void* block, std::uint16_t shard, Construct construct_key) const;
    void* unmake_without_key(lane* l) const noexcept;

    const std::size_t alignment_;
    const std::size_t key_room_; // with what aligns the lane
};

class lane_table {
  public:
    lane_table() = default;
    lane_table(const lane_table&) = delete;
    lane_table& operator=(const lane_table&) = delete;
    ~lane_table();

    /// One of so many tables of a pool: that of this shard. REQUIRES: called once, before anything else.
    void use(const lane_maker& maker, std::uint16_t shard, std::size_t tables) noexcept {
        maker_ = &maker;
        shard_ = shard;
        most_places_for_idle_ = bytes_for_idle / tables / maker.lane_size();
    }

    // All that follows REQUIRES the shard's lock.

    /// The key's lane or null.
    lane* find_locked(const key_view& key, std::uint32_t hash) const;

    /// The key's lane, made idle when there was none. Strong guarantee.
    lane& find_or_make_locked(const key_view& key, std::uint32_t hash);

    /// Whether lanes that are made from now on attend (lane.hpp).
    void have_new_ones_attend_locked(bool attend) noexcept { new_ones_attend_ = attend; }

    /// Frees idle, unpinned lanes among the next `most` places, going round. Returns how many places are left until the
    /// whole table has been seen once; shrinks the table then, where that is worth it.
    std::size_t sweep_locked(std::size_t most) noexcept;

    std::size_t size_locked() const noexcept { return used_; }

    /// Grows whenever lanes change places.
    std::uint64_t changes_locked() const noexcept { return changes_; }

    /// All lanes, null where a place is empty. Changed by find_or_make_locked and sweep_locked.
    const std::vector<lane*>& places_locked() const noexcept { return lanes_; }

  private:
    static constexpr std::size_t least_places = 8;
    static constexpr std::size_t bytes_for_idle = std::size_t{10} << 20; // of a pool's idle lanes, in tables that grow

    std::size_t mask() const noexcept { return lanes_.size() - 1; }
    static constexpr std::uint32_t no_mark = 0; // of a free place
    static std::uint32_t mark_of(std::uint32_t hash) noexcept { return hash | 0x8000'0000U; }

    /// Where the key's lane lies, or else the free place where it would. REQUIRES: there are places.
    std::size_t find_place(const key_view& key, std::uint32_t mark) const;
    std::size_t find_free_place(std::uint32_t mark) const noexcept;
    void put(std::size_t place, lane* l, std::uint32_t mark) noexcept;
    /// Returns whether a lane of the table's beginning came to lie at its end.
    bool erase(std::size_t place) noexcept;
    void resize(std::size_t places);
    void make_room();
    void sweep(std::size_t most) noexcept;

    const lane_maker* maker_ = nullptr;
    std::vector<lane*> lanes_;         // a power of two of places, or none
    std::vector<std::uint32_t> marks_; // of the lanes at the same places, or no_mark
    std::size_t used_ = 0;
    const lane* last_made_ = nullptr; // may be gone
    std::uint32_t idle_found_ = 0;    // how often an idle one was, since the table was last full
    std::uint16_t shard_ = 0;
    bool new_ones_attend_ = false;
    std::size_t most_places_for_idle_ = 0;
    std::size_t unswept_ = 0; // so many places, the first ones, this round has still to look at
    spare_blocks spares_;     // memory of lanes that were swept to make room, for those that are made next
    std::uint64_t changes_ = 0;
};

} // namespace taskpool::detail
