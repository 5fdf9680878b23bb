// SPDX-License-Identifier: Apache-2.0
// The keyed executor. Jobs submitted under the same key run one at a time and in order; jobs under different keys run
// in parallel; a key costs nothing while it has no work.
//
// Guarantees, by their numbers:
//   G1 order         of two submits to one key, the one that took effect first runs first.
//   G2 exclusion     two jobs of a key never overlap, and the end of one happens-before the start of the next; but jobs
//                    that were submitted as shared may overlap one another.
//   G3 independence  keys are exact; a job that blocks its thread holds up no other key, up to options::max_threads.
//   G4 age-fair      among ready keys the one whose next job is oldest runs first, to within a tick (1 ms) per worker.
//   G5 exactly once  an accepted job runs once, or is discarded, counted and reported; one not accepted stays yours.
//   G6 bounded       at most lane_capacity jobs wait under a key and pool_capacity in all.
//   G7 forgets       a key without work keeps no memory for longer than about a second.
//   G8 stop          stop() refuses, asks, discards, wakes, joins and reports; close() and drain() end in peace.
//   G9 no deadlock   a wait inside a job that could never end is refused at once, with the keys of the cycle.
//   G10 failures     a job that throws ends itself alone.
//
// Longer than 400 lines: all of one class's surface, and its contract.
#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <taskpool/detail/core.hpp>
#include <taskpool/future.hpp>
#include <taskpool/job.hpp>
#include <taskpool/options.hpp>
#include <taskpool/rate.hpp>
#include <taskpool/stats.hpp>
#include <taskpool/status.hpp>
#include <taskpool/task.hpp>
#include <taskpool/timer.hpp>

namespace taskpool {

namespace detail {

/// The callable that async() stores: the user's, and the promise that it fulfils.
template <class Key, class F, class T>
struct async_job {
    promise<T> result;
    F f;

    void operator()(const basic_job_context<Key>& context) {
        const running_job& job = context_access::job(context);
        const bool threw = result.fulfil(job, [&]() -> T { return call_in_job<Key>(f, context); });
        if (threw)
            count_failure(job);
    }
};

struct string_hash {
    std::size_t operator()(std::string_view key) const noexcept { return std::hash<std::string_view>()(key); }
};

template <class Key>
using default_hash = std::conditional_t<std::is_same_v<Key, std::string>, string_hash, std::hash<Key>>;

} // namespace detail

/// A callable that may be submitted: it takes nothing, a std::stop_token or a const basic_job_context<Key>&; it can be
/// moved (or copied, when an lvalue is submitted) and need not be copyable. What it returns is ignored by submit, but
/// must not be a task, which would never begin: see basic_task_pool::spawn.
template <class F, class Key>
concept job_for =
    detail::is_job<Key, std::decay_t<F>> && std::is_constructible_v<std::decay_t<F>, F> && !detail::makes_task<Key, F>;

/// A callable that may be submitted as a barrier: as job_for, but it has no key, and so takes no context.
template <class F, class Key>
concept barrier_job = job_for<F, Key> && !std::is_invocable_v<std::decay_t<F>&, const basic_job_context<Key>&>;

namespace detail {

/// Keys that lie somewhere until a call returns.
template <class R, class Key>
concept range_of_keys = std::ranges::forward_range<const R> &&
                        (std::is_same_v<Key, std::string>
                             ? std::is_convertible_v<std::ranges::range_reference_t<const R>, std::string_view> &&
                                   (std::is_lvalue_reference_v<std::ranges::range_reference_t<const R>> ||
                                    std::is_same_v<std::ranges::range_value_t<const R>, std::string_view>)
                             : std::is_lvalue_reference_v<std::ranges::range_reference_t<const R>> &&
                                   std::is_same_v<std::ranges::range_value_t<const R>, Key>);

/// submit and async for whatever can say where a job goes: a pool with a key, or a lane's handle.
template <class Key, class Where>
class submitter {
  public:
    template <job_for<Key> F>
    static submit_result submit(const Where& where, F&& job, const job_options& how, const patience& wait) {
        using stored = std::decay_t<F>;
        if constexpr (std::is_lvalue_reference_v<F> || std::is_const_v<std::remove_reference_t<F>>) {
            return submit(where, stored(job), how, wait); // copied with no lock held
        } else {
            auto make = [&job](lane&) -> stored { return stored(std::forward<F>(job)); };
            job_source_of<Key, stored, decltype(make)> source(make);
            return where.submit(source, how, wait);
        }
    }

