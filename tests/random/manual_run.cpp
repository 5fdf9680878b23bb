// SPDX-License-Identifier: Apache-2.0
#include "manual_run.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include <taskpool/deadline.hpp>
#include <taskpool/taskpool.hpp>
#include <taskpool/testing.hpp>

#include "model.hpp"

namespace taskpool::random {

namespace {

using std::chrono::steady_clock;
using ms = std::chrono::milliseconds;

constexpr int keys = 4;
// What is due is told to its lane by a look at the timers, and a job of several keys leaves a lane at a moment that is
// not seen: so a run has either timers, under one key, or jobs of several keys.
constexpr int timed_key = 0;

/// What a job throws.
struct failed {
    int id;
};

enum class action : std::uint8_t {
    submit,
    shared,
    together_or_timer,
    timer,
    barrier,
    tagged,
    holding,
    lending,
    step,
    run_until_idle,
    run_for,
    advance,
    cancel,
    pause,
    resume,
    release,
    cancel_timer,
    limit,
    drain,
    wait,
    close,
    stop,
};

constexpr std::array actions = {
    action::submit,  action::step,    action::run_until_idle, action::shared,  action::together_or_timer,
    action::barrier, action::tagged,  action::holding,        action::lending, action::run_for,
    action::advance, action::cancel,  action::pause,          action::resume,  action::release,
    action::timer,   action::limit,   action::drain,          action::wait,    action::cancel_timer,
    action::submit,  action::submit,  action::shared,         action::submit,  action::together_or_timer,
    action::step,    action::run_for, action::resume,         action::step,    action::tagged,
    action::close,   action::stop,
};

class manual_run {
  public:
    manual_run(const operation& setup, fault broken)
        : broken_(broken), setup_(setup), rules_(rules_of(setup)), model_(rules_of_model()) {
        options o;
        o.lane_capacity = rules_.lane_capacity;
        o.pool_capacity = rules_.pool_capacity;
        o.timer_capacity = rules_.timer_capacity;
        o.max_shared = rules_.max_shared;
        o.when_full = rules_.when_full;
        o.on_discard = [this](const discard& d) { told(d); };
        o.on_failure = [this](const failure& f) { told(f); };
        o.clock = clock_;
        const bool seeded = (setup.with & 1) != 0;
        pool_.emplace(std::move(o), seeded ? std::optional<std::uint64_t>(setup.with) : std::nullopt);
    }

    void apply(const operation& o) {
        guarded([&] { do_apply(o); });
        guarded([&] {
            all_told();
            model_.must_agree(pool_->stats(), false);
        });
    }

    void end() {
        if (error_.empty())
            guarded([&] { do_end(); });
        holds_.clear();
        pool_.reset();
    }

    const std::string& error() const noexcept { return error_; }

  private:
    static rules rules_of(const operation& setup) {
        rules r;
        r.when_full = static_cast<overflow>(setup.what % 4);
        r.lane_capacity = 1 + setup.key % 4;
        r.pool_capacity = setup.how % 4 == 3 ? 4 : 1000;
        r.timer_capacity = setup.how % 8 == 1 ? 2 : 1000;
        r.max_shared = 1 + (setup.with >> 1) % 3;
        return r;
    }

    rules rules_of_model() const {
        rules r = rules_;
        r.lane_capacity += broken_ == fault::miscounts_room ? 1 : 0;
        return r;
    }

    bool has_timers() const noexcept { return (setup_.how & 4) == 0; }
    bool drops() const noexcept {
        return rules_.when_full == overflow::drop_oldest || rules_.when_full == overflow::keep_latest;
    }

    milliseconds now() const { return std::chrono::duration_cast<ms>(clock_->now().time_since_epoch()).count(); }

    /// What the pool must not see: a mismatch is kept, the first one.
    template <class F>
    void guarded(F f) noexcept {
        try {
            f();
        } catch (const std::exception& e) {
            if (error_.empty())
                error_ = e.what();
        }
    }

    // --- Jobs
    // ---------------------------------------------------------------------------------------------------------

    /// Lies in the callable; tells when that is destroyed.
    class token {
      public:
        token(manual_run& run, int id) noexcept : run_(&run), id_(id) {}
        token(token&& other) noexcept : run_(std::exchange(other.run_, nullptr)), id_(other.id_) {}
        ~token() {
            if (run_ != nullptr)
                run_->guarded([this] { run_->destroyed(id_); });
        }
        manual_run& run() const noexcept { return *run_; }
        int id() const noexcept { return id_; }

