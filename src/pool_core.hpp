// SPDX-License-Identifier: Apache-2.0
// The pool: what its parts share, and who may touch what. The parts are in files of their own:
//
//   lane, lane_table   one key's FIFO; key -> lane           pool.cpp        start, close, stop
//   ready_queue        ready lanes by age                    submit.cpp      submit, and waiting for room
//   parking, worker    who runs, who sleeps                  suspension.cpp  lanes between two jobs
//   room, gate         waiting for room; the pool's capacity pause.cpp       keys none of whose jobs starts
//   wait_graph         cycles of waits                       drain.cpp       waiting until there is no work
//   timers, timed_job  what happens at a time                elastic.cpp     the keeper: clock, blocked workers
//   coroutine          jobs that wait with no thread         looking.cpp     figures, keys, reports
//   retry              jobs that are tried again             executors       what executors of others need
//   deadline           jobs that start too late              fork            what fork() does to pools
//   tagged_job         jobs that replace one another         manual          a pool without threads, for tests
//   rate               how often a key's jobs start          together        jobs of several keys
//   overload           when ready keys wait for too long     shared_job      jobs of a key that run side by side
//   barrier            jobs between all others               attend.cpp      whether a lane's next job may start
//   options            whether options make sense            cancel.cpp      what becomes of a cancelled key's jobs
//
// Order of locks: lifecycle_, the barriers', the wait graph's, gate, workers', shards' in their order, one lane's head,
// that of one beside it, a job's of several keys. None is held while a handler, a job or a job's destructor runs. A
// ready queue's, the room's, the timers', parking's and quiet_'s are taken last, and nothing under them; so is
// companions_mutex_.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gate.hpp"
#include "hot_keys.hpp"
#include "lane_table.hpp"
#include "parking.hpp"
#include "rate.hpp"
#include "ready_queue.hpp"
#include "room.hpp"
#include "shard.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"
#include "timers.hpp"
#include "worker.hpp"

namespace taskpool::detail {

class manual_driver;
class companion;
struct barrier_line;
struct joint_place;
struct share_group;

class pool_core : public std::enable_shared_from_this<pool_core> {
  public:
    pool_core(options settings, const key_type& keys, std::shared_ptr<const void> functions,
              const manual_mode* mode = nullptr);
    ~pool_core();

    // --- Constant after construction. First of all, since the other parts refer to it.
    const options settings;
    const tick ageing; // settings.ageing, in ticks
    const lane_maker maker;
    std::vector<shard> shards;                   // a power of two
    const std::unique_ptr<manual_driver> manual; // of a pool without threads: who waits drives it; else null

    // --- Parts, each with its own rules
    std::vector<ready_queue> queues; // one for each of `threads` homes
    mutable tick_clock clock;        // who reads it may move it
    timers time;
    parking workers_at;
    pool_gate gate;
    room waiting_room;
    hot_keys hottest;
    const std::unique_ptr<barrier_line> barrier;
    sync::atomic<bool> stopping{false}; // written under lifecycle_; jobs ask it
    sync::atomic<bool> forked{false};   // this is the child of a fork: every call returns at once
    sync::atomic<bool> pool_room_wanted{false};
    std::size_t waiting_threads = 0; // of waits inside jobs; under the wait graph's mutex

    // --- Submitting (submit.cpp)
    submit_result submit(const key_view& key, job_source& job, const job_options& how, const patience& wait);
    submit_result submit(lane& l, job_source& job, const job_options& how, const patience& wait);
    submit_result submit(const key_view& key, std::string_view tag, job_source& job, const job_options& how,
                         const patience& wait); // tagged_job.cpp

    // --- Jobs of several keys (together.cpp)
    submit_result submit_together(std::span<const key_view> keys, job_source& job, const job_options& how,
                                  const patience& wait);
    void discard_joint(const lane& l, joint_job& killed, discard_reason why) noexcept;
    void end_place(joint_place& place) noexcept;
    void expire_joint(joint_job& whole) noexcept; // REQUIRES: the caller runs the job
    std::uint32_t end_joint(joint_job& whole) noexcept;
    // relaxed: see submit_together.
    bool has_joint_jobs() const noexcept { return has_joint_jobs_.load(std::memory_order_relaxed); }