    template <job_for<Key> F>
    static auto async(const Where& where, F&& job, const job_options& how) {
        using stored = std::decay_t<F>;
        using result = job_result<Key, F>;
        if constexpr (std::is_lvalue_reference_v<F> || std::is_const_v<std::remove_reference_t<F>>) {
            return async(where, stored(job), how);
        } else {
            auto* const state = new allocated_future_state<result>();
            future_ref<result> ours(state);
            promise<result> theirs(state);
            auto make = [&](lane& accepted_in) {
                state->set_place(*where.core, accepted_in);
                state->set_number();
                return async_job<Key, stored, result>{std::move(theirs), std::forward<F>(job)};
            };
            job_source_of<Key, async_job<Key, stored, result>, decltype(make)> source(make);
            if (const auto answer = where.submit(source, how, {patience::for_ever}); !answer)
                theirs.reject(std::make_exception_ptr(job_rejected(answer)));
            return future<result, Key>(std::move(ours), where.core);
        }
    }
};

} // namespace detail

template <class Key, class Hash, class Equal>
class basic_task_pool;

namespace detail {
struct lane_access;
}

/// A handle to one key of a pool, which saves the look-up. Small and copyable; while the key has no work it holds the
/// key itself and no queue (G7). It may outlive the pool: then every submit answers `stopped`. One object is not safe
/// to use from two threads at once, except for the submits and async.
template <class Key>
class basic_lane {
  public:
    basic_lane(const basic_lane& other) noexcept : core_(other.core_), lane_(other.lane_) {
        if (lane_ != nullptr)
            detail::share_lane(*core_, *lane_);
    }
    basic_lane(basic_lane&& other) noexcept
        : core_(std::move(other.core_)), lane_(std::exchange(other.lane_, nullptr)) {}
    basic_lane& operator=(basic_lane other) noexcept {
        std::swap(core_, other.core_);
        std::swap(lane_, other.lane_);
        return *this;
    }
    ~basic_lane() {
        if (lane_ != nullptr)
            detail::release_lane(*core_, *lane_);
    }

    /// The key. REQUIRES, like all that follows: not moved from.
    const Key& key() const noexcept { return *static_cast<const Key*>(detail::stored_key(*core_, *lane_)); }

    /// See basic_task_pool.
    template <job_for<Key> F>
    submit_result submit(F&& job, const job_options& how = {}) const {
        return put(std::forward<F>(job), how, {detail::patience::for_ever});
    }
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit(F&& job, const job_options& how = {}) const {
        return put(std::forward<F>(job), how, {detail::patience::none});
    }
    template <class Rep, class Period, job_for<Key> F>
    [[nodiscard]] submit_result submit_for(const std::chrono::duration<Rep, Period>& time, F&& job,
                                           const job_options& how = {}) const {
        return put(std::forward<F>(job), how, detail::patience_for(time));
    }
    template <class Duration, job_for<Key> F>
    [[nodiscard]] submit_result submit_until(const std::chrono::time_point<detail::clock, Duration>& time, F&& job,
                                             const job_options& how = {}) const {
        return put(std::forward<F>(job), how, detail::patience_until(time));
    }
    template <job_for<Key> F>
    auto async(F&& job, const job_options& how = {}) const {
        return detail::submitter<Key, place>::async(place{core_, *lane_}, std::forward<F>(job), how);
    }
    template <job_for<Key> F>
    submit_result submit_shared(F&& job, const job_options& how = {}) const {
        return put_shared(std::forward<F>(job), how, {detail::patience::for_ever});
    }
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit_shared(F&& job, const job_options& how = {}) const {
        return put_shared(std::forward<F>(job), how, {detail::patience::none});
    }
    template <job_for<Key> F>
    auto async_shared(F&& job, const job_options& how = {}) const {
        return detail::submitter<Key, shared_place>::async(shared_place{core_, *lane_}, std::forward<F>(job), how);
    }

  private:
    template <class, class, class>
    friend class basic_task_pool;
    friend struct detail::lane_access;

    struct place {
        const std::shared_ptr<detail::pool_core>& core;
        detail::lane& lane;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit(*core, lane, job, how, wait);
        }
    };

    struct shared_place {
        const std::shared_ptr<detail::pool_core>& core;
        detail::lane& lane;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit_shared(*core, lane, job, how, wait);
        }
    };

    basic_lane(std::shared_ptr<detail::pool_core> core, detail::lane* lane) noexcept
        : core_(std::move(core)), lane_(lane) {}

    template <class F>
    submit_result put(F&& job, const job_options& how, const detail::patience& wait) const {
        return detail::submitter<Key, place>::submit(place{core_, *lane_}, std::forward<F>(job), how, wait);
    }

    template <class F>
    submit_result put_shared(F&& job, const job_options& how, const detail::patience& wait) const {
        return detail::submitter<Key, shared_place>::submit(shared_place{core_, *lane_}, std::forward<F>(job), how,
                                                            wait);
    }

    std::shared_ptr<detail::pool_core> core_;
    detail::lane* lane_;
};

namespace detail {
struct lane_access {
    template <class Key>
    static const std::shared_ptr<pool_core>& core(const basic_lane<Key>& handle) noexcept {
        return handle.core_;
    }
    template <class Key>
    static lane& lane_of(const basic_lane<Key>& handle) noexcept {
        return *handle.lane_;
    }
};
} // namespace detail

