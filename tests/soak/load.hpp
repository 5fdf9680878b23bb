// SPDX-License-Identifier: Apache-2.0
// The soak's load: jobs of all kinds, who submits them, and who meddles with their keys meanwhile. What jobs do is
// little, so that it is the pool that works.
//
// Longer than 400 lines, since a load that leaves something out proves less.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ledger.hpp"

namespace taskpool::soak {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;
using random_source = std::mt19937;

inline constexpr std::size_t hot_keys = 24, shared_keys = 6, passing_keys = 4096, loose_keys = 12;
inline constexpr rate limit_of_limited{200, per_second, 5}; // of one key, all the time

enum class ending : std::uint8_t {
    drain_then_stop,
    close_then_drain,
    stop_in_the_middle,
    two_stops_at_once,
    drain_for_then_stop,
    destructor,
    destroyed_by_its_own_job,
    count,
};

/// Open from the moment at which the last of what holds it has gone.
struct end_of_core {
    std::mutex mutex;
    std::condition_variable changed;
    bool gone = false;
};

struct round : ledger {
    random_source random;
    unsigned number = 0;
    ending how{};
    bool has_others = false; // jobs without tickets: beats, calls of then() and run()
    overflow when_full{};
    bool may_be_overloaded = false;

    std::vector<std::unique_ptr<entity>> hot, sharing, passing, loose;
    entity limited{"limited"}, outlives{"outlives"};
    steady::time_point limited_since;
    counter<std::int64_t> limited_last_start; // in ns after that
    std::array<std::string, tags> tag_names = {"red", "blue"};

    std::atomic<bool> ends = false;    // producers and the meddler stop
    std::atomic<bool> closing = false; // submits may be refused as stopped
    std::unique_ptr<task_pool> pool;
    std::optional<task_pool::lane_handle> survivor;
    // Of the job that destroys the pool:
    std::atomic<bool> is_submitted = false, has_destroyed = false;
    end_of_core core_end;

    // Holds that live on after their jobs, until the releaser has them.
    std::mutex holds_mutex;
    struct kept_hold {
        held hold;
        entity* of;
        bool shared;
    };
    std::vector<kept_hold> holds;
};

inline round& round_of(const ticket& t) noexcept { return static_cast<round&>(t.book()); }

// --- What is submitted -----------------------------------------------------------------------------------------------

/// How a submit may be refused.
enum class patience : std::uint8_t { waits, for_a_time, none };

inline void check_answer(round& r, submit_status answer, patience how, bool in_job) {
    const bool never_full = how == patience::waits && r.when_full == overflow::block;
    bool good = true;
    switch (answer) {
    case submit_status::accepted:
        break;
    case submit_status::full:
    case submit_status::rate_limited:
        good = !never_full;
        break;
    case submit_status::timed_out:
        good = how == patience::for_a_time && r.when_full == overflow::block;
        break;
    case submit_status::stopped:
        good = r.closing;
        break;
    case submit_status::would_deadlock:
        good = in_job;
        break;
    case submit_status::overloaded:
        good = r.may_be_overloaded;
        break;
    }
    if (!good)
        violation(to_string(answer).data(), "refused without cause", static_cast<std::uint64_t>(how), in_job);
}

/// Submits a job, and counts it. One that is refused has to be still here, unmoved: its ticket ends in this function.
template <class Job, class Submit>
bool offer(round& r, Job&& given, patience how, bool in_job, Submit submit) {
    std::optional<std::decay_t<Job>> job(std::move(given));
    const submit_status answer = submit(std::move(*job)).status();
    const bool accepted = answer == submit_status::accepted;
    check_answer(r, answer, how, in_job);
    (accepted ? r.accepted : r.refused).add();
    if (!accepted)
        ++told_here.refusals;
    job.reset();
    if (std::exchange(told_here.refusals, 0) != 0)
        violation("a refused job was moved away");
    return accepted;
}

/// Waits for a result, where that may be refused, and says whether there is one.
inline bool get(round& r, future<void>& result) {
    try {
        result.get();
        return true;
    } catch (const job_discarded&) {
    } catch (const job_rejected&) {
    } catch (const deadlock_error&) {
    } catch (const std::runtime_error&) {
        r.told_failed.add(); // thrown on purpose
        return true;
    }
    r.expected_errors.add();
    return false;
}

struct work {
    ticket t;