    // --- Barriers (barrier.cpp)
    submit_result submit_barrier(job_source& job, const job_options& how, const patience& wait);
    std::size_t barriers() const noexcept; // that wait or run
    bool has_barriers() const noexcept;    // or may have
    void doubt_barriers() noexcept;        // a job waits that may hold them up

    // --- Between push and worker
    shard& shard_of(const lane& l) noexcept { return shards[l.shard]; }
    std::pair<shard&, std::uint32_t> place_of(const key_view& key) noexcept; // and the hash for the table
    /// Queues a lane that the caller owns, and sees to it that somebody serves it. It has waited for a worker since
    /// then, or now (overload.cpp).
    void enqueue(lane& l, tick age, tick since) noexcept;
    void enqueue(lane& l, tick age) noexcept;
    bool any_ready() const noexcept; // with each queue's lock in turn
    bool any_front() const noexcept; // a hint, without locks
    /// Wakes a worker if one is wanted and a lane is ready. For those who end a search or a job's claim on a thread.
    void wake_if_ready() noexcept;
    /// The owner has found the lane empty. Whether it went idle; if not, jobs came meanwhile.
    bool let_go(lane& l) noexcept;
    void go_idle_locked(shard& s, lane& l) noexcept;
    cut_jobs cut_waiting_locked(shard& s, lane& l) noexcept;
    void release_hold(job_extras& e) noexcept;
    void resume(job_extras& e) noexcept;
    /// Ends a lane's current job where it has extras. False when the lane is no longer the worker's. REQUIRES:
    /// `lock` is the lane's. It is given back meanwhile, and had again only where the answer is true.
    bool end_job_with_extras(lane& l, worker& by, std::unique_lock<sync::spin_lock>& lock) noexcept;
    void deliver(delivery& what) noexcept;
    void postpone(delivery& what) noexcept; // to the next tick

    // --- Keys that are paused or limited, or have shared jobs, whose lanes attend (attend.cpp)
    turn attend(lane& l) noexcept;
    void limit(const key_view& key, const rate& most);
    bool unlimit(const key_view& key);
    void limit_all(const std::optional<rate>& most);
    void limit_by(rate_function f);
    void give_token_back(lane& l) noexcept;
    void fire(bucket& b) noexcept;

    // --- How long ready keys wait (overload.cpp)
    std::chrono::milliseconds oldest_wait() const noexcept;
    void visit_oldest_keys(std::size_t most, key_visitor visitor) const;
    void watch_load() noexcept;
    bool is_overloaded() const noexcept {
        // relaxed: a hint for who does not ask the gate; who waits in the room asks again at the keeper's next tick.
        return overloaded_.load(std::memory_order_relaxed);
    }

    // --- Shared jobs (shared_job.cpp)
    submit_result submit_shared(const key_view& key, job_source& job, const job_options& how, const patience& wait);
    submit_result submit_shared(lane& l, job_source& job, const job_options& how, const patience& wait);
    lane* begin_share_locked(lane& l) noexcept;
    void pass_on(lane& l) noexcept;
    /// The lane of the key of a job in this one.
    const lane& key_lane(const lane& l) noexcept; // REQUIRES: the job is there

    // --- Paused keys (pause.cpp)
    bool pause(const key_view& key);
    void pause(lane& l) noexcept; // REQUIRES: the caller runs its job
    bool resume(const key_view& key);
    void visit_paused_keys(key_visitor visitor);

    // --- Jobs for later (timed_job.cpp)
    scheduled schedule(const key_view& key, job_source& job, const job_options& how, timers::time_point when,
                       std::chrono::nanoseconds period);
    bool cancel_timed(timed_job& t) noexcept;
    bool is_taken_back(timed_job& t) noexcept;
    void drop_timed(timed_job& t, bool by_beat = false) noexcept;
    void drop_handle(timed_job& t) noexcept;
    void free_timed(timed_job& t) const noexcept;
    std::size_t timed_jobs() const noexcept { return timed_.load(std::memory_order_relaxed); } // a figure by itself