/// The keyed executor; see the guarantees at the top of this file. All members are thread-safe but the constructor, the
/// destructor, which must not race with other calls.
///
/// `Key` is copyable; `Hash` and `Equal` are as for std::unordered_map, copyable, and may be called from several
/// threads at once under an internal lock: they must not call the pool. For std::string a key is passed as
/// std::string_view, and a look-up copies nothing; a key is copied when it comes to have work.
///
/// Jobs may call the pool: submit (to any key, their own included), async, cancel, close and the inspections. What
/// would wait for the calling job itself throws deadlock_error: drain, stop, waiting for the own key (G9).
///
/// A pool does not survive fork(): in the child every submit answers `stopped`, and the destructor leaves its memory
/// be. A pool may be static: its destructor stops it in the order of static destruction, so its jobs must not use what
/// was destroyed before. Using a pool during or after its destructor is undefined, except through lane handles.
template <class Key, class Hash = detail::default_hash<Key>, class Equal = std::equal_to<>>
class basic_task_pool {
  public:
    using key_type = Key;
    using key_view = detail::view_of<Key>;
    using job_context = basic_job_context<Key>;
    using lane_handle = basic_lane<Key>;
    using together_key = std::remove_cvref_t<key_view>; // of a list in braces

    /// Starts the threads, unless options::autostart is false. Throws std::invalid_argument for options that make no
    /// sense, std::bad_alloc, and std::system_error when not even one worker can be started.
    explicit basic_task_pool(options settings = {}, Hash hash = {}, Equal equal = {})
        : hash_(hash),
          core_(detail::make_core(std::move(settings), detail::key_type_for<Key, Hash, Equal>::table,
                                  std::make_shared<const detail::key_functions<Hash, Equal>>(
                                      detail::key_functions<Hash, Equal>{std::move(hash), std::move(equal)}))) {}

    /// Does what stop() does. From inside one of the pool's own jobs it does not wait: waiting jobs are discarded,
    /// running ones are asked to stop and end on their own after the destructor has returned.
    ~basic_task_pool() { detail::destroy_core(*core_); }

    basic_task_pool(const basic_task_pool&) = delete;
    basic_task_pool& operator=(const basic_task_pool&) = delete;

    // --- Submitting -----------------------------------------------------------------------------------------------

    /// Puts `job` behind those that wait under `key`. While the lane or the pool is full it does what
    /// options::when_full says; by default it waits for room. Answers accepted, full (never with overflow::block),
    /// stopped, overloaded (only with options::max_wait) or, inside a job, would_deadlock. Thread-safe. An rvalue job
    /// is moved once and only if accepted; an lvalue is copied. If that throws, or memory runs out (std::bad_alloc),
    /// the exception leaves the call and the pool is as it was. The move runs under an internal lock and must not call
    /// the pool. Jobs of up to 32 bytes that move without throwing cost no allocation.
    template <job_for<Key> F>
    submit_result submit(key_view key, F&& job, const job_options& how = {}) {
        return put(key, std::forward<F>(job), how, {detail::patience::for_ever});
    }

    /// The same without waiting: answers full instead.
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit(key_view key, F&& job, const job_options& how = {}) {
        return put(key, std::forward<F>(job), how, {detail::patience::none});
    }

    /// The same, waiting up to a time: answers timed_out then.
    template <class Rep, class Period, job_for<Key> F>
    [[nodiscard]] submit_result submit_for(key_view key, const std::chrono::duration<Rep, Period>& time, F&& job,
                                           const job_options& how = {}) {
        return put(key, std::forward<F>(job), how, detail::patience_for(time));
    }
    template <class Duration, job_for<Key> F>
    [[nodiscard]] submit_result submit_until(key_view key, const std::chrono::time_point<detail::clock, Duration>& time,
                                             F&& job, const job_options& how = {}) {
        return put(key, std::forward<F>(job), how, detail::patience_until(time));
    }

    /// Submits `job` and gives a future for its result or exception. Waits for room as submit does; if the job is not
    /// accepted, it is untouched and the future holds job_rejected. One allocation, for the state they share.
    template <job_for<Key> F>
    auto async(key_view key, F&& job, const job_options& how = {}) {
        return detail::submitter<Key, place>::async(place{core_, view(key)}, std::forward<F>(job), how);
    }