      private:
        manual_run* run_;
        int id_;
    };

    struct keyed_job {
        token t;
        int operator()(const job_context& context) { return t.run().run_job(t.id(), &context); }
    };

    struct unkeyed_job {
        token t;
        int operator()() { return t.run().run_job(t.id(), nullptr); }
    };

    static task<int> coroutine(token t) {
        auto& run = t.run();
        const int id = t.id();
        run.guarded([&] { run.started(id); });
        const auto pauses = run.model_.find(id).pauses;
        for (const auto pause : pauses) {
            if (pause > 0 && run.model_.find(id).asked) { // it does not even suspend
                const bool slept = co_await sleep_for(ms(pause));
                run.guarded([&] { run.expect_slept(id, slept, false); });
                ++run.model_.find(id).stretch;
                continue;
            }
            run.guarded([&] { run.ended(id, false); });
            bool slept = true;
            if (pause == 0)
                co_await yield();
            else
                slept = co_await sleep_for(ms(pause));
            run.guarded([&] { run.started(id); });
            if (pause > 0)
                run.guarded([&] { run.expect_slept(id, slept, run.model_.find(id).woken); });
        }
        run.guarded([&] { run.ended(id, false); });
        co_return id;
    }

    void expect_slept(int id, bool slept, bool expected) {
        if (slept != expected)
            throw mismatch(to_string(model_.find(id)) + ": sleep_for() says " + (slept ? "true" : "false"));
    }

    int run_job(int carried, const job_context* context) {
        const int id = identity(carried);
        if (broken_ == fault::loses_a_job && id % 3 == 2)
            return id;
        bool throws = false;
        guarded([&] {
            job& j = started(id);
            if (broken_ == fault::runs_a_job_twice && id % 3 == 2)
                started(id);
            if (context != nullptr && j.keys.size() == 1 && context->key() != name_of(j.keys.front()))
                throw mismatch(to_string(j) + ": its context tells another key, " + context->key());
            if (context != nullptr && j.kind != job_kind::together && j.repeats == nullptr &&
                context->attempt() != static_cast<std::uint32_t>(j.attempt))
                throw mismatch(to_string(j) + ": its context tells another attempt");
            if (const auto inner = inner_.find(id); inner != inner_.end())
                do_inner(inner->second, j);
            if (context != nullptr && context->stop_requested() != (j.asked || model_.stopped()))
                throw mismatch(to_string(j) + ": its context and the model disagree on whether it was asked to stop");
            j.takes_hold = j.takes_hold && !model_.stopped(); // who stops waits for it
            if (j.takes_hold)
                holds_[id] = context->hold();
            throws = j.attempt <= j.failures;
            ended(id, throws);
        });
        if (throws)
            throw failed{id};
        return id;
    }

    /// Of the job that the model knows: of a repeating one, its beat.
    job& known(int id) {
        job& j = model_.find(id);
        if (j.period == 0)
            return j;
        for (std::size_t i = model_.jobs(); i-- > 0;)
            if (job& b = model_.find(static_cast<int>(i));
                b.repeats == &j && b.state != job_state::done && b.state != job_state::gone)
                return b;
        throw mismatch(to_string(j) + ": a beat that the model knows nothing of");
    }

    job& started(int id) {
        model_.settle(now());
        job& j = known(id);
        ++events_;
        model_.starts(j, now());
        return j;
    }

    void ended(int id, bool threw) { model_.ends(known(id), threw, now()); }

    int identity(int carried) const {
        const auto found = swapped_.find(carried);
        return found == swapped_.end() ? carried : found->second;
    }

