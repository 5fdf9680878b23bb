// SPDX-License-Identifier: Apache-2.0
// A mixed load (load.hpp) on real pools for as long as one likes, with every promise checked that can be seen from
// outside (ledger.hpp), the memory too.
//
//     taskpool_soak [--minutes N | --seconds N] [--seed N]
//
// It goes in rounds. Each has a pool of its own, with options drawn by chance, three producers that submit whatever can
// be submitted, a thread that meddles, and one of seven ways to end. A round that does not come to its end is a
// violation, too: a watchdog says what stands, and aborts.
//
// The last line is `N jobs, N faults, N violations`: jobs that pools accepted; faults made on purpose, that is what
// jobs threw and submits that were refused; promises that were broken. The exit status is 1 if there are any of these.
//
// A little longer than 400 lines, of which a third prints.
#if defined(__linux__)
#include <malloc.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "../sanitizers.hpp"
#include "load.hpp"

namespace taskpool::soak {
namespace {

using testing::sanitized;

constexpr auto longest_phase = sanitized ? 300s : 120s; // most take milliseconds; the machine may be busy
constexpr std::array ending_names = {"drain, then stop",        "close, then drain",    "stop in the middle",
                                     "two stops at once",       "drain_for, then stop", "destructor",
                                     "destroyed by its own job"};

// --- What is looked at from outside ----------------------------------------------------------------------------------

/// What the process has in memory, where the system tells; 0 elsewhere.
std::uint64_t resident_kib() {
    std::uint64_t resident = 0;
#if defined(__linux__)
    std::ifstream file("/proc/self/statm");
    std::uint64_t size = 0;
    file >> size >> resident;
    resident *= static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) / 1024;
#endif
    return resident;
}

/// Gives what is free back to the system, which the allocator does not always do by itself.
void trim_memory() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

void print(const char* what, const pool_stats& s) {
    std::fprintf(stderr,
                 "%s: accepted %llu finished %llu failed %llu discarded %llu rejected %llu; waiting %zu timers %zu "
                 "running %zu shared %zu barriers %zu active keys %zu ready %zu suspended %zu paused %zu limited %zu "
                 "threads %zu blocked %zu\n",
                 what, static_cast<unsigned long long>(s.accepted), static_cast<unsigned long long>(s.finished),
                 static_cast<unsigned long long>(s.failed), static_cast<unsigned long long>(s.discarded),
                 static_cast<unsigned long long>(s.rejected), s.waiting, s.timers, s.running, s.shared, s.barriers,
                 s.active_keys, s.ready_lanes, s.suspended_lanes, s.paused_keys, s.limited_keys, s.threads,
                 s.blocked_threads);
}

/// Says every 10 s how it goes, and aborts where a phase of a round takes too long.
class watchdog {
  public:
    watchdog() : thread_([this] { watch(); }) {}
    ~watchdog() {
        {
            const std::lock_guard lock(mutex_);
            over_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    watchdog(const watchdog&) = delete;
    watchdog& operator=(const watchdog&) = delete;

    /// `looks`: whether the round's pool may be asked for its figures.
    void enter(const round* of, const char* phase, bool looks = true) {
        const std::lock_guard lock(mutex_);
        round_ = of;
        phase_ = phase;
        looks_ = looks;
        since_ = steady::now();
    }
    /// The round is over.
    void add(const round& r) {
        const std::lock_guard lock(mutex_);
        round_ = nullptr;
        jobs_ += r.accepted.get();
        faults_ += r.threw.get() + r.refused.get();
        ++rounds_;
    }
    std::uint64_t jobs() const { return jobs_; }
    std::uint64_t faults() const { return faults_; }
    unsigned rounds() const { return rounds_; }

  private:
    void watch() {
        const auto begin = steady::now();
        auto next_line = begin + 10s;
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, 200ms, [this] { return over_; })) {
            const auto now = steady::now();
            if (round_ != nullptr && now - since_ > longest_phase)
                give_up();
            if (now < next_line)
                continue;
            next_line += 10s;
            const auto jobs = jobs_ + (round_ != nullptr ? round_->accepted.get() : 0);
            const auto faults = faults_ + (round_ != nullptr ? round_->threw.get() + round_->refused.get() : 0);
            std::printf("%5lld s: %llu jobs, %llu faults, %llu violations, %u rounds, %llu MiB\n",
                        static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(now - begin).count()),
                        static_cast<unsigned long long>(jobs), static_cast<unsigned long long>(faults),
                        static_cast<unsigned long long>(violations.load()), rounds_,
                        static_cast<unsigned long long>(resident_kib() / 1024));
            std::fflush(stdout);
        }
    }

