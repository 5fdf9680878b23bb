// SPDX-License-Identifier: Apache-2.0
#include "retry.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include <taskpool/retry.hpp>
#include <taskpool/task.hpp>

#include "barrier.hpp"
#include "coroutine.hpp"
#include "pool_core.hpp"

namespace taskpool {

namespace detail {

namespace {

constexpr job_ops no_job = {[](void*, const running_job&) {}, nullptr, nullptr};

/// Whether something keeps the key beyond the end of the attempt.
bool is_held(const running_job& job) noexcept {
    const std::lock_guard lock(job.in.head_lock);
    const job_extras* const e = job.in.current_extras_locked();
    return e != nullptr && e->holds > (e->is_coroutine() ? 1U : 0U);
}

bool is_worth_it(const retry& policy) noexcept {
    try {
        return !policy.when || policy.when(std::current_exception());
    } catch (...) {
        return false;
    }
}

/// The job has failed for good. A key whose job was only asked to stop is not paused.
void give_up(const running_job& job) noexcept {
    job.after = verdict::given_up;
    if ((*job.policy)->then == given_up::pause && !stop_requested(job))
        job.core.pause(job.in);
}

/// False, and no verdict, without memory. `policy` may end before the verdict.
bool set_verdict(const running_job& job, const std::shared_ptr<const retry>& policy, verdict what) noexcept {
    assert(job.after == verdict::none && job.policy == nullptr); // I-RETRY-1
    job.policy = new (std::nothrow) std::shared_ptr<const retry>(policy);
    if (job.policy == nullptr)
        return false;
    job.after = what;
    job.to_be_settled = true;
    return true;
}

/// For the next attempt of the same job.
void forget_verdict(const running_job& job) noexcept {
    job.after = verdict::none;
    delete std::exchange(job.policy, nullptr);
}

/// Whether the job is to be tried again, by the pool's policy if nothing has been decided. REQUIRES: as judge().
bool judge_by_pool(const running_job& job) noexcept {
    if (const auto& pools = job.core.settings.retry; job.after == verdict::none && pools)
        judge(job, {std::shared_ptr<const retry>(), &*pools}); // which the pool keeps
    return job.after == verdict::again;
}

/// How long the key waits after so many attempts. Chance is a hash (splitmix64, Steele et al. 2014) of what tells this
/// wait from others, so a pool for tests repeats it.
std::chrono::nanoseconds wait_after(std::uint32_t attempts, const backoff& how, const running_job& job) {
    using nanoseconds = std::chrono::duration<double, std::nano>;
    const auto& maker = job.core.maker;
    const bool has_key = &job.in != &job.core.barrier->own;
    auto h = has_key ? maker.keys.hash(maker.functions.get(), maker.key_of(job.in)) : 0;
    h += job.number * 0x9E3779B97F4A7C15U + attempts;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
    const double chance = static_cast<double>((h ^ (h >> 31)) >> 11) * 0x1p-53;
    if (how.first == how.first.zero()) // nothing grows from it; and the power may be infinite
        return {};
    const auto whole = std::min(nanoseconds(how.first) * std::pow(how.factor, attempts - 1), nanoseconds(how.max));
    return clamped(whole * (1 - how.jitter * chance));
}

} // namespace

struct stored_job_access {
    static stored_job take(job_slot& from) noexcept {
        static_assert(sizeof(stored_job::storage_) == inline_job_size && alignof(stored_job) == inline_job_alignment);
        stored_job taken;
        taken.ops_ = from.ops;
        move_callable(*from.ops, taken.storage_, from.storage);
        from.ops = &no_job;
        return taken;
    }
    static const job_ops* give(stored_job&& job, void* storage) {
        if (!job)
            throw std::invalid_argument("taskpool: an empty stored_job was submitted");
        move_callable(*job.ops_, storage, job.storage_);
        return std::exchange(job.ops_, nullptr);
    }
};

/// Gives a job that has failed for good to its policy's handler. False if there is none.
static bool report_dead_letter(job_slot& job, const running_job& self, const std::exception_ptr& error) noexcept {
    if (self.after != verdict::given_up || !(*self.policy)->handler)
        return false;
    const bool leaves = !self.has_future && job.ops->kind == job_kind::plain;
    const auto key = self.core.describe(self.in);
    try {
        (*self.policy)
            ->handler({key, error, self.earlier_attempts + 1, leaves ? stored_job_access::take(job) : stored_job()});
    } catch (...) { // NOLINT(bugprone-empty-catch): a handler must not throw
    }
    return true;
}

namespace {

/// A job between two attempts.
struct waiting_job {
    pool_core& core;
    lane& in;
    std::exception_ptr error;
    std::shared_ptr<const retry> policy;
    bool future_waits; // the job has one, to be told by the job's end
    job_slot slot;