    void destroyed(int carried) {
        const int id = identity(carried);
        job& j = model_.find(id);
        if (j.state == job_state::made)
            return;
        if (j.period > 0) {
            if (model_.closed() && j.state == job_state::timed)
                model_.settle(now());                       // it ends at its next beat
            if (j.beat_waits && j.state == job_state::gone) // its last beat came to its turn, and had nothing to do
                ended(started(id).repeats->id, false);
            return;
        }
        ++events_;
        if (j.state == job_state::between && j.backs_off) {
            model_.settle(now());
            model_.given_up(j);
            return;
        }
        if (j.state == job_state::due && j.taken_back)
            model_.settle(now());
        const auto why = model_.expected(j);
        const auto report = std::find_if(reports_.rbegin(), reports_.rend(), [&](const auto& r) {
            return r.second == why.value_or(discard_reason::expired) &&
                   std::any_of(j.keys.begin(), j.keys.end(), [&](int key) { return r.first == name_of(key); });
        });
        if (report != reports_.rend()) {
            const auto told_why = report->second;
            reports_.erase(std::next(report).base());
            return model_.discarded(j, told_why, now());
        }
        if (j.state != job_state::done && j.state != job_state::gone &&
            !(j.state == job_state::between && j.takes_hold))
            throw mismatch(to_string(j) + ": its callable is gone, but nobody was told");
        if (why)
            throw mismatch(to_string(j) + ": its callable is gone before its discard was reported");
    }

    /// All that is to be reported has been, and no more than that.
    void all_told() {
        for (const auto& [key, why] : std::exchange(reports_, {})) {
            job* const lives_on = model_.expected_to_live_on(key, why);
            if (lives_on == nullptr)
                throw mismatch("a discard of " + key + " was reported, for reason " +
                               std::to_string(static_cast<int>(why)) + ", that is none");
            model_.discarded(*lives_on, why, now());
        }
        model_.must_have_been_told();
    }

    // --- What the pool tells

    void told(const discard& d) {
        guarded([&] {
            if (broken_ == fault::hides_a_discard && d.reason == discard_reason::cancelled)
                return;
            const std::pair report(std::string(d.key), d.reason);
            const auto before = std::count(reports_.begin(), reports_.end(), report);
            if (model_.expected(report.first, d.reason) <= static_cast<std::size_t>(before))
                model_.settle(now()); // it comes of that, or of a turn that has come
            reports_.push_back(report);
        });
    }

    void told(const failure& f) {
        guarded([&] {
            try {
                std::rethrow_exception(f.error);
            } catch (const failed& e) {
                ++failures_[e.id];
            } catch (...) {
                throw mismatch("a failure that no job has had, of " + std::string(f.key));
            }
        });
    }

    // --- Operations
    // ---------------------------------------------------------------------------------------------------

    /// A job by its operation.
    job like(job_kind kind, const operation& o, int key) const {
        job j;
        j.kind = kind;
        j.keys = {key};
        j.must_run = (o.with >> 3 & 1) != 0;
        const int urgency = o.with >> 4 & 3;
        j.priority = urgency == 2 ? priority::high : urgency == 3 ? priority::low : priority::normal;
        switch (o.with & 7) {
        case 3:
            j.failures = 1;
            break;
        case 4:
            j.takes_hold = kind != job_kind::barrier;
            break;
        case 5:
            j.failures = 1 + o.how / 8 % 3;
            j.attempts = kind == job_kind::together ? 1 : 3;
            j.backoff = 2;
            break;
        case 6:
            j.deadline = now() + o.how / 8 % 4;
            break;
        default:
            break;
        }
        return j;
    }

    job_options how(const job& j) const {
        return {.on_stop = j.must_run ? stop_action::run : stop_action::discard, .priority = j.priority};
    }

    /// Calls `f` with the callable of a job, as it is to be submitted.
    template <class Body, class F>
    auto with_callable(job& j, F f) {
        Body body{token(*this, j.id)};
        if constexpr (std::is_same_v<Body, keyed_job>) {
            if (j.attempts > 1) {
                const retry policy{.max_attempts = static_cast<std::uint32_t>(j.attempts),
                                   .backoff = {.first = ms(j.backoff), .jitter = 0}};
                return f(with_retry(policy, std::move(body)));
            }
            if (j.deadline != never)
                return f(with_deadline(steady_clock::time_point(ms(j.deadline)), std::move(body)));
        }
        return f(std::move(body));
    }

    /// Whether a call that may wait does: in a job none does, and none while a timer repeats without end.
    bool may_wait() const { return running_ == 0 && !model_.repeats(); }