    /// As submit, but if a job of the same tag, key and job_options::on_stop waits, `job` replaces that: it takes its
    /// place, and its priority, and needs no room. The other one is discarded and reported (discard_reason::replaced).
    /// A job that has begun is not replaced. One allocation.
    template <job_for<Key> F>
    submit_result submit(key_view key, const tag& about, F&& job, const job_options& how = {}) {
        return put(key, about, std::forward<F>(job), how, {detail::patience::for_ever});
    }
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit(key_view key, const tag& about, F&& job, const job_options& how = {}) {
        return put(key, about, std::forward<F>(job), how, {detail::patience::none});
    }
    template <class Rep, class Period, job_for<Key> F>
    [[nodiscard]] submit_result submit_for(key_view key, const tag& about,
                                           const std::chrono::duration<Rep, Period>& time, F&& job,
                                           const job_options& how = {}) {
        return put(key, about, std::forward<F>(job), how, detail::patience_for(time));
    }
    template <job_for<Key> F>
    auto async(key_view key, const tag& about, F&& job, const job_options& how = {}) {
        return detail::submitter<Key, tagged_place>::async(tagged_place{core_, view(key), about.name},
                                                           std::forward<F>(job), how);
    }

    // --- Under several keys ---------------------------------------------------------------------------------------

    /// Submits `job` under all these keys, any number of them, in any order, one that is named twice counted once: it
    /// takes its place in all their lanes at one instant, runs when it is first in all of them, and keeps them all
    /// until it has ended. So no order of submits can have two such jobs wait for each other. It is one job: with one
    /// place in the pool's capacity, and one in each lane; the key of its context is one of them; a cancel of any of
    /// the keys discards it, or asks it to stop. Waits and answers as submit does; but overflow::drop_oldest and
    /// keep_latest make no room for it (`full`) and do not drop it. It is not tried again (retry.hpp). At most one
    /// allocation, more for many keys.
    /// Throws std::invalid_argument where there is no key, and as submit does.
    ///
    ///     pool.submit_together({"account-7", "account-8"}, [] { transfer(); });
    template <job_for<Key> F>
    submit_result submit_together(std::initializer_list<together_key> keys, F&& job, const job_options& how = {}) {
        return put_together(keys, std::forward<F>(job), how, {detail::patience::for_ever});
    }
    /// The same for keys that lie somewhere: a std::vector<Key>, a std::span, for strings any range of what
    /// converts to std::string_view.
    template <detail::range_of_keys<Key> R, job_for<Key> F>
    submit_result submit_together(const R& keys, F&& job, const job_options& how = {}) {
        return put_together(keys, std::forward<F>(job), how, {detail::patience::for_ever});
    }
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit_together(std::initializer_list<together_key> keys, F&& job,
                                                    const job_options& how = {}) {
        return put_together(keys, std::forward<F>(job), how, {detail::patience::none});
    }
    template <detail::range_of_keys<Key> R, job_for<Key> F>
    [[nodiscard]] submit_result try_submit_together(const R& keys, F&& job, const job_options& how = {}) {
        return put_together(keys, std::forward<F>(job), how, {detail::patience::none});
    }
    /// The same with a future.
    template <job_for<Key> F>
    auto async_together(std::initializer_list<together_key> keys, F&& job, const job_options& how = {}) {
        const key_list list(*this, keys);
        return detail::submitter<Key, together_place>::async(together_place{core_, list.views()}, std::forward<F>(job),
                                                             how);
    }
    template <detail::range_of_keys<Key> R, job_for<Key> F>
    auto async_together(const R& keys, F&& job, const job_options& how = {}) {
        const key_list list(*this, keys);
        return detail::submitter<Key, together_place>::async(together_place{core_, list.views()}, std::forward<F>(job),
                                                             how);
    }

    // --- Shared jobs ----------------------------------------------------------------------------------------------

    /// As submit, for a job that may run beside its neighbours under `key` that were submitted so: those that follow
    /// one another run at the same time, in the order in which they start, up to options::max_shared. A job submitted
    /// otherwise (an exclusive one) runs alone: after all those before it have ended, and before all those after it
    /// start. So shared jobs are the readers of what a key stands for, and exclusive ones its writers; or, with no
    /// exclusive ones, at most max_shared jobs of the key run at once.
    ///
    /// G2 holds between an exclusive job and any other. Each shared job has its own context: it may be held, which
    /// keeps its share, and be tried again (retry.hpp). To the search for waits that never end (G9) the shared jobs of
    /// a key are one: none may wait for another. Without memory for its share (a copy of the key, and some 300 bytes) a
    /// job runs before those behind it.
    template <job_for<Key> F>
    submit_result submit_shared(key_view key, F&& job, const job_options& how = {}) {
        return put_shared(key, std::forward<F>(job), how, {detail::patience::for_ever});
    }

    /// The same without waiting: answers full instead.
    template <job_for<Key> F>
    [[nodiscard]] submit_result try_submit_shared(key_view key, F&& job, const job_options& how = {}) {
        return put_shared(key, std::forward<F>(job), how, {detail::patience::none});
    }

    /// As async, for a shared job.
    template <job_for<Key> F>
    auto async_shared(key_view key, F&& job, const job_options& how = {}) {
        return detail::submitter<Key, shared_place>::async(shared_place{core_, view(key)}, std::forward<F>(job), how);
    }