    // --- Executors of other libraries (executors.cpp)
    void end_work(shard& s) noexcept;
    companion& companion_of(const void* kind, std::unique_ptr<companion> (*make)());

    // --- Blocked workers (elastic.cpp)
    void enter_blocking(worker& w) noexcept;
    void leave_blocking(worker& w) noexcept;
    void unblock(worker& w) noexcept;
    void poke_keeper() noexcept { keeper_woken_.signal_lasting(); }

    // --- The contract (pool.cpp, drain.cpp)
    void start();
    void close() noexcept;
    bool drain(const patience& wait);
    bool wait_until_drained(const patience& wait);
    bool drain(const key_view& key, const patience& wait);
    std::size_t cancel(const key_view& key);
    stop_report stop();
    void destroy() noexcept;
    lane* acquire_lane(const key_view& key);
    void share_lane(lane& l) noexcept;
    void unpin(lane& l) noexcept;
    std::size_t active_keys() const noexcept;
    void visit_active_keys(key_visitor visitor);
    pool_stats stats() const;

    // --- Reporting
    std::string describe(const void* stored_key) const noexcept;
    std::string describe(const lane& l) const noexcept { return describe(maker.key_of(l)); }
    void report_failure(std::string_view key, const std::exception_ptr& error) const noexcept;
    void count_hot(const running_job& job, std::uint64_t jobs, tick now) noexcept;
    /// Reports and destroys a job that will not run. REQUIRES: no lock held; the lane's key stays.
    void discard_job(const lane& l, job_slot& job, discard_reason why) noexcept;
    /// False when the callable's destructor threw, which is reported.
    bool destroy_job(const lane& l, job_slot& job) noexcept {
        return job.ops->destroy == nullptr || destroy_callable(maker.key_of(l), job.ops, job.storage);
    }
    void report_discard(const void* stored_key, discard_reason why) noexcept;
    bool destroy_callable(const void* stored_key, const job_ops* ops, void* storage) noexcept;

    /// Jobs that workers have taken, discarded ones included. Not ahead of the truth.
    std::uint64_t taken_by_workers() const noexcept;
    std::uint64_t taken_by_workers_locked() const noexcept;
    std::unique_lock<sync::mutex> lock_workers() const noexcept { return std::unique_lock(workers_mutex_); }

    /// Who called fork() must not touch what other threads may have held.
    bool is_forked() const noexcept {
        // relaxed: written in the child before it has a second thread.
        return forked.load(std::memory_order_relaxed);
    }
    bool is_stopping() const noexcept {
        // relaxed: a request, which publishes nothing; jobs see it soon.
        return stopping.load(std::memory_order_relaxed);
    }

  private:
    friend struct worker;
    friend struct barrier_line;
    friend class manual_driver;