    /// `call(job, how)` for one that does not wait and for one that may; what they answer is compared with the model.
    template <class Submit, class Try>
    void submit(job& j, bool waits, Submit call, Try try_call) {
        const bool has_victim = model_.answer(j) == submit_status::accepted;
        submit_result answer = submit_status::accepted;
        waits = waits && may_wait() && (j.tag < 0 || has_victim);
        swap_if_broken(j);
        answer = waits ? call() : try_call();
        if (answer == submit_status::would_deadlock)
            model_.settle(now()); // it has looked in vain
        else if (waits)
            settle_if_time_has_passed();
        const bool waited = waits && rules_.when_full == overflow::block;
        model_.submitted(j, answer.status(), waited, now());
    }

    void settle_if_time_has_passed() {
        if (model_.clock() != now())
            model_.settle(now());
    }

    template <class Future>
    submit_result keep(job& j, Future future) {
        j.has_future = true;
        auto answer = submit_status::accepted;
        if (future.is_ready()) { // only one that was refused can be
            try {
                future.get();
            } catch (const job_rejected& e) {
                return e.status();
            } catch (...) {
            }
            throw mismatch(to_string(j) + ": its future has a result, but it has not run");
        }
        futures_.emplace(j.id, std::move(future));
        return answer;
    }

    template <class Body, class Where, class TryWhere, class AsyncWhere>
    void submit_some_way(job& j, int way, Where where, TryWhere try_where, AsyncWhere async_where) {
        const auto trying = [&] { return with_callable<Body>(j, try_where); };
        if (way == 2 || way == 3) // async waits as submit does
            submit(
                j, true, [&] { return with_callable<Body>(j, async_where); },
                [&]() -> submit_result {
                    if (model_.has_room_for(j) || rules_.when_full != overflow::block || model_.closed())
                        return with_callable<Body>(j, async_where);
                    return trying();
                });
        else
            submit(
                j, way == 1, [&] { return with_callable<Body>(j, where); }, trying);
    }

    void do_submit(const operation& o, int key, bool by_handle) {
        job& j = model_.make(like(job_kind::exclusive, o, key));
        const auto name = name_of(key);
        if (by_handle) {
            const auto lane = pool_->lane(name);
            submit_some_way<keyed_job>(
                j, o.how % 4, [&](auto f) { return lane.submit(std::move(f), how(j)); },
                [&](auto f) { return lane.try_submit(std::move(f), how(j)); },
                [&](auto f) { return keep(j, lane.async(std::move(f), how(j))); });
            return;
        }
        if (o.how % 8 == 5) {
            submit(
                j, true,
                [&] {
                    return with_callable<keyed_job>(
                        j, [&](auto f) { return pool_->submit_for(name, ms(3), std::move(f), how(j)); });
                },
                [&] {
                    return with_callable<keyed_job>(
                        j, [&](auto f) { return pool_->try_submit(name, std::move(f), how(j)); });
                });
            return;
        }
        submit_some_way<keyed_job>(
            j, o.how % 4, [&](auto f) { return pool_->submit(name, std::move(f), how(j)); },
            [&](auto f) { return pool_->try_submit(name, std::move(f), how(j)); },
            [&](auto f) { return keep(j, pool_->async(name, std::move(f), how(j))); });
    }

    void do_shared(const operation& o, int key) {
        job& j = model_.make(like(job_kind::shared, o, key));
        const auto name = name_of(key);
        submit_some_way<keyed_job>(
            j, o.how % 4, [&](auto f) { return pool_->submit_shared(name, std::move(f), how(j)); },
            [&](auto f) { return pool_->try_submit_shared(name, std::move(f), how(j)); },
            [&](auto f) { return keep(j, pool_->async_shared(name, std::move(f), how(j))); });
    }

    void do_tagged(const operation& o, int key) {
        job made = like(job_kind::exclusive, o, key);
        made.tag = o.how / 4 % 2;
        job& j = model_.make(made);
        const auto name = name_of(key);
        const tag about{made.tag == 0 ? "a" : "b"};
        submit_some_way<keyed_job>(
            j, o.how % 4, [&](auto f) { return pool_->submit(name, about, std::move(f), how(j)); },
            [&](auto f) { return pool_->try_submit(name, about, std::move(f), how(j)); },
            [&](auto f) { return keep(j, pool_->async(name, about, std::move(f), how(j))); });
    }

