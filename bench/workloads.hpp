// SPDX-License-Identifier: Apache-2.0
// The workloads (docs/performance.md says what each is for), over any peer:
//
//     struct some_peer {
//         static constexpr std::string_view name = "...";
//         static constexpr std::uint32_t max_keys = ...;           // how many it can have in a few gigabytes
//         explicit some_peer(unsigned workers, bool held);         // held: no job runs yet (`memory`)
//         void release();                                          // from now on they do
//         template <class Job> void submit(std::string_view key, Job job);   // from any thread, jobs included
//         static std::string version();                            // where there is one
//     };
//     BENCH_MAIN(some_peer)
//
// One that knows jobs of two keys has submit_together(key, key, job), too. A peer whose submit takes a handle, which
// lane(key) makes, names its type `handle`. A peer is never destroyed: the program ends when the last job has run.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <thread>
#include <type_traits>

#include "harness.hpp"

namespace bench {

inline constexpr std::uint32_t any_number_of_keys = std::numeric_limits<std::uint32_t>::max();

template <class Peer>
concept has_handles = requires { typename Peer::handle; };

/// The keys of a workload as the peer takes them: as texts, or as handles that were made beforehand.
template <class Peer>
class named_keys {
  public:
    named_keys(Peer& peer, std::uint32_t count) : peer_(peer) {
        if constexpr (has_handles<Peer>) {
            for (std::uint32_t key = 0; key < count; ++key)
                handles_.push_back(peer.lane(key_text(key)));
        }
    }
    template <class Job>
    void submit(std::uint32_t key, Job job) {
        if constexpr (has_handles<Peer>)
            peer_.submit(handles_[key], job);
        else
            peer_.submit(key_text(key), job);
    }

  private:
    struct none {};
    template <class P>
    struct handle_of {
        using type = none;
    };
    template <has_handles P>
    struct handle_of<P> {
        using type = typename P::handle;
    };
    Peer& peer_;
    std::vector<typename handle_of<Peer>::type> handles_;
};

/// Measures from its making to stop().
class stopwatch {
  public:
    double stop(report& result) {
        const double wall = seconds_of(clock::now() - begin_);
        result.took(wall, usage::now().cpu_seconds - before_.cpu_seconds);
        return wall;
    }