    void operator()(const job_context& context) {
        stay inside(t, context.attempt() == 1);
        round& r = round_of(t);
        if (&t.at() == &r.limited)
            r.limited_last_start.raise_to((steady::now() - r.limited_since).count());
        switch (t.kind) {
        case work_kind::plain:
            break;
        case work_kind::throws:
            fail(r);
        case work_kind::is_tried_again:
            if (context.attempt() < 3)
                fail(r);
            break;
        case work_kind::yields:
            std::this_thread::yield();
            break;
        case work_kind::asks_for_stop:
            static_cast<void>(context.stop_token().stop_requested());
            break;
        case work_kind::blocks: {
            const blocking_scope blocking;
            std::this_thread::sleep_for(1ms);
            break;
        }
        case work_kind::sleeps:
            std::this_thread::sleep_for(3ms);
            break;
        case work_kind::submits_to_own_key:
            offer(r, work{ticket(r, t.at(), own_stream, ++t.at().own)}, patience::waits, true,
                  [&](work&& job) { return r.pool->submit(t.at().name, std::move(job)); });
            break;
        case work_kind::submits_to_another: {
            entity& other = another(r);
            offer(r, work{ticket(r, other, no_stream, 0)}, patience::waits, true,
                  [&](work&& job) { return r.pool->submit(other.name, std::move(job)); });
            break;
        }
        case work_kind::waits_for_another: {
            entity& other = another(r);
            work job{ticket(r, other, no_stream, 0)};
            auto result = r.pool->async(other.name, std::move(job));
            const bool accepted = job.t.is_moved_from();
            (accepted ? r.accepted : r.refused).add();
            if (!accepted)
                ++told_here.refusals; // it ends below
            get(r, result);
            break;
        }
        case work_kind::drains_another:
            try {
                r.pool->drain(r.passing[context.number() % passing_keys]->name);
            } catch (const deadlock_error&) {
                r.expected_errors.add();
            }
            break;
        case work_kind::holds: {
            auto hold = context.hold();
            const std::lock_guard lock(r.holds_mutex);
            r.holds.push_back({std::move(hold), &inside.hand_over(), t.shared});
            break;
        }
        }
    }

    [[noreturn]] static void fail(round& r) {
        r.threw.add();
        throw std::runtime_error("on purpose");
    }
    entity& another(round& r) const { return *r.hot[t.at().started.get() * 7 % hot_keys]; }
};
static_assert(sizeof(work) <= 32); // lies in the lane

struct boxed_work {
    work w;
    std::array<char, 64> more{};
    void operator()(const job_context& context) { w(context); }
};

/// Under several keys: `t` is the ticket of the first.
struct work_of_several {
    ticket t;
    std::array<entity*, 2> others; // null: fewer

    void operator()() {
        const stay inside(t);
        for (entity* const e : others)
            if (e != nullptr)
                t.start_under(*e);
        for (entity* const e : others)
            if (e != nullptr)
                t.leave(*e, false);
    }
};

struct barrier_work {
    ticket t;

    void operator()() {
        t.begin_barrier();
        std::this_thread::yield(); // something else would have the time to begin
        t.end_barrier();
    }
};

/// Without a ticket; its key is a loose one.
struct other_work {
    round* of;
    entity* at;

