// SPDX-License-Identifier: Apache-2.0
// What the soak's jobs have been promised, and whether it is kept.
//
// Each job owns a *ticket*, which it takes from the pool's hands into its run. A ticket ends once, and each end has to
// be told: its job has begun, or was reported as discarded on the thread that ends it, or was refused and is still with
// the caller. What a key's jobs do to its *entity* shows their order and their exclusion.
//
// An entity's plain fields are guarded by nothing but G2, and all atomics here are relaxed: they order nothing, so that
// ThreadSanitizer sees what the pool orders, and a barrier sees what the pool lets it see.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include <taskpool/taskpool.hpp>

namespace taskpool::soak {

// --- Broken promises -------------------------------------------------------------------------------------------------

inline std::atomic<std::uint64_t> violations = 0;

inline void violation(const char* what, const std::string& key = {}, std::uint64_t a = 0, std::uint64_t b = 0) {
    constexpr std::uint64_t most_told = 50;
    if (violations.fetch_add(1) < most_told)
        std::fprintf(stderr, "violation: %s (key \"%s\", %llu, %llu)\n", what, key.c_str(),
                     static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
}

/// relaxed throughout: see the top of this file.
template <class T>
class counter {
  public:
    void add(T n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
    T plus(T n) noexcept { return value_.fetch_add(n, std::memory_order_relaxed) + n; }
    T get() const noexcept { return value_.load(std::memory_order_relaxed); }
    void raise_to(T n) noexcept {
        for (T seen = get(); seen < n && !value_.compare_exchange_weak(seen, n, std::memory_order_relaxed);) {
        }
    }

  private:
    std::atomic<T> value_ = 0;
};

// --- What is kept of a key, a producer and a round -------------------------------------------------------------------

inline constexpr std::size_t producers = 3;
inline constexpr std::size_t tags = 2;
inline constexpr std::size_t reasons = 7;

/// Jobs of one stream run in the order of their numbers, under each key: those of a producer, of a producer under a
/// tag, and what a key's own jobs submit to it.
enum : std::uint8_t {
    first_tag_stream = producers,
    own_stream = first_tag_stream + producers * tags,
    streams,
    no_stream = streams,
};

struct entity {
    explicit entity(std::string key) : name(std::move(key)) {}

    const std::string name;
    // --- The key's exclusive jobs', plain (G2)
    bool inside = false;
    std::array<std::uint32_t, streams> last{}; // the number of the latest one, by stream
    std::uint32_t own = 0;                     // numbers given by its own jobs
    // --- Those of shared jobs, which run beside one another
    counter<std::uint32_t> sharing;
    std::array<counter<std::uint32_t>, producers> shared_last;
    // --- Any thread's
    counter<std::uint64_t> started;
};

/// How far a producer's jobs, those of its plain stream, and its barriers have come. They share their numbers.
struct account {
    counter<std::uint32_t> started; // the highest number
    counter<std::uint32_t> barrier; // the highest one of its barriers that have started
};

struct ledger {
    std::size_t max_shared = 0;
    std::array<account, producers> of;
    entity barriers{"(barrier)"};
    counter<std::int64_t> inside; // jobs that have begun and not ended, holds included
    counter<std::uint32_t> barrier_runs;
    counter<std::int64_t> tickets; // that exist
    // --- Of jobs with a ticket
    counter<std::uint64_t> accepted, refused, began, unrun;
    // --- Of all
    std::array<counter<std::uint64_t>, reasons> reported; // as discarded
    counter<std::uint64_t> loose_reported, loose_unrun;   // of tickets that may end anywhere
    counter<std::uint64_t> threw;                         // on purpose, each attempt
    counter<std::uint64_t> told_failed;                   // jobs, to a handler or through a future
    counter<std::uint64_t> cancelled;                     // as cancel() said
    counter<std::uint64_t> expected_errors;               // waits refused, results of discarded jobs
    counter<std::uint64_t> others;                        // jobs without a ticket that ran
};

/// Keys whose jobs may end on any thread, such as coroutines with a future, and those of jobs without a ticket.
inline bool is_loose(std::string_view key) noexcept { return !key.empty() && key.front() == '~'; }

/// What this thread has been told, and has still to see: the end of the callables.
struct told {
    unsigned reports = 0;
    discard_reason why{};
    std::string key;
    unsigned refusals = 0;
};
inline thread_local told told_here;

inline void report(ledger& book, const discard& what) {
    book.reported[static_cast<std::size_t>(what.reason)].add();
    if (is_loose(what.key)) {
        book.loose_reported.add();
        return;
    }
    ++told_here.reports;
    told_here.why = what.reason;
    told_here.key = what.key;
}

// --- A job's promise -------------------------------------------------------------------------------------------------

enum class work_kind : std::uint8_t {
    plain,
    throws,
    is_tried_again, // throws at its first two attempts
    yields,
    asks_for_stop,
    blocks, // within a blocking_scope
    sleeps, // without one: the keeper has to find out
    submits_to_own_key,
    submits_to_another,
    waits_for_another,
    drains_another,
    holds,
};

class ticket {
  public:
    ticket(ledger& of, entity& under, std::uint8_t in_stream, std::uint32_t with_number, std::uint8_t by = 0,
           work_kind does = work_kind::plain) noexcept
        : kind(does), book_(&of), at_(&under), number_(with_number), stream_(in_stream), producer_(by) {
        of.tickets.add();
    }
    ticket(ticket&& other) noexcept
        : kind(other.kind), shared(other.shared), must_run(other.must_run), several(other.several),
          book_(std::exchange(other.book_, nullptr)), at_(other.at_), number_(other.number_), stream_(other.stream_),
          producer_(other.producer_), began_(other.began_) {}
    ticket& operator=(ticket&&) = delete;
    ~ticket() {
        if (book_ != nullptr)
            end();
    }

    // What is said of it before it is submitted:
    work_kind kind;
    bool shared : 1 = false;   // the job is
    bool must_run : 1 = false; // on_stop is `run`
    bool several : 1 = false;  // the job is one of several keys

    ledger& book() const noexcept { return *book_; }
    entity& at() const noexcept { return *at_; }
    bool is_moved_from() const noexcept { return book_ == nullptr; }

    /// The job starts.
    void begin() {
        if (std::exchange(began_, true))
            return violation("a job ran twice", at_->name, number_);
        if (std::exchange(told_here.reports, 0) != 0)
            violation("a job was reported as discarded, and lives", told_here.key);
        book_->began.add();
        if (is_plain())
            book_->of[producer_].started.raise_to(number_);
        start_under(*at_);
    }
    void end_run() { leave(*at_, shared); }

    /// In another key of the same job.
    void start_under(entity& e) {
        e.started.add();
        enter(e);
        if (stream_ == no_stream)
            return;
        if (number_ <= e.last[stream_] || (stream_ < producers && !shared && number_ <= e.shared_last[producer_].get()))
            violation("a job ran before one that was submitted before it", e.name, number_, e.last[stream_]);
        if (!shared)
            e.last[stream_] = number_;
        else if (stream_ < producers)
            e.shared_last[producer_].raise_to(number_);
    }
    /// Begins and ends a stretch in which nothing else of the key may run.
    void enter(entity& e) {
        book_->inside.add(1);
        if (is_plain() && number_ < book_->of[producer_].barrier.get())
            violation("a job runs after a barrier that was submitted after it", e.name, number_);
        if (book_->barrier_runs.get() != 0)
            violation("a job runs beside a barrier", e.name, number_);
        if (shared ? e.inside : std::exchange(e.inside, true))
            violation("two jobs of a key overlap", e.name, number_);
        const auto sharing = shared ? e.sharing.plus(1) : e.sharing.get();
        if (sharing > (shared ? book_->max_shared : 0))
            violation("a shared job runs beside an exclusive one, or too many do", e.name, sharing);
    }
    void enter() { enter(*at_); }
    static void leave(ledger& book, entity& e, bool as_shared) {
        if (as_shared)
            e.sharing.add(static_cast<std::uint32_t>(-1));
        else if (!std::exchange(e.inside, false))
            violation("two jobs of a key overlapped", e.name);
        book.inside.add(-1);
    }
    void leave(entity& e, bool as_shared) const { leave(*book_, e, as_shared); }

    /// For a barrier's: it begins between all others.
    void begin_barrier() {
        if (const auto inside = book_->inside.get(); inside != 0)
            violation("a barrier runs beside jobs", {}, static_cast<std::uint64_t>(inside));
        if (const auto latest = book_->of[producer_].started.get(); latest >= number_)
            violation("a job ran before the barrier that was submitted before it", {}, latest, number_);
        if (number_ <= book_->of[producer_].barrier.get())
            violation("a barrier ran before one that was submitted before it", {}, number_);
        book_->of[producer_].barrier.raise_to(number_);
        began_ = true;
        book_->began.add();
        if (book_->barrier_runs.plus(1) != 1)
            violation("two barriers overlap");
    }
    void end_barrier() { book_->barrier_runs.add(static_cast<std::uint32_t>(-1)); }

  private:
    bool is_plain() const noexcept { return stream_ < producers && at_ != &book_->barriers && !is_loose(at_->name); }

    void end() {
        book_->tickets.add(-1);
        if (!began_ && told_here.refusals > 0) {
            --told_here.refusals; // it is the caller's
            return;
        }
        if (!began_)
            end_unrun();
    }
    void end_unrun() {
        book_->unrun.add();
        if (is_loose(at_->name))
            return book_->loose_unrun.add();
        if (told_here.reports == 0)
            return violation("a job was dropped, and nobody told", at_->name, number_);
        --told_here.reports;
        if (told_here.key != at_->name && !several)
            violation("a job was reported under another key", at_->name, number_);
        if (must_run && told_here.why == discard_reason::stopped)
            violation("a job that must not be lost was discarded by stop()", at_->name, number_);
    }

    ledger* book_; // null: moved from
    entity* at_;
    std::uint32_t number_;
    std::uint8_t stream_;
    std::uint8_t producer_;
    bool began_ = false;
};

/// Inside its key for a scope, at the end of which another attempt, or another job, may come.
class stay {
  public:
    explicit stay(ticket& t, bool is_first = true) : at_(&t.at()), book_(t.book()), shared_(t.shared) {
        if (is_first)
            t.begin();
        else
            t.enter();
    }
    ~stay() {
        if (at_ != nullptr)
            ticket::leave(book_, *at_, shared_);
    }
    stay(const stay&) = delete;
    stay& operator=(const stay&) = delete;

    /// Whoever is given the entity leaves it later.
    entity& hand_over() noexcept { return *std::exchange(at_, nullptr); }

  private:
    entity* at_;
    ledger& book_;
    const bool shared_;
};

/// Out of its key while a coroutine that lends it is suspended.
class absence {
  public:
    explicit absence(ticket& t) : of_(t) { of_.end_run(); }
    ~absence() { of_.enter(); }
    absence(const absence&) = delete;
    absence& operator=(const absence&) = delete;

  private:
    ticket& of_;
};

} // namespace taskpool::soak