  private:
    usage before_ = usage::now();
    clock::time_point begin_ = clock::now();
};

// --- Throughput: hot1, spread, many, contended1, contended, churn, work ---------------------------------------------

struct computing_job : counting_job {
    void operator()() const noexcept {
        computation::run();
        counting_job::operator()();
    }
};
static_assert(sizeof(computing_job) == 16);

/// One producer's part: `jobs` jobs, the keys from `drawn` where there are any, else in turn.
template <class Job, class Peer>
void produce(named_keys<Peer>& keys, ledger& book, std::vector<std::uint32_t>& sent, const settings& how,
             const std::vector<std::uint32_t>& drawn, unsigned producer) {
    const auto slot = book.slot(producer);
    const auto jobs = how.what.jobs / how.what.producers;
    std::size_t at = drawn.size() / how.what.producers * producer;
    std::uint32_t key = 0;
    for (std::uint64_t i = 0; i < jobs; ++i) {
        if (!drawn.empty()) {
            key = drawn[at];
            at = at + 1 == drawn.size() ? 0 : at + 1;
        }
        keys.submit(key, Job{book.of(key), slot, sent[key]++});
        if (drawn.empty())
            key = key + 1 == how.what.keys ? 0 : key + 1;
    }
}

/// How many jobs each key is to run, of what each producer has sent.
inline std::vector<std::uint32_t> expected(const std::vector<std::vector<std::uint32_t>>& sent) {
    auto sum = sent.front();
    for (std::size_t p = 1; p < sent.size(); ++p)
        std::transform(sum.begin(), sum.end(), sent[p].begin(), sum.begin(), std::plus());
    return sum;
}

template <class Job, class Peer>
void run_throughput(const settings& how, report& result) {
    const auto& what = how.what;
    ledger book(what.keys, what.producers);
    std::vector<std::vector<std::uint32_t>> sent(what.producers, std::vector<std::uint32_t>(what.keys));
    std::vector<std::uint32_t> drawn;
    if (what.keys_come != order::in_turn)
        drawn = draw_keys(what, std::size_t{1} << 18);
    auto& peer = *new Peer(how.workers, false);
    named_keys<Peer> keys(peer, what.keys);

    double producing = 0; // CPU time of the producer, where there is one
    stopwatch watch;
    if (what.producers == 1) {
        const double before = usage::cpu_of_this_thread();
        produce<Job>(keys, book, sent[0], how, drawn, 0);
        producing = usage::cpu_of_this_thread() - before;
    } else {
        std::vector<std::jthread> producers;
        for (unsigned p = 0; p < what.producers; ++p)
            producers.emplace_back([&, p] { produce<Job>(keys, book, sent[p], how, drawn, p); });
    }
    book.wait(expected(sent), how.patience);
    const double wall = watch.stop(result);
    const auto jobs = what.jobs / what.producers * what.producers;
    result.metric("mjobs_s", static_cast<double>(jobs) / wall / 1e6);
    if constexpr (std::is_same_v<Job, computing_job>) {
        const double useful = static_cast<double>(jobs) * computation::microseconds() / 1e6;
        result.metric("useful_percent", 100 * useful / (how.workers * wall - producing));
    }
    result.verify(jobs, book.ran());
}

// --- chain ----------------------------------------------------------------------------------------------------------

template <class Peer>
struct chain {
    named_keys<Peer>& keys;
    std::uint32_t jobs; // of each key
    std::vector<counter*> counters;
};

/// Submits its successor to its own key.
template <class Peer>
struct chained_job {
    chain<Peer>* of;
    std::uint32_t key;
    std::uint32_t number;
    void operator()() const {
        ledger::record(of->counters[key], 0, number);
        if (number + 1 < of->jobs)
            of->keys.submit(key, chained_job{of, key, number + 1});
    }
};

template <class Peer>
void run_chain(const settings& how, report& result) {
    const auto& what = how.what;
    ledger book(what.keys, 1);
    auto& peer = *new Peer(how.workers, false);
    auto& keys = *new named_keys<Peer>(peer, what.keys);
    auto& all = *new chain<Peer>{keys, static_cast<std::uint32_t>(what.jobs / what.keys), {}};
    for (std::uint32_t key = 0; key < what.keys; ++key)
        all.counters.push_back(book.of(key));
    stopwatch watch;
    for (std::uint32_t key = 0; key < what.keys; ++key)
        keys.submit(key, chained_job<Peer>{&all, key, 0});
    book.wait(std::vector<std::uint32_t>(what.keys, all.jobs), how.patience);
    const double wall = watch.stop(result);
    const auto jobs = std::uint64_t{all.jobs} * what.keys;
    result.metric("mjobs_s", static_cast<double>(jobs) / wall / 1e6);
    result.verify(jobs, book.ran());
}

// --- Latency: idle, head-of-line ------------------------------------------------------------------------------------

struct samples {
    ledger book;
    std::uint32_t keys;
    std::vector<clock::time_point> sent;
    std::vector<std::int64_t> taken;

