// SPDX-License-Identifier: Apache-2.0
// How a worker sleeps, how it is woken, and how many work.
//
// A worker is *working* (it runs jobs or looks for one), *blocked* (its job is known to block its thread; it does not
// count as working) or *parked* (asleep). No more than `threads` are meant to be working; that there may be more for a
// while, when blocked ones return, is the keeper's business (elastic.cpp).
//
// A push wakes a parked worker only if fewer than `threads` work and nobody is *searching*: the searcher, who is awake
// and about to look at all the queues, will find the lane, and wakes the next when it has found one. So a stream of
// pushes does not wake a worker for each job.
//
// Why no wake-up is lost. The pusher locks a queue, links its lane, and then reads `parked_`, `working_` and
// `searching_`. Who gives up (a worker that parks, a searcher that ends its search, the keeper that falls asleep) first
// writes the variable in question, and then locks each queue to see whether it is empty. Of the two locks of one queue
// one comes first: if the pusher's, the other sees the lane; if the other's, the pusher sees what was written. The
// variables can therefore be relaxed: the queue's lock orders them.
//
//   I-PARK-1  While a lane is ready, a worker is parked, nobody searches and fewer than `threads` work, somebody is
//             between the two steps above. [checked by: the tests that wait for every job, which would hang]
//   I-PARK-2  working + blocked + parked = threads that were started and have not ended.
#pragma once

#include <cstddef>
#include <vector>

#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

struct worker;

class parking {
  public:
    parking(unsigned threads, unsigned max_threads) : threads_(threads) { parked_workers_.reserve(max_threads); }

    /// Whether a push should call unpark_one(). A few loads.
    bool wants_waking() const noexcept {
        // relaxed: ordered by the queue's lock, see above.
        return parked_.load(std::memory_order_relaxed) > 0 && !searching_.load(std::memory_order_relaxed) &&
               working_.load(std::memory_order_relaxed) < static_cast<int>(threads_);
    }

    /// Wakes a parked worker as the searcher, unless somebody searches already or none is parked.
    void unpark_one() noexcept;

    /// Wakes up to `most` parked workers, whatever the limit. How many; one that parks again meanwhile counts twice.
    std::size_t unpark(std::size_t most) noexcept;

    /// Becomes the searcher; false when somebody is.
    bool begin_search() noexcept;
    /// REQUIRES: being the searcher. The caller looks at the queues afterwards.
    void end_search() noexcept;

    /// Registers a worker as parked. The caller then looks at the queues, and calls either unpark_self or sleep.
    void park(worker& w, tick now) noexcept;
    /// Takes the registration back; false when somebody has woken the worker already.
    bool unpark_self(worker& w) noexcept;
    /// Sleeps until woken. Whether the worker is now the searcher.
    bool sleep(worker& w) noexcept;

    // Counting. relaxed throughout, and below: figures, but where the argument above orders them.
    void add_working(int n) noexcept { working_.fetch_add(n, std::memory_order_relaxed); }
    int working() const noexcept { return working_.load(std::memory_order_relaxed); }
    void add_blocked(int n) noexcept { blocked_.fetch_add(n, std::memory_order_relaxed); }
    int blocked() const noexcept { return blocked_.load(std::memory_order_relaxed); }
    unsigned parked() const noexcept { return parked_.load(std::memory_order_relaxed); }

    /// How many workers should park at their next job's end, set by the keeper. relaxed: see take_surplus.
    void set_surplus(int n) noexcept { surplus_.store(n, std::memory_order_relaxed); }
    bool has_surplus() const noexcept { return surplus_.load(std::memory_order_relaxed) > 0; }
    /// Whether the caller is one of them.
    bool take_surplus() noexcept;

    /// The worker that has been parked longest, if that is since before `since`; it is no longer parked then and ends.
    worker* retire_one(tick since) noexcept;

    /// From now on workers that find no work end.
    void close() noexcept;
    bool closed() const noexcept { return closed_.load(std::memory_order_relaxed); } // see close

  private:
    /// One that is parked no longer, and is the caller's to signal; or null. It counts as working.
    worker* take_parked() noexcept;

    const unsigned threads_;
    alignas(64) sync::atomic<int> working_{0};
    sync::atomic<int> blocked_{0};
    sync::atomic<unsigned> parked_{0}; // the size of parked_workers_
    sync::atomic<bool> searching_{false};
    sync::atomic<int> surplus_{0};
    sync::atomic<bool> closed_{false};

    sync::mutex mutex_;
    std::vector<worker*> parked_workers_; // under mutex_; the last one is woken first: its caches are warm
};

} // namespace taskpool::detail