    void operator()() const {
        ticket t(*of, *at, no_stream, 0);
        const stay inside(t);
        of->others.add();
    }
};

/// A coroutine that keeps its key while it is suspended.
inline task<> keep(round& r, ticket t, unsigned steps, bool throws) {
    const stay inside(t);
    for (unsigned i = 0; i < steps; ++i) {
        if (i % 2 == 0)
            co_await yield();
        else
            co_await sleep_for(std::chrono::milliseconds(steps % 3));
    }
    if (throws)
        work::fail(r);
}

/// One that lends it.
inline task<> lend(round& r, ticket t, unsigned steps) {
    t.begin();
    for (unsigned i = 0; i < steps; ++i) {
        try {
            const absence away(t);
            if (i % 3 == 0)
                co_await yield();
            else if (i % 3 == 1 || !r.has_others)
                co_await sleep_for(std::chrono::milliseconds(steps % 3));
            else
                co_await r.pool->run(r.loose[steps]->name, other_work{&r, r.loose[steps].get()});
        } catch (const std::exception&) {
            r.expected_errors.add();
        }
    }
    t.end_run();
}

// --- Who submits -----------------------------------------------------------------------------------------------------

class producer {
  public:
    producer(round& of, std::uint8_t number) : r_(of), me_(number), random_(of.number * producers + number + 1) {
        using enum work_kind;
        add(12, &producer::submit_of_kind<throws>);
        add(16, &producer::submit_of_kind<submits_to_own_key>);
        add(12, &producer::submit_of_kind<submits_to_another>);
        add(12, &producer::submit_of_kind<holds>);
        add(4, &producer::submit_of_kind<asks_for_stop>);
        add(1, &producer::submit_of_kind<blocks>);
        add(1, &producer::submit_of_kind<sleeps>);
        add(4, &producer::submit_of_kind<waits_for_another>);
        add(1, &producer::submit_of_kind<drains_another>);
        add(12, &producer::submit_with_retry);
        add(12, &producer::submit_with_deadline);
        add(16, &producer::submit_with_priority);
        add(12, &producer::submit_what_must_run);
        add(8, &producer::submit_for_result<plain>);
        add(4, &producer::submit_for_result<throws>);
        add(12, &producer::submit_coroutine);
        add(8, &producer::submit_lender);
        add(4, &producer::spawn);
        add(12, &producer::submit_for_later);
        add(12, &producer::submit_with_tag);
        add(16, &producer::submit_together);
        add(1, &producer::submit_barrier);
        add(12, &producer::submit_to_limited);
        add(40, &producer::submit_shared);
        if (r_.has_others) {
            add(4, &producer::repeat);
            add(4, &producer::follow);
        }
    }

    void run() {
        while (!r_.ends) {
            if (handles_.empty() || below(2000) == 0) // they come and go
                renew_handles();
            if (below(4) == 0)
                (this->*lots_[below(static_cast<std::uint32_t>(lots_.size()))])(choose());
            else
                submit_plainly();
        }
        for (auto& result : results_)
            get(r_, result);
    }

  private:
    using special = void (producer::*)(entity& chosen);
    void add(std::size_t share, special what) { lots_.insert(lots_.end(), share, what); }

    std::uint32_t below(std::uint32_t n) { return random_() % n; }
    task_pool& pool() { return *r_.pool; }

    void renew_handles() {
        handles_.clear();
        for (const auto& e : r_.hot)
            handles_.push_back(pool().lane(e->name));
    }

    entity& choose() {
        if (below(3) == 0)
            return *r_.passing[next_passing_ = (next_passing_ + producers) % passing_keys];
        return *r_.hot[std::min(below(hot_keys), below(hot_keys))]; // some are hotter
    }

    ticket make(entity& under, work_kind kind = work_kind::plain) { return {r_, under, me_, ++number_, me_, kind}; }
    /// In no order with others.
    ticket make_unordered(entity& under) { return {r_, under, no_stream, ++number_, me_}; }

    template <class Job, class Submit>
    bool give(Job&& job, Submit submit, patience how = patience::waits) {
        return offer(r_, std::forward<Job>(job), how, false, submit);
    }

    void submit_plainly() {
        const auto i = below(hot_keys);
        switch (below(8)) {
        case 0:
        case 1:
            give(work{make(*r_.hot[i])}, [&](work&& job) { return handles_[i].submit(std::move(job)); });
            break;
        case 2: {
            entity& e = choose();
            give(
                work{make(e, work_kind::yields)}, [&](work&& job) { return pool().try_submit(e.name, std::move(job)); },
                patience::none);
            break;
        }
        case 3: {
            entity& e = choose();
            give(
                work{make(e)}, [&](work&& job) { return pool().submit_for(e.name, 1ms, std::move(job)); },
                patience::for_a_time);
            break;
        }
        case 4: {
            entity& e = choose();
            give(boxed_work{{make(e)}}, [&](boxed_work&& job) { return pool().submit(e.name, std::move(job)); });
            break;
        }
        default: {
            entity& e = choose();
            give(work{make(e)}, [&](work&& job) { return pool().submit(e.name, std::move(job)); });
            break;
        }
        }
    }

    template <work_kind kind>
    void submit_of_kind(entity& e) {
        give(work{make(e, kind)}, [&](work&& job) { return pool().submit(e.name, std::move(job)); });
    }

    void submit_to_limited(entity&) {
        entity& e = r_.limited;
        give(
            work{make(e)}, [&](work&& job) { return pool().try_submit(e.name, std::move(job)); }, patience::none);
    }