    // --- Between all others ---------------------------------------------------------------------------------------

    /// Submits `job` to run alone: when all that was submitted before it, under every key, is done, and before anything
    /// that is submitted after it starts. It has no key (its context would: it takes nothing or a std::stop_token), and
    /// its failure is reported under "(barrier)". Barriers run one after the other, in order; up to
    /// options::lane_capacity of them wait, and what a full queue does holds for them, too (beyond 10,000: `full`).
    ///
    /// What it waits for: jobs that run, wait in their lanes, are held, back off or are suspended; also those of a
    /// paused key. Not: jobs whose time has not come, coroutines that lend their key, what a future of then() has not
    /// submitted yet; that, and what jobs before the barrier submit, comes after it. A job that replaces another one by
    /// its tag takes over its place before the barrier.
    ///
    /// A job before it that waits for one after it would wait for ever: the barrier is discarded then, and reported
    /// (discard_reason::would_deadlock). A wait inside the barrier's own job for anything of the pool is refused (G9).
    /// A hold that only a job after it would release is not found out.
    ///
    /// The submit looks at all keys that have work, and so does the pool afterwards; each costs it some tens of
    /// nanoseconds.
    template <barrier_job<Key> F>
    submit_result submit_barrier(F&& job, const job_options& how = {}) {
        return detail::submitter<Key, barrier_place>::submit(barrier_place{core_}, std::forward<F>(job), how,
                                                             {detail::patience::for_ever});
    }
    template <barrier_job<Key> F>
    [[nodiscard]] submit_result try_submit_barrier(F&& job, const job_options& how = {}) {
        return detail::submitter<Key, barrier_place>::submit(barrier_place{core_}, std::forward<F>(job), how,
                                                             {detail::patience::none});
    }
    /// The same with a future.
    template <barrier_job<Key> F>
    auto async_barrier(F&& job, const job_options& how = {}) {
        return detail::submitter<Key, barrier_place>::async(barrier_place{core_}, std::forward<F>(job), how);
    }

    // --- Coroutines (task.hpp) ------------------------------------------------------------------------------------

    /// Submits a coroutine, which keeps the key, with no thread, until it has ended (or lends it to the key's other
    /// jobs while it is suspended), and gives a future for its result. Waits for room as submit does. If it is not
    /// accepted, `coroutine` is untouched and the future holds job_rejected. No allocation but the coroutine's own
    /// frame. Throws std::bad_alloc. REQUIRES: coroutine.valid().
    template <class T>
    future<T, Key> spawn(key_view key, task<T>&& coroutine, const spawn_options& how = {}) {
        auto& promise = coroutine.frame_.promise();
        if (const auto answer = give(view(key), coroutine, how); !answer)
            return rejected<T>(answer);
        return future<T, Key>(detail::future_ref<T>(&promise), core_);
    }

    /// The same without a future: what the coroutine throws goes to the failure handler, as that of any job does.
    template <class T>
    submit_result submit(key_view key, task<T>&& coroutine, const spawn_options& how = {}) {
        auto& promise = coroutine.frame_.promise();
        promise.drop(); // the future's reference
        try {
            const auto answer = give(view(key), coroutine, how);
            if (!answer)
                promise.share();
            return answer;
        } catch (...) {
            promise.share();
            throw;
        }
    }

    /// The same for a callable that makes the coroutine, such as a lambda, which is kept with its captures until the
    /// coroutine has ended. It is called when the job begins. One frame more.
    template <detail::task_maker F>
    auto spawn(key_view key, F&& make, const spawn_options& how = {}) -> future<detail::made_by<F>, Key> {
        return spawn(key, detail::make_and_await<detail::made_by<F>>(std::forward<F>(make)), how);
    }
    template <detail::task_maker F>
    submit_result submit(key_view key, F&& make, const spawn_options& how = {}) {
        return submit(key, detail::make_and_await<detail::made_by<F>>(std::forward<F>(make)), how);
    }

    /// `co_await pool.run(key, f)`: calls `f` as a job of `key` and gives what it returns, or throws what it throws,
    /// job_discarded or job_rejected. The awaiting coroutine goes on in its own lane, if it has one; no thread waits,
    /// not even while the lane of `key` is full. Throws deadlock_error, before `f` is submitted, where the wait would
    /// never end: for the coroutine's own key, while it holds that, or in a cycle (G9). No allocation if the key has
    /// work.
    template <job_for<Key> F>
    [[nodiscard]] auto run(key_view key, F&& f) {
        return detail::run_operation<Key, std::decay_t<F>>(core_, view(key), std::decay_t<F>(std::forward<F>(f)));
    }

    // --- Later ----------------------------------------------------------------------------------------------------