    void do_together(const operation& o, int key) {
        if (drops()) // what they drop could be seen by its places only
            return do_submit(o, key, false);
        job made = like(job_kind::together, o, 1 + key % (keys - 1));
        const int other = 1 + (made.keys.front() + o.how / 4 % 2) % (keys - 1);
        if (other != made.keys.front())
            made.keys.push_back(other);
        job& j = model_.make(made);
        std::vector<std::string> names;
        for (const int each : made.keys)
            names.push_back(name_of(each));
        submit_some_way<keyed_job>(
            j, o.how % 4, [&](auto f) { return pool_->submit_together(names, std::move(f), how(j)); },
            [&](auto f) { return pool_->try_submit_together(names, std::move(f), how(j)); },
            [&](auto f) { return keep(j, pool_->async_together(names, std::move(f), how(j))); });
    }

    void do_barrier(const operation& o) {
        job made = like(job_kind::barrier, o, barrier_key);
        made.attempts = 1;
        made.deadline = never;
        job& j = model_.make(made);
        submit_some_way<unkeyed_job>(
            j, o.how % 4, [&](auto f) { return pool_->submit_barrier(std::move(f), how(j)); },
            [&](auto f) { return pool_->try_submit_barrier(std::move(f), how(j)); },
            [&](auto f) { return keep(j, pool_->async_barrier(std::move(f), how(j))); });
    }

    void do_coroutine(const operation& o, int key, bool lends) {
        job made;
        made.kind = lends ? job_kind::lending : job_kind::holding;
        made.keys = {lends ? 1 + key % (keys - 1) : key};
        made.must_run = (o.with >> 3 & 1) != 0;
        for (int i = 0; i < o.with % 4; ++i)
            made.pauses.push_back(o.with >> (2 * i + 1) & 3);
        job& j = model_.make(made);
        const auto name = name_of(made.keys.front());
        const spawn_options so{.while_suspended = lends ? suspension::interleave : suspension::hold,
                               .on_stop = how(j).on_stop};
        const bool room = model_.has_room_for(j) || rules_.when_full != overflow::block || model_.closed();
        if (!room && !may_wait())
            return; // there is no try_spawn
        const auto call = [&]() -> submit_result {
            if (o.how % 2 == 0)
                return pool_->submit(name, coroutine(token(*this, j.id)), so);
            return keep(j, pool_->spawn(name, coroutine(token(*this, j.id)), so));
        };
        submit(j, true, call, call);
    }

    void do_timer(const operation& o, int key) {
        if (!has_timers())
            return do_shared(o, key);
        job made = like(job_kind::exclusive, o, timed_key);
        if (drops() || rules_.when_full == overflow::reject)
            made.must_run = false;
        const bool every = o.how % 4 == 2;
        if (every) {
            made = {};
            made.keys = {timed_key};
            made.failures = o.with % 8 == 3 ? 1 : 0;
            made.period = 1 + o.how / 4 % 4;
        }
        job& j = model_.make(made);
        const milliseconds delay = every ? made.period : o.how / 4 % 8;
        const auto expected = model_.schedule(j, now() + delay);
        const auto told_delay = ms(delay - (broken_ == fault::wakes_early && delay > 0 ? 1 : 0));
        timer t = with_callable<keyed_job>(j, [&](auto f) -> timer {
            const auto name = name_of(timed_key);
            if (every)
                return pool_->submit_every(told_delay, name, std::move(f));
            if (o.how % 4 == 1)
                return pool_->submit_at(pool_->now() + told_delay, name, std::move(f), how(j));
            return pool_->submit_after(told_delay, name, std::move(f), how(j));
        });
        if (t.status() != expected)
            throw mismatch(to_string(j) + ": a timer answered " + std::string(taskpool::to_string(t.status())));
        if (t)
            timers_.emplace(j.id, std::move(t));
    }

    void do_inner(const operation& o, const job& outer) {
        if (model_.stopped())
            return; // what is discarded when is open there
        ++running_;
        const int own = outer.keys.front() == barrier_key ? 0 : outer.keys.front();
        const int other = (own + 1) % keys;
        const operation plain{0, 0, 0, 0}; // does not wait
        switch (o.how / 8 % 10) {
        case 0:
            do_submit(plain, own, false);
            break;
        case 1:
            do_submit(plain, other, true);
            break;
        case 2:
            do_cancel(own);
            break;
        case 3:
            do_cancel(other);
            break;
        case 4:
            do_pause(own);
            break;
        case 5:
            do_resume(other);
            break;
        case 6:
            do_shared(plain, own);
            break;
        case 7:
            do_timer({0, 0, 4, 0}, own);
            break;
        case 8:
            do_barrier(plain);
            break;
        default:
            must_be_refused("stop()", [&] { pool_->stop(); });
            must_be_refused("drain()", [&] { pool_->drain(); });
            must_be_refused("drain() of its own key", [&] {
                if (outer.keys.front() != barrier_key)
                    pool_->drain(name_of(own));
                else
                    pool_->drain();
            });
        }
        --running_;
    }

