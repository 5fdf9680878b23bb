// SPDX-License-Identifier: Apache-2.0
// Jobs with a tag: a waiting one is replaced by the next one of its tag and key, in its place. The lane holds a pointer
// to the callable, and the shard an index of those that may still be replaced.
//
//   I-TAG-1  A tagged job is in its shard's index from its push until its run begins, or it is cut out of its lane or
//            dropped: who does that takes it out under the shard's lock, under which it is replaced, too. So what has
//            been replaced is always what would have run. Nothing new gets into what a cancel or a pause has found in
//            a worker's hands.
//   I-TAG-2  What is in the index lies in its lane, or in the hands of the worker that is about to run it; so its lane
//            is active.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "lane.hpp"

namespace taskpool::detail {

struct tagged_job {
    tagged_job(pool_core& owner, std::string_view name, stop_action what) : core(owner), tag(name), on_stop(what) {}

    // --- Constant once it is in its lane
    pool_core& core;
    const std::string tag;
    const stop_action on_stop; // the slot in the lane has it, so only jobs that agree replace one another
    lane* in = nullptr;
    sync::atomic<bool> listed{false}; // written under the shard's lock
    // --- Under the shard's lock while it is listed, then its owner's
    const job_ops* ops = nullptr;
    alignas(inline_job_alignment) std::byte storage[inline_job_size];
};

/// Those of a shard that may be replaced. Under the shard's lock.
class tag_index {
  public:
    struct place {
        const lane* in;
        std::string_view tag;
        stop_action on_stop;
        friend bool operator==(const place&, const place&) = default;
    };

    bool is_empty() const noexcept { return jobs_ == nullptr; }
    tagged_job* find(const place& where) const noexcept;
    void add(tagged_job& t); // throws std::bad_alloc
    void remove(tagged_job& t) noexcept;

  private:
    static place place_of(const tagged_job& t) noexcept { return {t.in, t.tag, t.on_stop}; }
    struct hash {
        std::size_t operator()(const place& p) const noexcept {
            return std::hash<std::string_view>()(p.tag) ^ (std::hash<const void*>()(p.in) * 31);
        }
    };
    using jobs = std::unordered_map<place, tagged_job*, hash>; // a place's tag is that of its job

    std::unique_ptr<jobs> jobs_; // null while there are none (G7)
};

/// A slot whose storage points at a tagged_job, which it owns.
extern const job_ops tagged_ops;

/// If it is a tagged job, it may be replaced no longer. REQUIRES: the shard's lock.
void unlist_tagged_locked(job_slot& job) noexcept;

/// Brings a job to its lane with a tag. Where there is one that it may replace, it is put in its place instead.
class tagged_source final : public job_source {
  public:
    tagged_source(pool_core& core, std::string_view tag, job_source& job, stop_action on_stop);

    /// False if there is none; else `replaced` gets it. Strong guarantee. REQUIRES: the shard's lock.
    bool replace_locked(lane& l, job_slot& replaced);

  private:
    bool is_too_late_locked(lane& l, const tagged_job& t) const noexcept;

    job_source& from_;
    std::unique_ptr<tagged_job> made_;
};

} // namespace taskpool::detail