    /// Submits `job` when `delay` has passed on the pool's clock, in steps of its tick of 1 ms and never early. It
    /// takes its place in its lane then, behind those of its key that were due before, or at the same time and
    /// submitted before; where the lane or the pool is full at that time, options::when_full decides: `reject` discards
    /// it (discard_reason::no_room), and else what finds no room is submitted as soon as there is some, with nobody
    /// waiting. It counts as accepted at once: drain() waits for it, cancel(key) and stop() discard it (or run it, in
    /// the order of their times: job_options::on_stop), and closing the pool leaves it be. An rvalue job is moved only
    /// if accepted. The handle may be dropped. One that waits takes 96 bytes and its key, in one allocation, and some 4
    /// in a table. Throws std::bad_alloc and what moving the job throws; then the pool is as it was.
    template <class Rep, class Period, job_for<Key> F>
    timer submit_after(const std::chrono::duration<Rep, Period>& delay, key_view key, F&& job,
                       const job_options& how = {}) {
        return schedule(detail::later(now(), detail::clamped(delay)), {}, key, std::forward<F>(job), how);
    }

    /// The same at a time of the pool's clock.
    template <class Duration, job_for<Key> F>
    timer submit_at(const std::chrono::time_point<detail::clock, Duration>& time, key_view key, F&& job,
                    const job_options& how = {}) {
        return schedule(detail::clamped(time), {}, key, std::forward<F>(job), how);
    }

    /// Runs `job` under `key` every `period`, the first time after one: without drift, whole periods from the first,
    /// and never overlapping itself. A beat whose predecessor has not returned, whose lane is full, or whose time was
    /// missed is passed over and counted (timer::missed). It goes on, whatever a beat throws, until it is cancelled, by
    /// its handle or with its key, or the pool is closed or stopped; drain() waits for its current beat only. REQUIRES:
    /// period > 0. Throws std::bad_alloc, and std::invalid_argument for a period that is not positive.
    template <class Rep, class Period, job_for<Key> F>
    timer submit_every(const std::chrono::duration<Rep, Period>& period, key_view key, F&& job) {
        const auto each = detail::clamped(period);
        if (each <= each.zero())
            throw std::invalid_argument("taskpool: submit_every with a period that is not positive");
        return schedule(detail::later(now(), each), each, key, std::forward<F>(job), {});
    }

    /// The time of the pool's clock: options::clock, or the system's steady clock.
    detail::clock::time_point now() const noexcept { return detail::pool_now(*core_); }

    /// A handle to `key`, for many submits without a look-up. Throws std::bad_alloc.
    lane_handle lane(key_view key) { return lane_handle(core_, detail::acquire_lane(*core_, view(key))); }

    // --- Starting and ending --------------------------------------------------------------------------------------

    /// Starts the threads if they have not been started; otherwise does nothing. Throws std::system_error when not even
    /// one worker can be started.
    void start() { detail::start(*core_); }

    /// Refuses new jobs from now on; what was accepted runs. Submitters that wait for room are refused, too.
    /// Idempotent.
    void close() noexcept { detail::close(*core_); }

    /// Waits until nothing accepted is left, what is submitted meanwhile included. Throws deadlock_error inside a job
    /// of this pool. On a pool that was not started it waits until somebody starts it.
    void drain() { detail::drain(*core_, {detail::patience::for_ever}); }

    /// Waits until `key` has no work. Throws deadlock_error inside a job where that could never end.
    void drain(key_view key) { detail::drain(*core_, view(key), {detail::patience::for_ever}); }

    /// As drain(), up to a time; says whether it drained, and if not, which keys have work (those of that moment; none
    /// where only jobs for later or outstanding work of executors are left).
    template <class Rep, class Period>
    drain_report<Key> drain_for(const std::chrono::duration<Rep, Period>& time) {
        drain_report<Key> report;
        if (detail::drain(*core_, detail::patience_for(time)))
            return report;
        detail::visit_active_keys(*core_, collector(report.keys));
        report.drained = false;
        return report;
    }

    /// Discards and reports the jobs that wait under `key`, and asks the one that runs or is held to stop. Returns how
    /// many were discarded. New jobs are welcome at once.
    std::size_t cancel(key_view key) { return detail::cancel(*core_, view(key)); }

    /// From now on no job of the key starts, until resume(key) or stop(). The one that runs (a worker may have taken it
    /// just now) or is held goes on to its end. Jobs are accepted as ever, up to the lane's capacity; drain() waits for
    /// them, so somebody has to resume the key. False when it was paused already, or the pool is stopping. A paused key
    /// keeps its lane, also while it has no work. Throws std::bad_alloc.
    bool pause(key_view key) { return detail::pause(*core_, view(key)); }

    /// Lets the key's jobs start again, in their order. False when it was not paused.
    bool resume(key_view key) { return detail::resume(*core_, view(key)); }