    template <class F>
    void must_be_refused(const char* what, F call) {
        try {
            call();
        } catch (const deadlock_error&) {
            return;
        }
        throw mismatch(std::string(what) + " in a job returned");
    }

    void do_cancel(int key) {
        const auto expected = model_.cancel(key, now());
        const auto discarded = pool_->cancel(name_of(key));
        if (discarded != expected)
            throw mismatch("cancel(" + name_of(key) + ") discarded " + std::to_string(discarded) + ", not " +
                           std::to_string(expected));
    }

    void do_pause(int key) {
        const bool expected = model_.pause(key);
        if (broken_ != fault::forgets_pauses && pool_->pause(name_of(key)) != expected)
            throw mismatch("pause(" + name_of(key) + ") should have said " + (expected ? "true" : "false"));
    }

    void do_resume(int key) {
        const bool expected = model_.resume(key);
        if (broken_ != fault::forgets_pauses && pool_->resume(name_of(key)) != expected)
            throw mismatch("resume(" + name_of(key) + ") should have said " + (expected ? "true" : "false"));
    }

    void idle() {
        model_.settle(now());
        model_.must_be_idle(now());
        model_.must_agree(pool_->stats(), true);
        std::vector<std::string> paused;
        for (const int key : model_.paused_keys())
            paused.push_back(name_of(key));
        auto told = pool_->paused_keys();
        std::sort(told.begin(), told.end());
        if (told != paused)
            throw mismatch("paused_keys() differs");
    }

    void do_limit(const operation& o, int key) {
        const auto name = name_of(key);
        if (o.how % 4 == 3) {
            if (pool_->unlimit(name) != model_.unlimit(key))
                throw mismatch("unlimit(" + name + ") is wrong");
            return;
        }
        if (o.how % 4 != 0)
            return do_submit(o, key, false);
        const milliseconds interval = 1 + o.with % 5;
        const std::uint32_t burst = 1 + o.with / 5 % 3;
        model_.limit_key(key, interval, static_cast<int>(burst), now());
        pool_->limit(name, rate{1, ms(interval), burst});
    }

    void do_drain(const operation& o, int key) {
        const bool bounded = model_.repeats() || o.how % 3 == 0;
        const auto stuck = [&](auto call, auto left, auto places) {
            try {
                call();
            } catch (const deadlock_error&) {
                model_.settle(now());
                model_.must_be_stuck(now());
                if (!left() && !places())
                    throw mismatch("a drain was refused, but there is nothing to wait for");
                return;
            }
            settle_if_time_has_passed();
            if (left())
                throw mismatch("a drain returned, but something is left");
        };
        if (bounded) {
            const auto before = now();
            const auto report = pool_->drain_for(ms(o.how % 8));
            if (report.drained)
                settle_if_time_has_passed();
            else
                model_.settle(now());
            if (report.drained ? model_.has_work() : !model_.has_work() && !model_.has_dead_places())
                throw mismatch(std::string("drain_for() says that ") + (report.drained ? "nothing" : "something") +
                               " is left");
            if (report.drained)
                return;
            if (now() != before + o.how % 8)
                throw mismatch("drain_for() took another time than it was given");
            std::vector<std::string> active;
            for (const int each : model_.active_keys())
                active.push_back(name_of(each));
            auto told = report.keys;
            for (int each = 0; each < keys; ++each)
                if (model_.has_only_dead_places(each))
                    std::erase(told, name_of(each));
            std::sort(told.begin(), told.end());
            if (told != active) {
                std::string text = "drain_for() names other keys:";
                for (const auto& name : told)
                    text += " " + name;
                text += "; not";
                for (const auto& name : active)
                    text += " " + name;
                throw mismatch(text);
            }
        } else if (o.how % 3 == 1) {
            stuck([&] { pool_->drain(); }, [&] { return model_.has_work(); }, [&] { return model_.has_dead_places(); });
        } else {
            stuck([&] { pool_->drain(name_of(key)); }, [&] { return model_.has_work(key); },
                  [&] { return model_.has_only_dead_places(key); });
        }
    }