    void submit_with_retry(entity& e) {
        retry policy{.max_attempts = 3 - below(2), .backoff = {.first = std::chrono::milliseconds(below(2))}};
        if (below(2) == 0)
            policy.handler = [&r = r_](dead_letter&&) { r.told_failed.add(); };
        give(with_retry(std::move(policy), work{make(e, work_kind::is_tried_again)}),
             [&](auto&& job) { return pool().submit(e.name, std::move(job)); });
    }

    void submit_with_deadline(entity& e) {
        give(with_deadline(pool().now() + std::chrono::milliseconds(below(20)), work{make(e)}),
             [&](auto&& job) { return pool().submit(e.name, std::move(job)); });
    }

    void submit_with_priority(entity& e) {
        const job_options how{.priority = below(2) == 0 ? priority::high : priority::low};
        give(work{make(e)}, [&](work&& job) { return pool().submit(e.name, std::move(job), how); });
    }

    void submit_what_must_run(entity& e) {
        work job{make(e)};
        job.t.must_run = true;
        give(std::move(job),
             [&](work&& j) { return pool().submit(e.name, std::move(j), {.on_stop = stop_action::run}); });
    }

    template <work_kind kind>
    void submit_for_result(entity& e) {
        work job{make(e, kind)};
        auto result = pool().async(e.name, std::move(job));
        const bool accepted = job.t.is_moved_from();
        (accepted ? r_.accepted : r_.refused).add();
        if (!accepted)
            ++told_here.refusals; // it ends with this function
        results_.push_back(std::move(result));
        if (results_.size() > 16) {
            get(r_, results_.front());
            results_.pop_front();
        }
    }

    void submit_coroutine(entity& e) {
        give(keep(r_, make(e), below(6), below(8) == 0),
             [&](task<>&& job) { return pool().submit(e.name, std::move(job)); });
    }

    void submit_lender(entity&) {
        entity& e = *r_.hot[below(hot_keys)];
        give(lend(r_, make_unordered(e), below(loose_keys)), [&](task<>&& job) {
            return pool().submit(e.name, std::move(job), {.while_suspended = suspension::interleave});
        });
    }

    /// With a future that goes at some time.
    void spawn(entity&) {
        entity& e = *r_.loose[below(loose_keys)];
        future<void> result;
        give(
            keep(r_, make_unordered(e), below(4), false),
            [&](task<>&& job) {
                result = pool().spawn(e.name, std::move(job));
                return submit_result(job.valid() ? submit_status::full : submit_status::accepted); // or another reason
            },
            patience::none);
        if (below(2) == 0)
            get(r_, result);
    }

    void submit_for_later(entity& e) {
        timer handle;
        work job{make_unordered(e)};
        give(std::move(job), [&](work&& j) {
            handle = pool().submit_after(std::chrono::milliseconds(below(30)), e.name, std::move(j));
            return submit_result(handle.status());
        });
        if (below(3) == 0)
            timers_.push_back(std::move(handle));
        if (timers_.size() > 8) {
            r_.cancelled.add(timers_.front().cancel() ? 1 : 0);
            timers_.pop_front();
        }
    }

    void repeat(entity&) {
        entity& e = *r_.loose[below(loose_keys)];
        beats_.push_back(pool().submit_every(std::chrono::milliseconds(1 + below(5)), e.name, other_work{&r_, &e}));
        if (beats_.size() > 4) {
            beats_.front().cancel();
            beats_.pop_front();
        }
    }

    void follow(entity&) {
        entity& first = *r_.loose[below(loose_keys)];
        entity& second = *r_.loose[below(loose_keys)];
        auto result = pool().async(first.name, other_work{&r_, &first}).then(second.name, other_work{&r_, &second});
        if (below(2) == 0)
            get(r_, result);
    }

    void submit_with_tag(entity&) {
        entity& e = *r_.hot[below(hot_keys)];
        const auto which = below(tags);
        const auto stream = static_cast<std::uint8_t>(first_tag_stream + which * producers + me_);
        give(work{{r_, e, stream, ++number_, me_}},
             [&](work&& job) { return pool().submit(e.name, tag{r_.tag_names[which]}, std::move(job)); });
    }