    samples(std::uint32_t how_many_keys, std::size_t jobs)
        : book(how_many_keys, 1), keys(how_many_keys), sent(jobs), taken(jobs) {}
    std::vector<std::uint32_t> expected() const {
        std::vector<std::uint32_t> all(keys);
        for (std::size_t i = 0; i < sent.size(); ++i)
            ++all[i % keys];
        return all;
    }
};

/// Notes how long it took from its submit to its start.
struct timed_job {
    samples* of;
    std::uint64_t index;
    void operator()() const noexcept {
        const auto late = clock::now() - of->sent[index];
        of->taken[index] = std::chrono::duration_cast<std::chrono::nanoseconds>(late).count();
        ledger::record(of->book.of(index % of->keys), 0, static_cast<std::uint32_t>(index / of->keys));
    }
};

/// Sends a job each `period`, to the keys from `first` on in turn.
template <class Peer>
void send_timed(named_keys<Peer>& keys, std::uint32_t first, samples& all, clock::duration period) {
    auto next = clock::now();
    for (std::size_t i = 0; i < all.sent.size(); ++i) {
        sleep_until(next += period);
        all.sent[i] = clock::now();
        keys.submit(first + static_cast<std::uint32_t>(i % all.keys), timed_job{&all, i});
    }
}

template <class Peer>
void run_idle(const settings& how, report& result) {
    auto& all = *new samples(1, how.what.jobs);
    auto& peer = *new Peer(how.workers, false);
    named_keys<Peer> keys(peer, 1);
    stopwatch watch;
    send_timed(keys, 0, all, std::chrono::milliseconds(1));
    all.book.wait(all.expected(), how.patience);
    watch.stop(result);
    result.latencies(all.taken);
    result.verify(all.sent.size(), all.book.ran());
}

/// The key that always sleeps: each of its jobs submits the next.
template <class Peer>
struct sleeper {
    named_keys<Peer>& keys;
    ledger book{1, 1};
    std::chrono::milliseconds sleep;
    std::atomic<bool> stop{false};
    std::atomic<bool> stopped{false};
};

template <class Peer>
struct sleeping_job {
    sleeper<Peer>* of;
    std::uint64_t number;
    void operator()() const {
        std::this_thread::sleep_for(of->sleep);
        ledger::record(of->book.of(0), 0, static_cast<std::uint32_t>(number));
        if (of->stop.load())
            of->stopped.store(true);
        else
            of->keys.submit(0, sleeping_job{of, number + 1});
    }
};

template <class Peer>
void run_head_of_line(const settings& how, report& result) {
    auto& all = *new samples(how.what.keys - 1, how.what.jobs);
    auto& peer = *new Peer(how.workers, false);
    auto& keys = *new named_keys<Peer>(peer, how.what.keys);
    auto& asleep = *new sleeper<Peer>{.keys = keys, .sleep = how.what.sleep};
    stopwatch watch;
    keys.submit(0, sleeping_job<Peer>{&asleep, 0});
    send_timed(keys, 1, all, std::chrono::microseconds(100));
    all.book.wait(all.expected(), how.patience);
    watch.stop(result);
    asleep.stop.store(true);
    for (int i = 0; i < 10'000 && !asleep.stopped.load(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    result.latencies(all.taken);
    result.verify(all.sent.size(), asleep.stopped.load() ? all.book.ran() : 0);
}

// --- blocking -------------------------------------------------------------------------------------------------------

struct blocking_job : counting_job {
    static inline std::chrono::milliseconds sleep{};
    void operator()() const {
        std::this_thread::sleep_for(sleep);
        counting_job::operator()();
    }
};

template <class Peer>
void run_blocking(const settings& how, report& result) {
    const auto jobs = static_cast<std::uint32_t>(how.what.jobs);
    blocking_job::sleep = how.what.sleep;
    ledger book(jobs, 1);
    auto& peer = *new Peer(how.workers, false);
    named_keys<Peer> keys(peer, jobs);
    stopwatch watch;
    for (std::uint32_t key = 0; key < jobs; ++key)
        keys.submit(key, blocking_job{book.of(key), 0, 0});
    book.wait(std::vector<std::uint32_t>(jobs, 1), how.patience);
    result.metric("seconds", watch.stop(result));
    result.verify(jobs, book.ran());
}

// --- Memory: memory, distinct ---------------------------------------------------------------------------------------

/// A job for each of many keys. `held`: all of them wait at the same time, and what they take is measured.
template <class Peer>
void run_memory(const settings& how, report& result, bool held) {
    const auto count = how.what.keys;
    ledger book(count, 1);
    const std::vector<std::uint32_t> expected(count, 1);
    for (std::uint32_t key = 0; key < count; ++key)
        *book.of(key) = 0; // so that it is in memory
    auto& peer = *new Peer(how.workers, held);
    const double before = resident_bytes();
    const double peak_before = peak_resident_bytes();
    stopwatch watch;
    for (std::uint32_t key = 0; key < count; ++key)
        peer.submit(key_text(key), counting_job{book.of(key), 0, 0});
    if (held) {
        result.metric("pending_bytes", (resident_bytes() - before) / count);
        peer.release();
    }
    book.wait(expected, how.patience);
    watch.stop(result);
    std::this_thread::sleep_for(how.what.sleep);
    result.metric("left_bytes", (resident_bytes() - before) / count);
    result.metric("peak_mib", (peak_resident_bytes() - peak_before) / (1024 * 1024));
    result.verify(count, book.ran());
}

// --- together -------------------------------------------------------------------------------------------------------

/// Of two keys, by each of which it is counted.
struct job_of_two {
    counter* first;
    counter* second;
    std::uint32_t slot;
    std::uint32_t number_of_first;
    std::uint32_t number_of_second;
    void operator()() const noexcept {
        ledger::record(first, slot, number_of_first);
        ledger::record(second, slot, number_of_second);
    }
};

/// Jobs of one key each, and then as many of two: how many times as long those take. The times in the output are those
/// of the second part; its jobs are all that were counted, by each of their keys.
template <class Peer>
void run_together(const settings& how, report& result) {
    const auto& what = how.what;
    const auto each = what.jobs / what.producers;
    const auto drawn = draw_keys(what, std::size_t{1} << 18);
    ledger book(what.keys, what.producers);
    std::vector<std::vector<std::uint32_t>> sent(what.producers, std::vector<std::uint32_t>(what.keys));
    auto& peer = *new Peer(how.workers, false);

    // `submit(p, key, other)` is called by producer p. The seconds until all jobs have run.
    const auto measure = [&](auto submit) {
        stopwatch watch;
        {
            std::vector<std::jthread> producers;
            for (unsigned p = 0; p < what.producers; ++p)
                producers.emplace_back([&, p] {
                    auto at = drawn.size() / what.producers / 2 * 2 * p;
                    for (std::uint64_t i = 0; i < each; ++i, at = at + 2 < drawn.size() ? at + 2 : 0) {
                        const auto key = drawn[at];
                        const auto other = drawn[at + 1];
                        submit(p, key, other != key ? other : (key + 1) % what.keys);
                    }
                });
        }
        book.wait(expected(sent), how.patience);
        return watch.stop(result);
    };
    const double alone = measure([&](unsigned p, std::uint32_t key, std::uint32_t) {
        peer.submit(key_text(key), counting_job{book.of(key), book.slot(p), sent[p][key]++});
    });
    const double together = measure([&](unsigned p, std::uint32_t key, std::uint32_t other) {
        peer.submit_together(key_text(key), key_text(other),
                             job_of_two{book.of(key), book.of(other), book.slot(p), sent[p][key]++, sent[p][other]++});
    });
    result.metric("mjobs_s", static_cast<double>(each * what.producers) / together / 1e6);
    result.metric("cost", together / alone);
    const auto all = expected(sent);
    result.verify(std::accumulate(all.begin(), all.end(), std::uint64_t{0}), book.ran());
}

// --- asleep ---------------------------------------------------------------------------------------------------------

/// What a pool that has worked uses while it has nothing to do.
template <class Peer>
void run_asleep(const settings& how, report& result) {
    const auto jobs = static_cast<std::uint32_t>(how.what.jobs);
    ledger book(1, 1);
    auto& peer = *new Peer(how.workers, false);
    for (std::uint32_t i = 0; i < jobs; ++i)
        peer.submit(key_text(0), counting_job{book.of(0), 0, i});
    book.wait({jobs}, how.patience);
    std::this_thread::sleep_for(std::chrono::milliseconds(1'500)); // spare threads, memory: it has settled
    const auto before = usage::now();
    stopwatch watch;
    std::this_thread::sleep_for(how.what.sleep);
    const double wall = watch.stop(result);
    const auto after = usage::now();
    result.metric("cpu_percent", 100 * (after.cpu_seconds - before.cpu_seconds) / wall);
    result.metric("wakeups_s", (after.switches - before.switches - 1) / wall); // less this thread's own
    result.verify(jobs, book.ran());
}

// --------------------------------------------------------------------------------------------------------------------

template <class Peer>
[[noreturn]] void run(int argc, char** argv) {
    settings how = parse(argc, argv);
    auto& what = how.what;
    report result(Peer::name, how);
    if constexpr (requires { Peer::version(); })
        result.version(Peer::version());
    const bool counts_keys = what.name == "churn" || what.name == "memory" || what.name == "distinct";
    if (counts_keys)
        what.jobs = what.keys = std::min(what.keys, Peer::max_keys); // the figures are for a key or a job
    if (has_handles<Peer> && (counts_keys || what.name == "many" || what.name == "asleep")) {
        result.not_run("handles are for few keys that are known");
    } else if (what.keys > Peer::max_keys) {
        result.not_run("too many keys");
    } else if (what.name == "chain") {
        run_chain<Peer>(how, result);
    } else if (what.name == "idle") {
        run_idle<Peer>(how, result);
    } else if (what.name == "head-of-line") {
        run_head_of_line<Peer>(how, result);
    } else if (what.name == "blocking") {
        run_blocking<Peer>(how, result);
    } else if (what.name == "work") {
        computation::calibrate();
        run_throughput<computing_job, Peer>(how, result);
    } else if (what.name == "together") {
        if constexpr (!has_handles<Peer> && requires(Peer& peer) { peer.submit_together("", "", job_of_two{}); })
            run_together<Peer>(how, result);
        else
            result.not_run("it has no jobs of two keys, or handles");
    } else if (what.name == "memory" || what.name == "distinct" || what.name == "asleep") {
        if constexpr (!has_handles<Peer>) {
            if (what.name == "asleep")
                run_asleep<Peer>(how, result);
            else
                run_memory<Peer>(how, result, what.name == "memory");
        }
    } else {
        run_throughput<counting_job, Peer>(how, result);
    }
    result.print_and_exit();
}

} // namespace bench

#define BENCH_MAIN(peer)                                                                                               \
    int main(int argc, char** argv) { bench::run<peer>(argc, argv); }