    void do_wait(const operation& o) {
        if (futures_.empty())
            return;
        auto at = futures_.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(o.how % futures_.size()));
        const job& j = model_.find(at->first);
        if (model_.repeats()) {
            const bool ready = at->second.wait_for(ms(2));
            if (ready)
                settle_if_time_has_passed();
            else
                model_.settle(now());
            if (ready != (j.state == job_state::done || j.state == job_state::gone ||
                          (j.state == job_state::between && j.takes_hold)))
                throw mismatch(to_string(j) + ": its future was waited for, and it is " + (ready ? "" : "not ") +
                               "ready");
            if (!ready)
                return;
        }
        try {
            check_future(j, at->second);
        } catch (const deadlock_error&) {
            model_.settle(now());
            model_.must_be_stuck(now());
            return;
        }
        settle_if_time_has_passed();
        futures_.erase(at);
    }

    void check_future(const job& j, future<int>& result) {
        std::string told;
        try {
            const int value = result.get();
            told = value == j.id ? "its value" : "the value of " + std::to_string(value);
        } catch (const failed& e) {
            told = e.id == j.id ? "its failure" : "another one's failure";
        } catch (const job_expired&) {
            told = "expired";
        } catch (const job_discarded&) {
            told = "discarded";
        }
        const std::string expected = j.expired                    ? "expired"
                                     : j.state == job_state::gone ? "discarded"
                                     : j.failed                   ? "its failure"
                                                                  : "its value";
        if (told != expected)
            throw mismatch(to_string(j) + ": its future has " + told + ", not " + expected);
    }

    void do_stop() {
        release_all();
        model_.stop(now());
        const auto report = pool_->stop();
        model_.settle(now());
        all_told();
        model_.must_be_done();
        if (report.finished != model_.finished() || report.discarded != model_.discards())
            throw mismatch("stop() reports other numbers");
        model_.must_agree(pool_->stats(), true);
    }

    void release_all() {
        for (auto& [id, hold] : holds_) {
            model_.release(model_.find(id));
            hold.release();
        }
        holds_.clear();
    }

    void do_apply(const operation& o) {
        const int key = o.key % keys;
        if ((o.with & 7) == 7)
            inner_.emplace(static_cast<int>(model_.jobs()), o); // if this makes a job
        switch (actions[o.what % actions.size()]) {
        case action::submit:
            return do_submit(o, key, o.how / 4 % 2 == 1);
        case action::shared:
            return do_shared(o, key);
        case action::together_or_timer:
            return has_timers() ? do_timer(o, key) : do_together(o, key);
        case action::timer:
            return do_timer(o, key);
        case action::barrier:
            return do_barrier(o);
        case action::tagged:
            return do_tagged(o, key);
        case action::holding:
            return do_coroutine(o, key, false);
        case action::lending:
            return do_coroutine(o, key, true);
        case action::step: {
            const auto before = events_;
            if (!pool_->step())
                return idle();
            if (events_ == before)
                model_.settle(now());
            return;
        }
        case action::run_until_idle:
            pool_->run_until_idle();
            return idle();
        case action::run_for:
            pool_->run_for(ms(o.how % 8));
            return idle();
        case action::advance:
            pool_->clock().advance(ms(o.how % 8));
            model_.leap(now());
            return;
        case action::cancel:
            return do_cancel(key);
        case action::pause:
            return do_pause(key);
        case action::resume:
            return do_resume(key);
        case action::release: {
            if (holds_.empty())
                return;
            auto at = holds_.begin();
            std::advance(at, static_cast<std::ptrdiff_t>(o.how % holds_.size()));
            model_.release(model_.find(at->first));
            holds_.erase(at);
            return;
        }
        case action::cancel_timer: {
            if (timers_.empty())
                return;
            auto at = timers_.begin();
            std::advance(at, static_cast<std::ptrdiff_t>(o.how % timers_.size()));
            job& j = model_.find(at->first);
            const bool expected = model_.cancel_timer(j);
            if (at->second.cancel() != expected)
                throw mismatch(to_string(j) + ": its timer's cancel() should have said " +
                               (expected ? "true" : "false"));
            if (at->second.missed() != j.missed)
                throw mismatch(to_string(j) + ": missed() says " + std::to_string(at->second.missed()) + ", not " +
                               std::to_string(j.missed));
            timers_.erase(at);
            return;
        }
        case action::limit:
            return do_limit(o, key);
        case action::drain:
            return do_drain(o, key);
        case action::wait:
            return do_wait(o);
        case action::close:
            if (o.how % 8 != 0)
                return do_submit(o, key, false);
            model_.close();
            return pool_->close();
        case action::stop:
            if (o.how % 8 != 0)
                return do_submit(o, key, false);
            return do_stop();
        }
    }

