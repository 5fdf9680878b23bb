// SPDX-License-Identifier: Apache-2.0
// See manual.hpp for what a pool without threads does otherwise.
#include "manual.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <taskpool/testing.hpp>

#include "barrier.hpp"
#include "pool_core.hpp"

namespace taskpool::detail {

namespace {

// Moves of the clock in one wait without a deadline, before it is taken for one that never ends: something that looks
// every tick has looked for a minute and a half then.
constexpr std::size_t most_moves = 100'000;
constexpr auto sweep_interval = std::chrono::seconds(1); // of the pool's time (G7)

/// What runs on the calling thread meanwhile is no part of the job that waits there.
class outside_jobs {
  public:
    outside_jobs() noexcept : job_(exchange_current_job(nullptr)) {}
    ~outside_jobs() { exchange_current_job(job_); }
    outside_jobs(const outside_jobs&) = delete;
    outside_jobs& operator=(const outside_jobs&) = delete;

  private:
    running_job* const job_;
};

} // namespace

std::shared_ptr<pool_core> make_core(const manual_mode& mode, options settings, const key_type& keys,
                                     std::shared_ptr<const void> functions) {
    settings.threads = 1; // hence one ready queue
    if (!settings.clock)
        settings.clock = std::make_shared<manual_clock>();
    auto core = std::make_shared<pool_core>(std::move(settings), keys, std::move(functions), &mode);
    if (core->settings.autostart)
        core->start();
    return core;
}

tick tick_clock::next_stamp() noexcept {
    if (!seeded_) // relaxed: only one thread is here
        return tick_.fetch_add(1, std::memory_order_relaxed) + 1;
    auto r = random_ += 0x9E3779B97F4A7C15U; // SplitMix64, Steele et al. 2014
    r = (r ^ (r >> 30)) * 0xBF58476D1CE4E5B9U;
    r = (r ^ (r >> 27)) * 0x94D049BB133111EBU;
    return static_cast<tick>(r >> 51); // 13 bits: what measures time by ticks sees some seconds go by at most
}

tick manual_driver::now() const noexcept {
    return static_cast<tick>(core_.time.now().time_since_epoch() / std::chrono::milliseconds(1));
}

// --- One job ---------------------------------------------------------------------------------------------------------

bool manual_driver::step() {
    const auto alive = core_.shared_from_this(); // a job may destroy the pool
    return step(nullptr);
}

bool manual_driver::step(const lane* wanted) {
    if (core_.is_forked() || !core_.started_) // started_: there is one thread
        return false;
    worker& w = worker_of_this_level();
    const outside_jobs here;
    settle();
    const lane* const first = level_ > 0 ? wanted : nullptr;
    for (bool doubts = core_.has_barriers() || core_.has_joint_jobs();;) {
        lane* const l = take(first);
        if (l == nullptr) {
            if (!doubts)
                return false;
            doubts = doubt();
            continue;
        }
        ++level_;
        core_.workers_at.add_working(1);
        const bool ran = w.serve_once(*l, l == first);
        core_.workers_at.add_working(-1);
        if (--level_ == 0)
            end_abandoned();
        if (ran)
            return true;
        settle(); // it may have been what a barrier waited for
    }
}

/// `wanted`, where it is ready, or the lane whose turn it is; null when none is ready.
lane* manual_driver::take(const lane* wanted) {
    auto& queue = core_.queues[0];
    if (wanted == nullptr)
        return queue.pop();
    passed_over_.reserve(queue.state().lanes); // what follows must not fail
    lane* found = nullptr;
    while (const auto age = queue.front()) {
        lane* const l = queue.pop();
        if (l == wanted)
            found = l;
        else
            passed_over_.push_back({l, *age});
    }
    for (const auto& other : passed_over_)
        queue.push(*other.l, other.age, now());
    passed_over_.clear();
    return found != nullptr ? found : queue.pop();
}

worker& manual_driver::worker_of_this_level() {
    const std::lock_guard lock(core_.workers_mutex_);
    if (level_ == core_.workers_.size())
        core_.workers_.push_back(std::make_unique<worker>(core_, static_cast<unsigned>(level_)));
    return *core_.workers_[level_];
}

template <class F>
void manual_driver::as_keeper(F f) noexcept {
    if (settling_)
        return; // a handler, or a destructor, steps
    settling_ = true;
    f();
    settling_ = false;
    if (level_ == 0)
        end_abandoned();
}

/// What the keeper does in a tick.
void manual_driver::settle() noexcept {
    as_keeper([this] {
        if (const auto now = core_.time.now(); now - swept_ >= sweep_interval) {
            swept_ = now;
            core_.sweep(core_.shards.size());
        }
        core_.do_what_is_due();
    });
}

/// Nothing is ready: perhaps because something waits for what comes after it, and never will be. One of that kind is
/// discarded. Whether to go on looking for what can run: not where there was none, or a handler has submitted
/// something, so that this comes to an end.
bool manual_driver::doubt() {
    settle(); // what is behind a barrier that was discarded goes on
    if (core_.any_ready())
        return true;
    const auto before = core_.stats();
    as_keeper([this] {
        core_.doubt_barriers();
        core_.barrier->conduct();
        core_.barrier->conduct();
        if (!core_.any_ready())
            core_.discard_stuck_joint_job();
    });
    const auto after = core_.stats();
    return after.discarded != before.discarded && after.accepted == before.accepted;
}

/// Ends a pool that was destroyed by one of its own jobs, or by what a discarded one destroyed. REQUIRES: no job runs;
/// the caller keeps the core.
void manual_driver::end_abandoned() noexcept {
    if (const auto last = std::exchange(core_.self_, nullptr))
        core_.destroy();
}

// --- Many jobs, and time ---------------------------------------------------------------------------------------------

std::size_t manual_driver::run_until_idle() {
    const auto alive = core_.shared_from_this();
    std::size_t jobs = 0;
    while (step(nullptr))
        ++jobs;
    return jobs;
}

std::size_t manual_driver::run_until(clock::time_point time) {
    const auto alive = core_.shared_from_this();
    std::size_t jobs = run_until_idle();
    while (move_clock(time))
        jobs += run_until_idle();
    core_.settings.clock->advance_to(time);
    const outside_jobs here;
    settle();
    return jobs;
}

/// Moves the clock to where the next timer may be due; false when there is none up to `last`.
bool manual_driver::move_clock(const std::optional<clock::time_point>& last) {
    const auto next = core_.started_ ? core_.time.next() : std::nullopt;
    if (!next || (last && *next > *last))
        return false;
    core_.settings.clock->advance_to(*next);
    const outside_jobs here;
    settle();
    return true;
}

manual_driver::waiting::waiting(manual_driver& driver, const patience& how_long, const lane* wanted)
    : driver_(driver), alive_(driver.core_.shared_from_this()), wanted_(wanted) {
    if (driver.settling_) // what it waits for may be in the middle of it
        driver.give_up("it is of a handler, or a destructor, that a discarded job calls");
    if (how_long.kind != patience::until_deadline)
        return;
    clock::duration time = std::chrono::milliseconds(how_long.milliseconds);
    if (how_long.milliseconds == std::numeric_limits<std::uint32_t>::max())
        time = how_long.deadline - clock::now(); // weeks: it comes to no microsecond
    const auto now = driver.core_.time.now();
    deadline_ = time < clock::time_point::max() - now ? now + time : clock::time_point::max();
}

bool manual_driver::waiting::let_time_pass() {
    if (!deadline_ && moves_++ == most_moves)
        driver_.give_up("a hundred thousand timers have come due in one wait");
    if (driver_.move_clock(deadline_))
        return true;
    if (!deadline_)
        driver_.give_up(driver_.core_.started_ ? "nothing is left to run, and no timer to wait for"
                                               : "the pool has not been started");
    driver_.core_.settings.clock->advance_to(*deadline_);
    return false;
}

void manual_driver::give_up(const char* why) const {
    std::vector<std::string> keys;
    struct visit {
        pool_core& core;
        std::vector<std::string>& keys;
    } to{core_, keys};
    core_.visit_active_keys({[](void* self, const void* key, std::uint64_t, std::uint64_t) {
                                 auto& v = *static_cast<visit*>(self);
                                 v.keys.push_back(v.core.describe(key));
                             },
                             &to});
    std::sort(keys.begin(), keys.end());
    std::string text = std::string("the wait would never end: ") + why;
    if (level_ > 0)
        text += "; a job that waits runs others on its own stack, so those below it cannot go on before it";
    for (const auto& key : keys)
        text += (&key == keys.data() ? "; these keys have work: \"" : ", \"") + key.substr(0, 200) + "\"";
    throw deadlock_error(text, std::move(keys));
}

manual_driver::stop_scope::stop_scope(manual_driver* driver) : driver_(driver) {
    if (driver_ == nullptr)
        return;
    if (driver_->in_stop_)
        throw deadlock_error("stop() inside a stop() of the same pool, which waits for its end", {});
    driver_->in_stop_ = true;
}

manual_driver::stop_scope::~stop_scope() {
    if (driver_ != nullptr)
        driver_->in_stop_ = false;
}

// --- What testing.hpp calls ------------------------------------------------------------------------------------------

bool step(pool_core& core) { return core.manual->step(); }
std::size_t run_until_idle(pool_core& core) { return core.manual->run_until_idle(); }
std::size_t run_until(pool_core& core, clock::time_point time) { return core.manual->run_until(time); }
manual_clock& clock_of(pool_core& core) noexcept { return *core.settings.clock; }

std::optional<std::uint64_t> seed_to_replay() {
    const char* const text = std::getenv("TASKPOOL_SEED");
    if (text == nullptr || *text == '\0')
        return std::nullopt;
    std::uint64_t seed = 0;
    const char* const end = text + std::strlen(text);
    if (const auto [stop, error] = std::from_chars(text, end, seed); error != std::errc() || stop != end)
        throw std::invalid_argument("taskpool: TASKPOOL_SEED is not a number of 64 bits: " + std::string(text));
    return seed;
}

void report_seed(std::uint64_t seed) noexcept {
    std::fprintf(stderr, "taskpool: failed with seed %llu; replay with TASKPOOL_SEED=%llu\n",
                 static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
}

} // namespace taskpool::detail