    /// From now on jobs of the key start at most as often as this (rate.hpp), whatever other keys do; again and again
    /// as you like. What the key has used of its last rate counts, in tokens. Such a key keeps its lane. `unlimited`
    /// exempts it. Does nothing once the pool is stopping. Throws std::invalid_argument for a rate that makes no sense,
    /// and std::bad_alloc.
    void limit(key_view key, const rate& most) { detail::limit(*core_, view(key), most); }

    /// The key's own rate is gone: it has that of limit_by or limit_all. False when it had none of its own.
    bool unlimit(key_view key) { return detail::unlimit(*core_, view(key)); }

    /// The rate of each key for which nothing else was said: options::rate, until it is changed. Nothing: unlimited.
    /// Looks at every key with work. Throws as limit does.
    void limit_all(const std::optional<rate>& most) { detail::limit_all(*core_, most); }

    /// `f(key)` yields the rates, as std::optional<rate>; nothing is what limit_all says, and so is what `f` throws,
    /// and a rate that makes no sense. It is called by workers, from several threads at once, under no lock, and must
    /// not block, nor wait for the pool; for a key whose rate it yields not again before the key has rested. Call
    /// limit_by again when it would yield another rate. Looks at every key with work. Throws std::bad_alloc.
    template <class F>
        requires std::is_invocable_r_v<std::optional<rate>, const F&, const Key&>
    void limit_by(F f) {
        detail::limit_by(*core_, [f = std::move(f)](const void* key) -> std::optional<rate> {
            return std::invoke(f, *static_cast<const Key*>(key));
        });
    }

    /// Refuses new jobs, wakes submitters that wait, asks running and held jobs to stop, discards those that wait (or
    /// runs them: job_options::on_stop), waits until all have ended, joins the threads. Idempotent; a second caller
    /// waits for the first and gets the same report. Throws deadlock_error inside a job of this pool, having done
    /// nothing; and std::system_error when threads are needed for jobs that must run and none can be had.
    stop_report stop() { return detail::stop(*core_); }

    // --- Looking --------------------------------------------------------------------------------------------------

    /// How many keys have work: waiting, running or held.
    std::size_t active_keys() const noexcept { return detail::active_keys(*core_); }

    /// The keys that are paused, in no particular order.
    std::vector<Key> paused_keys() const {
        std::vector<Key> keys;
        detail::visit_paused_keys(*core_, collector(keys));
        return keys;
    }

    /// Counters, gauges and histograms. A few microseconds; not for a hot loop.
    pool_stats stats() const { return detail::stats(*core_); }

    /// The keys that hold pool_stats::oldest_wait: those that are ready, and have waited for a worker for longest; up
    /// to `most` of them, and up to 256. Empty when no key is ready.
    std::vector<Key> oldest_keys(std::size_t most = 16) const {
        std::vector<Key> keys;
        detail::visit_oldest_keys(*core_, most, collector(keys));
        return keys;
    }

    /// The keys with the most jobs of late, most first: an estimate in bounded memory from a sample of the jobs (about
    /// one in 32 that run; space-saving over 256 counters, Metwally et al. 2005, halved every 10 s), so a key with a
    /// small share of the jobs may be missing; so are strings of more than 4 KiB. The summary keeps its keys (G7 is
    /// about lanes).
    std::vector<hot_key<Key>> hottest_keys(std::size_t most) const {
        std::vector<hot_key<Key>> hottest;
        detail::visit_hottest_keys(
            *core_, most,
            {[](void* self, const void* key, std::uint64_t jobs, std::uint64_t error) {
                 static_cast<std::vector<hot_key<Key>>*>(self)->push_back({*static_cast<const Key*>(key), jobs, error});
             },
             &hottest});
        return hottest;
    }

  protected:
    /// For taskpool::testing.
    basic_task_pool(const detail::manual_mode& mode, options settings, Hash hash, Equal equal)
        : hash_(hash),
          core_(detail::make_core(mode, std::move(settings), detail::key_type_for<Key, Hash, Equal>::table,
                                  std::make_shared<const detail::key_functions<Hash, Equal>>(
                                      detail::key_functions<Hash, Equal>{std::move(hash), std::move(equal)}))) {}
    detail::pool_core& core() const noexcept { return *core_; }