    /// Lets all end, in one of three ways.
    void do_end() {
        if (setup_.how % 3 == 0 && !model_.stopped()) {
            release_all();
            for (int key = 0; key < keys; ++key) {
                pool_->unlimit(name_of(key));
                model_.unlimit(key);
            }
            for (auto& [id, t] : timers_)
                if (job& j = model_.find(id); j.period > 0) {
                    model_.cancel_timer(j);
                    t.cancel();
                }
            while (model_.repeats() || model_.has_work() ||
                   model_.has_dead_places()) { // jobs may take holds, and pause keys, meanwhile
                const auto jobs = model_.finished() + model_.discards();
                release_all();
                for (int key = 0; key < keys; ++key)
                    do_resume(key);
                pool_->run_for(ms(10));
                idle();
                if (jobs == model_.finished() + model_.discards() && !model_.has_work())
                    break;
                if (jobs == model_.finished() + model_.discards() && ++fruitless_ == 100)
                    model_.must_be_done();
            }
            pool_->drain();
        }
        if (setup_.how % 3 == 1) {
            do_stop();
        } else {
            release_all();
            model_.stop(now());
            pool_.reset();
        }
        all_told();
        model_.must_be_done();
        for (auto& [id, result] : futures_) {
            if (!result.is_ready())
                throw mismatch(to_string(model_.find(id)) + ": its future was forgotten");
            check_future(model_.find(id), result);
        }
        std::map<int, int> expected;
        for (std::size_t i = 0; i < model_.jobs(); ++i)
            if (const job& j = model_.find(static_cast<int>(i)); j.failed && !j.has_future)
                ++expected[j.repeats != nullptr ? j.repeats->id : j.id];
        if (failures_ != expected)
            throw mismatch("other failures were reported than there were");
    }

    void swap_if_broken(job& j) {
        if (broken_ != fault::swaps_two_jobs || j.kind != job_kind::exclusive)
            return;
        for (int other = j.id - 1; other >= 0; --other) {
            const job& before = model_.find(other);
            if (before.kind != j.kind || before.keys != j.keys || before.state != job_state::waiting)
                continue;
            swapped_[j.id] = before.id;
            swapped_[before.id] = j.id;
            return;
        }
    }

    const fault broken_;
    const operation setup_;
    const rules rules_;
    const std::shared_ptr<manual_clock> clock_ = std::make_shared<manual_clock>();
    model model_;
    std::map<int, operation> inner_; // what a job does, by its id
    std::map<int, int> swapped_;
    std::map<int, held> holds_;
    std::map<int, timer> timers_;
    std::map<int, future<int>> futures_;
    std::map<int, int> failures_;
    std::vector<std::pair<std::string, discard_reason>> reports_; // of callables that have not been destroyed
    std::string error_;
    std::uint64_t events_ = 0;
    int running_ = 0; // jobs that do operations
    int fruitless_ = 0;
    std::optional<testing::manual_pool> pool_; // last: what its jobs use outlives it
};

} // namespace

std::string run_manual(const operations& all, fault broken) {
    manual_run run(all.empty() ? operation{} : all.front(), broken);
    std::size_t done = 0;
    for (; done < all.size() && run.error().empty(); ++done)
        if (done > 0)
            run.apply(all[done]);
    const bool early = !run.error().empty();
    run.end();
    if (run.error().empty())
        return {};
    std::ostringstream text;
    text << (early ? "after operation " + std::to_string(done - 1) : std::string("at the end")) << ": " << run.error();
    return text.str();
}

} // namespace taskpool::random