    [[noreturn]] void give_up() {
        std::fprintf(stderr,
                     "violation: round %u (%s) hangs in: %s\n"
                     "tickets %lld, inside %lld, accepted %llu, refused %llu, began %llu, unrun %llu\n",
                     round_->number, ending_names[static_cast<std::size_t>(round_->how)], phase_,
                     static_cast<long long>(round_->tickets.get()), static_cast<long long>(round_->inside.get()),
                     static_cast<unsigned long long>(round_->accepted.get()),
                     static_cast<unsigned long long>(round_->refused.get()),
                     static_cast<unsigned long long>(round_->began.get()),
                     static_cast<unsigned long long>(round_->unrun.get()));
        std::fflush(stderr);
        if (looks_ && round_->pool) {
            print("the pool", round_->pool->stats());
            for (const auto& key : round_->pool->drain_for(0ms).keys)
                std::fprintf(stderr, "key with work: %s\n", key.c_str());
        }
        std::abort();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    // Under mutex_:
    bool over_ = false;
    const round* round_ = nullptr;
    const char* phase_ = "";
    bool looks_ = false;
    steady::time_point since_;
    std::uint64_t jobs_ = 0, faults_ = 0;
    unsigned rounds_ = 0;
    std::thread thread_;
};

// --- A round ---------------------------------------------------------------------------------------------------------

template <class T, std::size_t N>
T one_of(random_source& random, const std::array<T, N>& values) {
    return values[random() % N];
}

options draw_options(round& r) {
    auto& random = r.random;
    options how;
    how.threads = 1 + random() % 4;
    how.max_threads = how.threads + 4 + random() % 20;
    how.lane_capacity = one_of(random, std::array<std::size_t, 3>{3, 20, 100});
    how.pool_capacity = one_of(random, std::array<std::size_t, 3>{64, 2'000, 1U << 20});
    how.max_shared = 1 + random() % 4;
    how.when_full = one_of(random, std::array{overflow::block, overflow::block, overflow::block, overflow::reject,
                                              overflow::drop_oldest, overflow::keep_latest});
    how.ageing = one_of(random, std::array<std::chrono::milliseconds, 3>{0ms, 5ms, 1s});
    if (random() % 4 == 0)
        how.max_wait = 20ms;
    if (random() % 4 == 0)
        how.retry = retry{.max_attempts = 2, .backoff = {.first = 0ms}};
    how.autostart = random() % 4 != 0;

    /// Lives as long as the pool's core, in its handlers.
    struct lifetime {
        end_of_core& end;
        explicit lifetime(end_of_core& of) : end(of) {}
        ~lifetime() {
            const std::lock_guard lock(end.mutex);
            end.gone = true;
            end.changed.notify_all();
        }
    };
    const auto life = std::make_shared<lifetime>(r.core_end);
    how.on_failure = [&r, life](const failure&) { r.told_failed.add(); };
    how.on_discard = [&r, life](const discard& what) { report(r, what); };
    r.when_full = how.when_full;
    r.may_be_overloaded = how.max_wait.has_value();
    r.max_shared = how.max_shared;
    return how;
}

void make_keys(std::vector<std::unique_ptr<entity>>& keys, std::size_t count, const std::string& prefix) {
    for (std::size_t i = 0; i < count; ++i)
        keys.push_back(std::make_unique<entity>(prefix + std::to_string(i)));
}

void expect_equal(const char* what, std::uint64_t a, std::uint64_t b) {
    if (a != b)
        violation(what, {}, a, b);
}

std::uint64_t all_reported(const round& r) {
    std::uint64_t sum = 0;
    for (const auto& each : r.reported)
        sum += each.get();
    return sum;
}

/// The figures of a pool that has been drained. What is discarded is counted a moment before it is told of, and a key
/// whose jobs were cancelled lies in its queue until a worker comes by.
pool_stats settled_figures(const round& r) {
    const auto end = steady::now() + 20s;
    while (true) {
        const auto s = r.pool->stats();
        if ((s.ready_lanes == 0 && s.discarded == all_reported(r)) || steady::now() > end)
            return s;
        std::this_thread::yield();
    }
}

/// Of a pool in which nothing is left, and to which nobody submits.
void check_figures(const round& r) {
    const auto s = settled_figures(r);
    const auto before = violations.load();
    expect_equal("accepted is not finished and discarded", s.accepted, s.finished + s.discarded);
    expect_equal("jobs were discarded that nobody was told of", s.discarded, all_reported(r));
    expect_equal("failed jobs are not those that handlers and futures told of", s.failed, r.told_failed.get());
    expect_equal("cancelled jobs are not as many as cancel() said", r.cancelled.get(),
                 r.reported[static_cast<std::size_t>(discard_reason::cancelled)].get());
    if (!r.has_others) {
        expect_equal("not all jobs were counted as accepted", s.accepted, r.accepted.get());
        expect_equal("not all jobs were counted as finished", s.finished, r.began.get());
        expect_equal("not all refused submits were counted", s.rejected, r.refused.get());
    } else if (s.finished < r.began.get() || s.accepted < r.accepted.get() || s.rejected < r.refused.get()) {
        violation("there were more jobs than the pool counted", {}, s.finished, r.began.get());
    }
    expect_equal("jobs are left in an idle pool",
                 s.waiting + s.running + s.shared + s.barriers + s.active_keys + s.ready_lanes + s.suspended_lanes +
                     s.limited_keys + s.paused_keys,
                 0);
    if (violations.load() != before)
        print("the pool", s);
}

/// Of the tickets, when the pool has gone.
void check_tickets(const round& r) {
    expect_equal("tickets are left", static_cast<std::uint64_t>(r.tickets.get()), 0);
    expect_equal("jobs are left inside their keys", static_cast<std::uint64_t>(r.inside.get()), 0);
    const auto began_with_ticket = r.began.get() - r.others.get();
    expect_equal("jobs neither ran nor were discarded", r.accepted.get(), began_with_ticket + r.unrun.get());
    expect_equal("jobs were dropped that nobody was told of", r.unrun.get() - r.loose_unrun.get(),
                 all_reported(r) - r.loose_reported.get());
    if (r.loose_unrun.get() > r.loose_reported.get())
        violation("loose jobs were dropped that nobody was told of", {}, r.loose_unrun.get(), r.loose_reported.get());
    const double seconds = 0.02 + static_cast<double>(r.limited_last_start.get()) * 1e-9; // see rate.hpp
    if (static_cast<double>(r.limited.started.get()) > limit_of_limited.burst + 1 + limit_of_limited.jobs * seconds)
        violation("a limited key ran too often", r.limited.name, r.limited.started.get());
}

/// Waiting jobs for a destructor. They do not call the pool, which is undefined then.
void fill(round& r) {
    constexpr std::array kinds = {work_kind::plain, work_kind::yields, work_kind::asks_for_stop, work_kind::blocks,
                                  work_kind::holds};
    for (std::uint32_t i = 0; i < 400; ++i) {
        entity& e = *r.hot[i % hot_keys];
        work job{ticket(r, e, no_stream, 0, 0, one_of(r.random, kinds))};
        job.t.must_run = i % 8 == 0;
        const job_options how{.on_stop = job.t.must_run ? stop_action::run : stop_action::discard};
        offer(r, std::move(job), patience::none, false,
              [&](work&& j) { return r.pool->try_submit(e.name, std::move(j), how); });
    }
}

void destroy_inside_a_job(round& r) {
    const auto job = [&r] {
        r.is_submitted.wait(false); // a destructor must not race with other calls
        r.pool.reset();
        r.has_destroyed = true;
        r.has_destroyed.notify_all();
    };
    while (!r.pool->submit("~last", job)) // overloaded, or full
        std::this_thread::yield();
    r.is_submitted = true;
    r.is_submitted.notify_all();
    r.has_destroyed.wait(false);
}

/// Refuses what comes, in one of several ways, and has nothing left at its end.
void end_pool(round& r, watchdog& dog, const std::function<void()>& join) {
    task_pool& pool = *r.pool;
    const auto close = [&] { r.closing = true; };
    switch (r.how) {
    case ending::drain_then_stop:
        r.ends = true;
        join();
        dog.enter(&r, "drain");
        pool.drain();
        if (!r.has_others) // else they go on
            check_figures(r);
        close();
        dog.enter(&r, "stop");
        pool.stop();
        break;
    case ending::close_then_drain:
        close();
        pool.close();
        r.ends = true;
        join();
        dog.enter(&r, "drain");
        pool.drain();
        break;
    case ending::stop_in_the_middle:
        close();
        dog.enter(&r, "stop");
        pool.stop();
        r.ends = true;
        join();
        break;
    case ending::two_stops_at_once: {
        close();
        dog.enter(&r, "two stops");
        std::thread other([&] { pool.stop(); });
        const auto report = pool.stop();
        other.join();
        expect_equal("a second stop() reports something else", report.discarded, pool.stop().discarded);
        r.ends = true;
        join();
        break;
    }
    case ending::drain_for_then_stop:
        r.ends = true;
        join();
        dog.enter(&r, "drain_for");
        while (!pool.drain_for(5ms)) {
        }
        close();
        dog.enter(&r, "stop");
        pool.stop();
        break;
    case ending::destructor:
    case ending::destroyed_by_its_own_job:
    case ending::count:
        r.ends = true;
        join();
        dog.enter(&r, "drain");
        pool.drain();
        fill(r);
        close();
        dog.enter(&r, "destructor", false);
        if (r.how == ending::destructor)
            r.pool.reset();
        else
            destroy_inside_a_job(r);
        return;
    }
    check_figures(r);
    dog.enter(&r, "destructor", false);
    r.pool.reset();
}

void play(round& r, steady::duration length, watchdog& dog) {
    make_keys(r.hot, hot_keys, "hot-");
    make_keys(r.sharing, shared_keys, "shared-");
    make_keys(r.passing, passing_keys, "passing-");
    make_keys(r.loose, loose_keys, "~loose-");
    options how = draw_options(r);
    const bool starts_late = !how.autostart;
    r.pool = std::make_unique<task_pool>(std::move(how));
    r.limited_since = steady::now();
    r.pool->limit(r.limited.name, limit_of_limited);
    r.survivor = r.pool->lane(r.outlives.name);
    dog.enter(&r, "load");

    std::atomic<bool> over = false;
    std::thread releaser([&] { release_holds(r, over); });
    std::vector<std::thread> threads;
    for (std::uint8_t i = 0; i < producers; ++i)
        threads.emplace_back([&r, i] { producer(r, i).run(); });
    threads.emplace_back([&r] { meddler(r).run(); });
    if (starts_late) {
        std::this_thread::sleep_for(10ms);
        r.pool->start();
    }
    std::this_thread::sleep_for(length);
    dog.enter(&r, "the end of the load");
    end_pool(r, dog, [&] {
        for (auto& each : threads)
            each.join();
    });

    dog.enter(&r, "the end of the core", false);
    if (offer(r, work{ticket(r, r.outlives, no_stream, 0)}, patience::waits, false,
              [&](work&& job) { return r.survivor->submit(std::move(job)); }))
        violation("a job was accepted after the pool's end");
    r.survivor.reset();
    {
        std::unique_lock lock(r.core_end.mutex);
        r.core_end.changed.wait(lock, [&] { return r.core_end.gone; });
    }
    over = true;
    releaser.join();
    check_tickets(r);
}

// --- All rounds ------------------------------------------------------------------------------------------------------

// After each round all that it had is freed, and given back to the system. What stays is what the allocator keeps in
// pieces, which settles in the first rounds and depends on how threads meet: some MiB. In 30 minutes of 50,000 jobs a
// second this limit is passed by a loss of a fifth of a byte a job, or of 10 KiB a round.
constexpr std::uint64_t most_growth_kib = 16 * 1024;
constexpr unsigned warm_up_rounds = 7; // each way to end once

int run(steady::duration time, std::uint32_t seed) {
    std::printf("soak: %lld s, seed %u\n",
                static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(time).count()), seed);
    std::fflush(stdout);
    const auto end = steady::now() + time;
    const auto length = std::min<steady::duration>(1s, time / 16);
    std::uint64_t settled = 0;
    std::uint64_t most = 0;
    watchdog dog;
    for (unsigned number = 0; steady::now() < end; ++number) {
        round r;
        r.number = seed + number;
        r.random.seed(r.number);
        r.how = static_cast<ending>(number % static_cast<unsigned>(ending::count));
        r.has_others = r.random() % 2 == 0;
        play(r, length, dog);
        dog.add(r);
        trim_memory();
        const auto resident = resident_kib();
        if (number < warm_up_rounds)
            settled = std::max(settled, resident);
        else
            most = std::max(most, resident);
        // A sanitizer keeps what was freed, and books of its own.
        if (!sanitized && number >= warm_up_rounds && resident > settled + most_growth_kib)
            violation("memory grows", {}, settled, resident);
    }
    std::printf("%u rounds; resident after one, in KiB: %llu at most in the first %u, %llu at most later\n",
                dog.rounds(), static_cast<unsigned long long>(settled), warm_up_rounds,
                static_cast<unsigned long long>(most));
    std::printf("%llu jobs, %llu faults, %llu violations\n", static_cast<unsigned long long>(dog.jobs()),
                static_cast<unsigned long long>(dog.faults()), static_cast<unsigned long long>(violations.load()));
    return violations.load() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace
} // namespace taskpool::soak

int main(int argc, char** argv) {
    double seconds = 60;
    auto seed = static_cast<std::uint32_t>(std::random_device{}());
    for (int i = 1; i + 1 < argc; i += 2) {
        char* end = nullptr;
        const double value = std::strtod(argv[i + 1], &end);
        const bool good = end != argv[i + 1] && *end == '\0' && value >= 0;
        if (good && std::strcmp(argv[i], "--seconds") == 0)
            seconds = value;
        else if (good && std::strcmp(argv[i], "--minutes") == 0)
            seconds = value * 60;
        else if (good && std::strcmp(argv[i], "--seed") == 0)
            seed = static_cast<std::uint32_t>(value);
        else
            argc = 0; // says how
    }
    if (argc % 2 == 0) {
        std::fprintf(stderr, "usage: taskpool_soak [--minutes N | --seconds N] [--seed N]\n");
        return 2;
    }
    return taskpool::soak::run(
        std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds)), seed);
}