    void submit_together(entity&) {
        std::array<std::uint32_t, 3> chosen{};
        for (auto& c : chosen)
            c = below(hot_keys);
        std::vector<std::string> names;
        work_of_several job{make(*r_.hot[chosen[0]]), {}};
        job.t.several = true;
        for (std::size_t i = 0; i < 3; ++i) {
            names.push_back(r_.hot[chosen[i]]->name);
            if (i > 0 && std::find(chosen.begin(), chosen.begin() + i, chosen[i]) == chosen.begin() + i)
                job.others[i - 1] = r_.hot[chosen[i]].get();
        }
        give(std::move(job), [&](work_of_several&& j) { return pool().submit_together(names, std::move(j)); });
    }

    void submit_barrier(entity&) {
        barrier_work job{{r_, r_.barriers, no_stream, ++number_, me_}};
        give(std::move(job), [&](barrier_work&& j) { return pool().submit_barrier(std::move(j)); });
    }

    void submit_shared(entity&) {
        entity& e = *r_.sharing[below(shared_keys)];
        const bool shared = below(4) != 0;
        constexpr std::array kinds = {work_kind::plain,  work_kind::plain,         work_kind::yields,
                                      work_kind::throws, work_kind::asks_for_stop, work_kind::holds};
        work job{make(e, kinds[below(kinds.size())])};
        job.t.shared = shared;
        give(std::move(job), [&](work&& j) {
            return shared ? pool().submit_shared(e.name, std::move(j)) : pool().submit(e.name, std::move(j));
        });
    }

    round& r_;
    const std::uint8_t me_;
    random_source random_;
    std::uint32_t number_ = 0;
    std::size_t next_passing_ = me_;
    std::vector<special> lots_; // what it does one time in four
    std::vector<task_pool::lane_handle> handles_;
    std::deque<future<void>> results_;
    std::deque<timer> timers_, beats_;
};

// --- Who meddles -----------------------------------------------------------------------------------------------------

class meddler {
  public:
    explicit meddler(round& of) : r_(of), random_(of.number) {}

    void run() {
        bool limits_all = false;
        while (!r_.ends) {
            task_pool& pool = *r_.pool;
            entity& e = *r_.hot[random_() % hot_keys];
            switch (random_() % 10) {
            case 0:
            case 1:
                r_.cancelled.add(pool.cancel(e.name));
                break;
            case 2:
                r_.cancelled.add(pool.cancel(r_.sharing[random_() % shared_keys]->name));
                r_.cancelled.add(pool.cancel(r_.passing[random_() % passing_keys]->name));
                r_.cancelled.add(pool.cancel(r_.loose[random_() % loose_keys]->name));
                break;
            case 3:
            case 4:
                pause(e);
                break;
            case 5:
                pool.limit(e.name, {5000, per_second, 20});
                rest();
                pool.unlimit(e.name);
                break;
            case 6:
                limits_all = !limits_all;
                pool.limit_all(limits_all ? std::optional(rate{20'000, per_second, 100}) : std::nullopt);
                break;
            case 7:
                static_cast<void>(pool.stats().wait_time.quantile(0.99));
                static_cast<void>(pool.active_keys() + pool.hottest_keys(5).size() + pool.oldest_keys().size());
                break;
            case 8:
                pool.drain(r_.passing[random_() % passing_keys]->name);
                break;
            default:
                static_cast<void>(pool.drain_for(1ms));
                break;
            }
            rest();
        }
        r_.pool->limit_all(std::nullopt);
    }

  private:
    void rest() { std::this_thread::sleep_for(std::chrono::microseconds(random_() % 1000)); }

    /// No job of a paused key starts but one that a worker had taken by then. Nobody else pauses.
    void pause(entity& e) {
        if (!r_.pool->pause(e.name)) {
            if (!r_.closing)
                violation("a key cannot be paused", e.name);
            return;
        }
        const auto before = e.started.get();
        rest();
        const auto after = e.started.get();
        if (!r_.closing && after > before + 1)
            violation("jobs of a paused key started", e.name, before, after);
        if (!r_.pool->resume(e.name) && !r_.closing)
            violation("a paused key cannot be resumed", e.name);
    }

    round& r_;
    random_source random_;
};

/// Releases what jobs hold, a moment later.
inline void release_holds(round& r, const std::atomic<bool>& over) {
    for (;;) {
        const bool is_last_look = over;
        std::vector<round::kept_hold> taken;
        {
            const std::lock_guard lock(r.holds_mutex);
            taken.swap(r.holds);
        }
        for (auto& h : taken) {
            ticket::leave(r, *h.of, h.shared);
            h.hold.release();
        }
        if (is_last_look)
            return;
        std::this_thread::sleep_for(300us);
    }
}

} // namespace taskpool::soak
