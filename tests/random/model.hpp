// SPDX-License-Identifier: Apache-2.0
// What a pool without threads should do, as plainly as it can be said: for each key a deque of the jobs that wait and a
// list of those that run. The model decides nothing that the pool is free to decide: it is told what has started,
// ended or been discarded, and throws a mismatch where that was not allowed. Which of several ready keys goes next is
// the pool's affair; that none is left lying is not (must_be_idle).
//
// Time is in whole milliseconds, since that is the pool's tick.
//
// A job of several keys takes the pool two steps: under each key it is taken from the queue when its turn comes, and it
// runs when the last of these turns has come. The first step is not seen from outside, so the length of such a key's
// queue is known to within that one place (shortest, longest), and so is whether a pause or a rate came before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <taskpool/options.hpp>
#include <taskpool/stats.hpp>
#include <taskpool/status.hpp>

namespace taskpool::random {

/// The pool did what the model does not allow, or did not do what it demands.
struct mismatch : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using milliseconds = std::int64_t;

constexpr milliseconds never = std::numeric_limits<milliseconds>::max();
constexpr int barrier_key = -1; ///< Barriers wait in a queue of their own.

enum class job_kind { exclusive, shared, together, barrier, holding, lending }; ///< the last two: coroutines

enum class job_state {
    made,    ///< not yet submitted, or refused
    timed,   ///< waits for its time
    due,     ///< that has come, and there was no room
    waiting, ///< in its key's queue; of a coroutine that lends its key, to go on, too
    running, ///< on the stack
    between, ///< held, backing off, suspended
    done,    ///< ran to its end
    gone,    ///< discarded
};

struct job {
    int id = 0;
    job_kind kind = job_kind::exclusive;
    std::vector<int> keys;
    int tag = -1;
    bool must_run = false; ///< stop_action::run
    taskpool::priority priority = taskpool::priority::normal;
    milliseconds deadline = never;
    int failures = 0; ///< attempts that throw
    int attempts = 1; ///< allowed in all
    milliseconds backoff = 0;
    bool takes_hold = false;
    bool has_future = false;
    std::vector<milliseconds> pauses; ///< of a coroutine, between its stretches; 0: it yields
    milliseconds period = 0;          ///< of one that repeats; then a beat is a job of its own

    job_state state = job_state::made;
    bool has_made_way = false; ///< another job was discarded for it
    int era = 0;               ///< how many barriers were accepted before it; a barrier counts itself
    int attempt = 0;
    std::size_t stretch = 0;
    milliseconds wake = never;  ///< when it goes on by itself, while it is between
    std::uint64_t slept = 0;    ///< the order of sleeps
    std::uint64_t woken_by = 0; ///< which cancel or stop it comes from: those of one go on in any order
    bool woken = false;         ///< its time came before it was asked to stop
    bool backs_off = false;
    bool asked = false; ///< to stop
    bool begun = false;
    bool failed = false;
    bool expired = false;
    milliseconds due = 0;                     ///< of a timed one
    std::uint64_t armed = 0;                  ///< the order of timers
    std::optional<discard_reason> taken_back; ///< while it was due: the pool finds that at its next look
    job* repeats = nullptr;                   ///< of a beat: what it is one of
    bool beat_waits = false;                  ///< of one that repeats
    std::uint64_t missed = 0;
};

/// How often jobs of a key may start: one in `interval`, `burst` at once. Two buckets, since the pool may make good
/// what a key that waits was late by: one that is as full as it may be, and one that is as empty.
struct limit {
    milliseconds interval = 0;
    int burst = 1;
    double full_at_earliest = 0;
    double full_at_latest = 0;
};

struct key_state {
    std::deque<job*> waiting;  ///< in the order in which they are to start
    std::vector<job*> running; ///< those between two stretches included
    bool paused = false;
    std::optional<limit> limited;
};

struct rules {
    std::size_t lane_capacity = 3;
    std::size_t pool_capacity = 1000;
    std::size_t timer_capacity = 1000;
    std::size_t max_shared = 2;
    overflow when_full = overflow::block;
};

class model {
  public:
    explicit model(const rules& by) : by_(by) {}

    /// A job that is about to be submitted. It lives as long as the model.
    job& make(job like);
    job& find(int id) { return *jobs_.at(static_cast<std::size_t>(id)); }
    std::size_t jobs() const noexcept { return jobs_.size(); }

