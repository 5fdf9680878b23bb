// SPDX-License-Identifier: Apache-2.0
#include "retry.hpp"

#include <cmath>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include <taskpool/retry.hpp>
#include <taskpool/task.hpp>

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

/// Whether the job is to be tried again, by the pool's policy if nothing has been decided. REQUIRES: as judge().
bool is_again(const running_job& job) noexcept {
    if (job.after == verdict::none && job.core.settings.retry)
        judge(job, *job.core.settings.retry);
    return job.after == verdict::again;
}

/// How long the key waits after so many attempts. Chance is a hash (splitmix64, Steele et al. 2014) of what tells this
/// wait from others, so a pool for tests repeats it.
std::chrono::nanoseconds wait_after(std::uint32_t attempts, const backoff& how, const running_job& job) {
    using nanoseconds = std::chrono::duration<double, std::nano>;
    const auto& maker = job.core.maker;
    auto h = maker.keys.hash(maker.functions.get(), maker.key_of(job.in)) + job.number * 0x9E3779B97F4A7C15U + attempts;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
    const double chance = static_cast<double>((h ^ (h >> 31)) >> 11) * 0x1p-53;
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
};

namespace {

/// Gives a job that has failed for the last time to its policy's handler, if it has one.
bool hand_over(job_slot& job, const running_job& self, const std::exception_ptr& error) noexcept {
    if (self.after != verdict::given_up || !self.policy->handler)
        return false;
    try {
        const auto handler = self.policy->handler; // the policy may be a part of the job
        const auto key = self.core.describe(self.in);
        handler({key, error, self.earlier_attempts + 1, self.has_future ? stored_job() : stored_job_access::take(job)});
    } catch (...) { // NOLINT(bugprone-empty-catch): a handler must not throw
    }
    return true;
}

/// A job between two attempts.
struct waiting_job {
    pool_core& core;
    lane& in;
    std::exception_ptr error;
    const retry* policy;
    bool has_future;
    job_slot slot;

    waiting_job(job_slot& job, const running_job& threw) noexcept
        : core(threw.core), in(threw.in), error(std::current_exception()), policy(threw.policy),
          has_future(threw.has_future) {
        relocate(slot, job);
        job.ops = &no_job;
    }
    waiting_job(waiting_job&& other) noexcept
        : core(other.core), in(other.in), error(std::move(other.error)), policy(other.policy),
          has_future(other.has_future) {
        relocate(slot, other.slot);
        other.slot.ops = &no_job;
    }
    waiting_job& operator=(waiting_job&&) = delete;
    ~waiting_job() { core.destroy_job(in, slot); }
};

task<> try_until_it_succeeds(waiting_job given) {
    waiting_job job(std::move(given)); // ends with the body: parameters end with the frame
    for (std::uint32_t attempts = 1;; ++attempts) {
        const bool slept = co_await taskpool::sleep_for(wait_after(attempts, job.policy->backoff, *current_job()));
        running_job& self = *current_job();
        if (slept || (job.core.is_stopping() && job.slot.on_stop == stop_action::run)) {
            job.core.retries.fetch_add(1, std::memory_order_relaxed); // a figure by itself
            self.earlier_attempts = attempts;
            try {
                job.slot.ops->run(job.slot.storage, self);
                if (!job.core.destroy_job(job.in, job.slot))
                    count_failure(self);
                job.slot.ops = &no_job;
                co_return;
            } catch (...) {
                job.error = std::current_exception();
                if (is_again(self)) {
                    job.policy = self.policy;
                    job.has_future = self.has_future;
                    continue;
                }
            }
        } else {
            self.after = verdict::given_up;
            self.policy = job.policy;
            self.has_future = job.has_future;
            self.earlier_attempts = attempts - 1;
            if (job.has_future) {
                count_failure(self);
                co_return; // the future has the error when the job is destroyed
            }
        }
        if (hand_over(job.slot, self, job.error)) {
            count_failure(self);
            co_return;
        }
        self.after = verdict::none; // settled; and the policy may end with the job
        std::rethrow_exception(job.error);
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

void judge(const running_job& job, const retry& policy) noexcept {
    if (job.after != verdict::none)
        return;
    job.policy = &policy;
    job.after = verdict::given_up;
    if (stop_requested(job))
        return;
    if (job.earlier_attempts + 1 < policy.max_attempts && !is_held(job) && is_worth_it(policy))
        job.after = verdict::again;
    else if (policy.then == given_up::pause)
        job.core.pause(job.in);
}

bool is_retried(const running_job& job) noexcept {
    job.has_future = true;
    return is_again(job);
}

bool begin_again(job_slot& job, running_job& self) noexcept {
    if (job.ops->runs_once || job.on_stop == posted || !is_again(self))
        return false;
    try {
        job_extras* ended = nullptr; // of the attempt that failed: nothing holds them
        {
            const std::lock_guard lock(self.in.head_lock);
            ended = self.in.current_extras_locked();
            if (ended != nullptr)
                self.in.unlink_locked(*ended);
        }
        if (ended != nullptr)
            ended->end(*ended);
        make_resumption(job, task_access::become_job(try_until_it_succeeds(waiting_job(job, self))), job.submitted);
        job.ops->run(job.storage, self);
        return true;
    } catch (...) { // no memory, or it was asked to stop meanwhile
        return false;
    }
}

bool report_dead_letter(job_slot& job, const running_job& self) noexcept {
    return hand_over(job, self, std::current_exception());
}

std::uint32_t attempt(const running_job& job) noexcept { return job.earlier_attempts + 1; }

const retry& checked_policy(const retry& policy) {
    const auto refuse = [](const char* why) { throw std::invalid_argument(std::string("taskpool::retry: ") + why); };
    const backoff& wait = policy.backoff;
    if (policy.max_attempts < 1)
        refuse("max_attempts is 0");
    if (wait.first < wait.first.zero() || wait.max < wait.first)
        refuse("backoff is not from 0 to its max");
    if (!(wait.factor >= 1))
        refuse("backoff.factor is less than 1");
    if (!(wait.jitter >= 0 && wait.jitter <= 1))
        refuse("backoff.jitter is not from 0 to 1");
    if (policy.then > given_up::pause)
        refuse("then is not one of its values");
    return policy;
}

} // namespace detail

stored_job::stored_job(stored_job&& other) noexcept : ops_(std::exchange(other.ops_, nullptr)) {
    if (ops_ != nullptr)
        detail::move_callable(*ops_, storage_, other.storage_);
}

stored_job& stored_job::operator=(stored_job other) noexcept {
    this->~stored_job();
    return *new (this) stored_job(std::move(other));
}

stored_job::~stored_job() {
    if (ops_ == nullptr || ops_->destroy == nullptr)
        return;
    try {
        ops_->destroy(storage_);
    } catch (...) { // NOLINT(bugprone-empty-catch): nobody is left to be told
    }
}

void stored_job::run(const detail::running_job& job) { ops_->run(storage_, job); }

} // namespace taskpool