    /// REQUIRES: called in a handler of what the job threw.
    waiting_job(job_slot& job, const running_job& threw) noexcept
        : core(threw.core), in(threw.in), error(std::current_exception()), policy(*threw.policy),
          future_waits(threw.has_future) {
        relocate(slot, job);
        job.ops = &no_job;
    }
    waiting_job(const waiting_job&) = delete;
    waiting_job& operator=(const waiting_job&) = delete;
    /// At its end in a stretch of the job: what is left to a future is told by this.
    ~waiting_job() {
        if (!core.destroy_job(in, slot))
            count_failure(*current_job());
    }

    /// Whether the next attempt is to be made though the sleep before it was cut short.
    bool must_run() const noexcept { return core.is_stopping() && slot.on_stop == stop_action::run; }
};

/// Runs the next attempt. False when it has failed; then the verdict says whether there is to be another.
bool attempt_again(waiting_job& job, running_job& self, std::uint32_t earlier_attempts) {
    forget_verdict(self);
    self.earlier_attempts = earlier_attempts;
    try {
        self.by.retries.add();
        job.slot.ops->run(job.slot.storage, self);
        return true;
    } catch (const not_tried&) {
        self.by.retries.add(-1ULL);
        self.earlier_attempts = earlier_attempts - 1;
        return false;
    } catch (...) {
        job.error = std::current_exception();
        const bool again = judge_by_pool(self);
        job.future_waits = again && self.has_future; // else it has been told
        if (!again)
            return false;
    }
    job.policy = *self.policy;
    if (is_held(self))
        give_up(self);
    return false;
}

/// REQUIRES: both live until its first sleep; called in a handler of what the job threw.
task<> try_until_it_succeeds(job_slot& failed, running_job& in) {
    waiting_job job(failed, in);
    for (std::uint32_t attempts = 1;; ++attempts) {
        const bool slept = co_await taskpool::sleep_for(wait_after(attempts, job.policy->backoff, *current_job()));
        running_job& self = *current_job();
        assert(&self.in == &job.in && !is_held(self)); // I-RETRY-2
        if (slept || job.must_run()) {
            if (attempt_again(job, self, attempts))
                co_return;
            if (self.after == verdict::again)
                continue;
        } else {
            forget_verdict(self);
            self.earlier_attempts = attempts - 1;
        }
        if (self.after == verdict::none) // it was not tried: the failure before it stands
            set_verdict(self, job.policy, verdict::given_up);
        if (!job.future_waits && !report_dead_letter(job.slot, self, job.error)) {
            forget_verdict(self); // it is settled
            std::rethrow_exception(job.error);
        }
        count_failure(self);
        co_return;
    }
}

} // namespace

struct task_access {
    /// The job of a coroutine whose result nobody waits for.
    static coroutine_job& become_job(task<>&& coroutine) noexcept {
        const auto frame = std::exchange(coroutine.frame_, {});
        auto& promise = frame.promise();
        promise.drop(); // the future's reference
        return promise.become_job(frame, promise, false);
    }
};

void judge(const running_job& job, const std::shared_ptr<const retry>& policy) noexcept {
    if (job.after != verdict::none || !set_verdict(job, policy, verdict::again))
        return;
    if (job.earlier_attempts + 1 >= policy->max_attempts || job.joint != nullptr || stop_requested(job) ||
        is_held(job) || !is_worth_it(*policy))
        give_up(job);
}

bool judge_with_future(const running_job& job) noexcept {
    job.has_future = true;
    return judge_by_pool(job);
}

/// The job was to be tried again, and cannot be. Whether its future, if it has one, is told by the job's end.
static bool give_up_after_all(running_job& self) noexcept {
    give_up(self);
    if (self.has_future)
        count_failure(self);
    return self.has_future;
}

/// For a job that has thrown: makes it a coroutine if it is to be tried again, and runs that up to its first sleep.
/// False if it has failed for good, and somebody is to be told. REQUIRES: called in a handler of the exception.
static bool begin_again(job_slot& job, running_job& self) noexcept {
    if (job.ops->kind == job_kind::once || job.on_stop == posted || !judge_by_pool(self))
        return false;
    task<> coroutine;
    try {
        coroutine = try_until_it_succeeds(job, self); // not begun: the job is where it was
    } catch (const std::bad_alloc&) {
        return give_up_after_all(self);
    }
    job_extras* ended = nullptr; // of the attempt that failed
    bool held = false;           // after the verdict
    {
        const std::lock_guard lock(self.in.head_lock);
        ended = self.in.current_extras_locked();
        held = ended != nullptr && ended->holds > 0;
        if (ended != nullptr && !held)
            self.in.unlink_locked(*ended);
    }
    if (held)
        return give_up_after_all(self);
    if (ended != nullptr)
        ended->end(*ended);
    coroutine_job* start = &task_access::become_job(std::move(coroutine));
    try {
        coroutine_ops.run(&start, self);
        return true;
    } catch (...) { // it was asked to stop meanwhile, and has failed
        return false;
    }
}

std::uint32_t attempt(const running_job& job) noexcept { return job.earlier_attempts + 1; }

const job_ops* unpack(stored_job&& job, void* storage) { return stored_job_access::give(std::move(job), storage); }

/// The job has thrown. REQUIRES: called in a handler of that.
void worker::fail(job_slot& job, running_job& self) noexcept {
    if (begin_again(job, self))
        return;
    count_failure(self);
    if (self.after != verdict::late && !report_dead_letter(job, self, std::current_exception()))
        core.report_failure(core.describe(self.in), std::current_exception());
}

void check(const retry* policy) {
    const auto refuse = [](const char* why) { throw std::invalid_argument(std::string("taskpool::retry: ") + why); };
    if (policy == nullptr)
        refuse("there is none");
    const backoff& wait = policy->backoff;
    if (policy->max_attempts < 1)
        refuse("max_attempts is 0");
    if (wait.first < wait.first.zero() || wait.max < wait.first)
        refuse("backoff is not from 0 to its max");
    if (!(wait.factor >= 1))
        refuse("backoff.factor is less than 1");
    if (!(wait.jitter >= 0 && wait.jitter <= 1))
        refuse("backoff.jitter is not from 0 to 1");
    if (policy->then > given_up::pause)
        refuse("then is not one of its values");
}

} // namespace detail

stored_job::stored_job(stored_job&& other) noexcept { take(other); }

stored_job& stored_job::operator=(stored_job other) noexcept {
    clear();
    take(other);
    return *this;
}

stored_job::~stored_job() { clear(); }

void stored_job::take(stored_job& from) noexcept {
    ops_ = std::exchange(from.ops_, nullptr);
    if (ops_ != nullptr)
        detail::move_callable(*ops_, storage_, from.storage_);
}

void stored_job::clear() noexcept {
    const auto* const ops = std::exchange(ops_, nullptr);
    if (ops == nullptr || ops->destroy == nullptr)
        return;
    try {
        ops->destroy(storage_);
    } catch (...) { // NOLINT(bugprone-empty-catch): nobody is left to be told
    }
}

void stored_job::run(const detail::running_job& job) { ops_->run(storage_, job); }

} // namespace taskpool