    // --- Calls. Those that discard say what must be reported until must_have_been_told().

    /// What a submit answers that does not wait. What it discards is expected from here on.
    submit_status answer(job& j);
    /// The submit has answered this. `waited` says that it would have waited for room.
    void submitted(job& j, submit_status answer, bool waited, milliseconds now);
    submit_status schedule(job& j, milliseconds due);
    bool cancel_timer(job& j, discard_reason why = discard_reason::cancelled);
    std::size_t cancel(int key, milliseconds now);
    bool pause(int key);
    bool resume(int key);
    void limit_key(int key, milliseconds interval, int burst, milliseconds now);
    bool unlimit(int key);
    void release(job& held);
    void close() { closed_ = true; }
    void stop(milliseconds now);

    // --- What the pool does

    /// The pool has looked at its timers at this time: wakes those that sleep, submits what is due.
    void settle(milliseconds now);
    /// The clock was moved, over what would come due meanwhile.
    void leap(milliseconds now) { clock_ = now; }
    milliseconds clock() const noexcept { return clock_; }
    void starts(job& j, milliseconds now);
    /// Of an attempt, or a stretch of a coroutine.
    void ends(job& j, bool threw, milliseconds now);
    /// What was told, and then the callable was destroyed.
    void discarded(job& j, discard_reason why, milliseconds now);
    /// The reason for which it is to be reported as discarded, if it is.
    std::optional<discard_reason> expected(const job& j) const;
    std::size_t expected(const std::string& key, discard_reason why) const;
    /// One that is to be reported so, and whose callable may live on: a beat, a coroutine with a future. Null: none.
    job* expected_to_live_on(const std::string& key, discard_reason why) const;
    /// The callable of one that was to be tried again was destroyed.
    void given_up(job& j);

    // --- What must hold

    /// Nothing is left that could start now.
    void must_be_idle(milliseconds now) const;
    void must_be_done() const;
    void must_have_been_told() const;
    /// A wait without end was refused: nothing is left that could go on, now or later.
    void must_be_stuck(milliseconds now) const;
    void must_agree(const pool_stats& stats, bool idle) const;
    bool has_work(int key) const;
    /// Places of jobs of several keys that were discarded: the pool finds them when their turn comes.
    bool has_dead_places() const;
    bool has_only_dead_places(int key) const;
    bool has_work() const;
    bool has_room_for(const job& j) const;
    std::vector<int> active_keys() const;
    std::vector<int> paused_keys() const;
    bool repeats() const;
    bool closed() const noexcept { return closed_; }
    bool stopped() const noexcept { return stopped_; }
    std::uint64_t discards() const noexcept { return discarded_; }
    std::uint64_t finished() const noexcept { return finished_; }

  private:
    using reason = std::string; // why something is not allowed; empty: it is

    reason may_start(const job& j, milliseconds now, bool strictly) const;
    bool is_full(int key, bool at_least) const;
    std::size_t longest(int key) const;
    std::size_t shortest(int key) const;
    std::size_t in_pool() const;
    void settle_once(milliseconds now);
    void push(job& j);
    void leave_queue(job& j);
    void finish(job& j);
    void expect(job& j, discard_reason why);
    void deliver(milliseconds now);
    void beat(job& of, milliseconds now);
    void ask(job& j, milliseconds now);
    void ask_lent(job& j, milliseconds now);
    void must_be_first(job& j);
    void wake(job& j);

    const rules by_;
    std::vector<std::unique_ptr<job>> jobs_;
    std::map<int, key_state> keys_;
    std::deque<job*> due_;    // whose time has come, and that found no room
    std::vector<job*> timed_; // those included
    std::map<const job*, discard_reason> expected_;
    milliseconds clock_ = 0; // when it last looked at its timers
    int era_ = 0;
    std::uint64_t order_ = 0; // of timers
    bool closed_ = false;
    bool stopped_ = false;

    std::uint64_t accepted_ = 0, finished_ = 0, failed_ = 0, retries_ = 0, discarded_ = 0, expired_ = 0, replaced_ = 0,
                  together_ = 0, rejected_ = 0;
};

std::string name_of(int key);
std::string to_string(const job& j);

} // namespace taskpool::random