    enum class attempt { accepted, stopped, lane_full, pool_full };
    submit_result submit_in(shard& s, std::uint32_t hash, const key_view& key, job_source& job, const job_options& how,
                            const patience& wait);
    template <class Find, class Source>
    submit_result submit(shard& s, Find find, Source& job, const job_options& how, const patience& wait);
    attempt push_locked(shard& s, lane& l, job_source& job, const job_options& how, tick age, bool gate_refused,
                        job_slot& dropped, bool& ready);
    /// The age by which a job that is submitted now takes turns.
    tick aged(tick now, priority of) const noexcept {
        if (of == priority::normal) [[likely]]
            return now;
        return of == priority::high ? now - ageing : now + ageing;
    }
    /// When a waiting job was submitted.
    tick submitted(const job_slot& job) const noexcept { return job.age - aged(0, job.priority); }
    std::optional<tick> oldest_since() const noexcept;
    bool drops_oldest() const noexcept { return settings.when_full == overflow::drop_oldest; }
    bool keeps_latest() const noexcept { return settings.when_full == overflow::keep_latest; }
    bool unpin_locked(lane& l) const noexcept;
    struct unpin_at_end {
        pool_core& core;
        lane& l;
        ~unpin_at_end() { core.unpin(l); }
    };
    /// A job was pushed to a lane that was idle, or lingers. Whether the caller must queue it. REQUIRES: the shard's
    /// lock.
    static bool activate_locked(shard& s, lane& l) noexcept {
        s.active += l.state == lane_state::idle ? 1 : 0;
        return l.become_active_locked();
    }
    bool wait_or_refuse(lane& l, bool again, bool in_pool, bool sheds, bool may_wait, const patience& wait,
                        submit_result& refusal);
    bool spin_for_room(const lane& l) const noexcept;
    bool wait_for_room(lane& l, bool in_pool, const patience& wait, submit_result& refusal);
    bool claim_room(lane& l, bool in_pool) noexcept;
    void tell_of_room(shard& s, std::size_t count) noexcept;
    void discard_all(lane& l, cut_jobs& cut, discard_reason why) noexcept;
    bool ask_to_stop_locked(shard& s, lane& l) noexcept;
    void request_stops(lane& l) noexcept;
    void become_idle_locked(shard& s, lane& l) noexcept;
    void rest_locked(shard& s, lane& l) noexcept;
    bool may_start_locked(lane& l, const job_slot& next) const noexcept;
    std::optional<tick> wake_for_shares_locked(shard& s, lane& l, share_group* group) noexcept;
    static bool attends_locked(shard& s, const lane& l) noexcept;
    void end_share_locked(shard& s, lane& beside) noexcept;
    void ask_shares_to_stop_locked(shard& s, lane& l) noexcept;
    void unpause_locked(shard& s, lane& l) noexcept;
    static std::optional<tick> wake_locked(shard& s, lane& l) noexcept;
    turn begin_locked(shard& s, lane& l, job_slot& front, std::unique_lock<sync::spin_lock>& lock) noexcept;
    static void suspend_locked(lane& l) noexcept;
    turn attend_barrier(lane& l) noexcept;
    bool waits_for_barrier_locked(const shard& s, lane& l) const noexcept;
    static joint_job* kill_current_locked(shard& s, lane& l) noexcept;
    bool hold_place_locked(shard& s, lane& l, job_slot& front) noexcept;
    bool hold_at_once_locked(shard& s, lane& l, job_slot& front) noexcept;
    turn come_locked(shard& s, lane& l, job_slot& front) noexcept;
    bool release_place(joint_place& place) noexcept;
    void doubt_joint_jobs() noexcept;
    void discard_stuck_joint_job() noexcept;
    struct joint_target;
    attempt place_locked(std::span<joint_target> targets, job_source& job, const job_options& how, tick age,
                         lane*& full, shard*& poor);
    bool keep_waiting_locked(shard& s, bucket& b, timers::time_point now) noexcept;
    bool is_limited(const lane& l) noexcept;
    pace common_pace(const lane& l) const noexcept;
    template <class Change>
    void change_rates(Change change);
    void tell_of_rates_locked(shard& s, const common_rates& rates) noexcept;
    bool resume_locked(shard& s, lane& l, job_extras& e) noexcept;
    void retry_resumptions() noexcept;
    bool retry_deliveries() noexcept;
    void fall_due(timed_job& t) noexcept;
    bool deliver_due() noexcept;
    bool try_to_deliver(timed_job& t, bool is_known_full) noexcept;
    void fire_beat(timed_job& t) noexcept;
    submit_status submit_for_timed(timed_job& t, job_source& job) noexcept;
    void unlist_locked(shard& s, timed_job& t) noexcept;
    void discard_timed(timed_job& t, discard_reason why) noexcept;
    bool take_back_locked(shard& s, timed_job& t, bool by_stop) noexcept;
    std::pair<std::size_t, std::size_t> take_back_timed(shard& s, const key_view* key, std::uint32_t hash);
    void discard_all_timed(shard& s) noexcept;
    std::size_t cancel_timed(shard& s, const key_view& key, std::uint32_t hash);
    bool has_timed_locked(const shard& s, const key_view& key, std::uint32_t hash) const;
    template <class Look>
    bool wait_until_quiet(const patience& wait, const lane* wanted, Look is_quiet);
    void tell_drainers_locked(shard& s) noexcept;
    void tell_drainers() noexcept;