  private:
    struct place {
        const std::shared_ptr<detail::pool_core>& core;
        detail::key_view key;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit(*core, key, job, how, wait);
        }
    };

    struct shared_place {
        const std::shared_ptr<detail::pool_core>& core;
        detail::key_view key;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit_shared(*core, key, job, how, wait);
        }
    };

    struct barrier_place {
        const std::shared_ptr<detail::pool_core>& core;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit_barrier(*core, job, how, wait);
        }
    };

    struct tagged_place {
        const std::shared_ptr<detail::pool_core>& core;
        detail::key_view key;
        std::string_view tag;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit(*core, key, tag, job, how, wait);
        }
    };

    struct together_place {
        const std::shared_ptr<detail::pool_core>& core;
        std::span<const detail::key_view> keys;
        submit_result submit(detail::job_source& job, const job_options& how, const detail::patience& wait) const {
            return detail::submit_together(*core, keys, job, how, wait);
        }
    };

    /// REQUIRES: `keys` outlives it, which points at them.
    class key_list {
      public:
        template <class R>
        key_list(const basic_task_pool& pool, const R& keys)
            : strings_(are_views<R> ? 0 : static_cast<std::size_t>(std::ranges::distance(keys))),
              views_(static_cast<std::size_t>(std::ranges::distance(keys))) {
            std::size_t i = 0;
            for (const auto& key : keys) {
                if constexpr (are_views<R>)
                    views_[i] = pool.view(key);
                else
                    views_[i] = pool.view(strings_[i] = key);
                ++i;
            }
        }
        std::span<const detail::key_view> views() const noexcept { return views_.all(); }

      private:
        /// Whether the range's elements are themselves what a view of a key points at.
        template <class R>
        static constexpr bool are_views =
            !std::is_same_v<Key, std::string> ||
            std::is_same_v<std::ranges::range_reference_t<const R>, const std::string_view&>;

        detail::few_or_many<std::string_view> strings_;
        detail::few_or_many<detail::key_view> views_;
    };

    template <class R, class F>
    submit_result put_together(const R& keys, F&& job, const job_options& how, const detail::patience& wait) {
        const key_list list(*this, keys);
        return detail::submitter<Key, together_place>::submit(together_place{core_, list.views()}, std::forward<F>(job),
                                                              how, wait);
    }

    // REQUIRES: `key` outlives the result, which points at it.
    detail::key_view view(const std::remove_reference_t<key_view>& key) const {
        return {&key, static_cast<std::uint64_t>(hash_(key))};
    }

    static detail::key_visitor collector(std::vector<Key>& keys) noexcept {
        return {[](void* self, const void* key, std::uint64_t, std::uint64_t) {
                    static_cast<std::vector<Key>*>(self)->push_back(*static_cast<const Key*>(key));
                },
                &keys};
    }

    /// Hands a coroutine's frame to the pool, if it is accepted.
    template <class T>
    submit_result give(const detail::key_view& key, task<T>& coroutine, const spawn_options& how) {
        auto& promise = coroutine.frame_.promise();
        auto& job = promise.become_job(coroutine.frame_, promise, how.while_suspended == suspension::interleave);
        try {
            auto answer = detail::submit_coroutine(*core_, key, job, {how.on_stop, how.priority});
            if (answer)
                coroutine.frame_ = {};
            else
                promise.become_task();
            return answer;
        } catch (...) {
            promise.become_task();
            throw;
        }
    }

    template <class F>
    timer schedule(detail::clock::time_point when, std::chrono::nanoseconds period,
                   const std::remove_reference_t<key_view>& key, F&& job, const job_options& how) {
        using stored = std::decay_t<F>;
        if constexpr (std::is_lvalue_reference_v<F> || std::is_const_v<std::remove_reference_t<F>>) {
            return schedule(when, period, key, stored(job), how);
        } else {
            auto make = [&job]() -> stored { return stored(std::forward<F>(job)); };
            detail::job_source_of<Key, stored, decltype(make)> source(make);
            const auto answer = detail::schedule(*core_, view(key), source, how, when, period);
            return answer.job != nullptr ? timer(core_, answer.job) : timer(answer.status);
        }
    }

    template <class T>
    future<T, Key> rejected(const submit_result& answer) {
        auto* const state = new detail::allocated_future_state<T>();
        detail::future_ref<T> ours(state);
        detail::promise<T>(state).reject(std::make_exception_ptr(job_rejected(answer)));
        return future<T, Key>(std::move(ours), core_);
    }

    template <class F>
    submit_result put(const std::remove_reference_t<key_view>& key, F&& job, const job_options& how,
                      const detail::patience& wait) {
        return detail::submitter<Key, place>::submit(place{core_, view(key)}, std::forward<F>(job), how, wait);
    }

    template <class F>
    submit_result put_shared(const std::remove_reference_t<key_view>& key, F&& job, const job_options& how,
                             const detail::patience& wait) {
        return detail::submitter<Key, shared_place>::submit(shared_place{core_, view(key)}, std::forward<F>(job), how,
                                                            wait);
    }

    template <class F>
    submit_result put(const std::remove_reference_t<key_view>& key, const tag& about, F&& job, const job_options& how,
                      const detail::patience& wait) {
        return detail::submitter<Key, tagged_place>::submit(tagged_place{core_, view(key), about.name},
                                                            std::forward<F>(job), how, wait);
    }

    [[no_unique_address]] Hash hash_;
    const std::shared_ptr<detail::pool_core> core_;
};

/// A pool whose keys are strings.
using task_pool = basic_task_pool<std::string>;

} // namespace taskpool