    void begin_stop() noexcept;
    void begin_stop_locked(shard& s, lane& l) noexcept;
    void refuse_where_it_discards(const char* wait) const;
    void be_keeper_here() const noexcept;
    void tell_companions() noexcept;
    void start_locked();
    void add_worker_locked();

    // The keeper (elastic.cpp)
    static void keep(void* self) noexcept;
    bool keeper_tick() noexcept;
    bool do_what_is_due() noexcept;
    unsigned find_blocked() noexcept;
    void recheck_blocked() noexcept;
    void add_workers(std::size_t count, std::size_t most_threads) noexcept;
    void retire_workers() noexcept;
    bool sweep(std::size_t shards_to_do) noexcept;
    bool doze() noexcept;

    // Deliveries that found no room, oldest first.
    sync::mutex deliveries_mutex_;
    delivery* first_delivery_ = nullptr; // under deliveries_mutex_, as is the list
    delivery* last_delivery_ = nullptr;
    sync::atomic<std::size_t> undelivered_{0};   // drain() waits for them
    sync::atomic<std::size_t> timed_{0};         // jobs that wait for their time
    sync::atomic<bool> has_joint_jobs_{false};   // or had
    sync::atomic<bool> overloaded_{false};       // the gate is shut; written by who watches the load
    sync::atomic<bool> resumptions_wait_{false}; // some detached coroutine that can go on found no memory

    sync::event keeper_woken_;
    sync::atomic<bool> keeper_ends_{false};
    sync::atomic<std::uint64_t> threads_refused_{0};
    sync::atomic<std::uint64_t> discarded_by_stop_{0};

    // Waiting for idleness: drainers, and those who tell them.
    sync::mutex quiet_;
    sync::condition_variable quiet_changed_;
    std::uint64_t quiet_epoch_ = 0; // under quiet_

    // --- Under lifecycle_
    sync::mutex lifecycle_;
    bool started_ = false;
    bool ended_ = false;
    stop_report report_;
    std::thread keeper_;

    // --- Under workers_mutex_: the list; the workers live until the pool ends.
    mutable sync::mutex workers_mutex_;
    std::vector<std::unique_ptr<worker>> workers_;
    std::size_t threads_running_ = 0;

    // --- The keeper's
    std::vector<std::uint64_t> pops_seen_; // of each queue
    std::size_t sweep_shard_ = 0;
    tick swept_ = 0;
    std::chrono::steady_clock::time_point ticked_; // the last look that was not for a poke
    std::uint64_t taken_seen_ = 0;
    unsigned quiet_ticks_ = 0;
    unsigned submitter_ticks_ = 0;
    tick rechecked_ = 0;
    tick joint_jobs_doubted_ = 0;
    bool was_over_ = false;          // at the last look: some key had waited for too long
    timed_job* first_due_ = nullptr; // by timer_node::next; those that found no room come first
    timed_job* last_due_ = nullptr;
    std::uint64_t due_salt_ = 0;

    // --- Under rates_mutex_; locked before a shard's
    mutable sync::mutex rates_mutex_;
    std::shared_ptr<const common_rates> rates_; // or null

    // --- Under companions_mutex_: what components keep with the pool, by kind. Destroyed before all of the above.
    sync::mutex companions_mutex_;
    std::vector<std::pair<const void*, std::unique_ptr<companion>>> companions_;
    bool companions_know_ = false; // that the pool has stopped

    std::shared_ptr<pool_core> self_; // keeps the memory of a pool whose process was forked
};

/// The options, with their defaults in place of what stands for those. Throws std::invalid_argument for what makes no
/// sense (options.cpp).
options checked(options settings);

} // namespace taskpool::detail
