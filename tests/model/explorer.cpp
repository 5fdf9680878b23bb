// SPDX-License-Identifier: Apache-2.0
// See explorer.hpp for what it does, and its invariants. Longer than 400 lines, since one execution is one piece: who
// runs, who waits, what is seen, and how it ends.
#include "explorer.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

#include "fiber.hpp"
#include "memory.hpp"
#include "quarantine.hpp"
#include "search.hpp"

namespace taskpool::model {

namespace {

constexpr unsigned priority_changes = 3;                     // of a random execution
constexpr std::uint64_t stale_one_in = 4;                    // of the loads that could be stale, in random executions
constexpr model_time time_begins{std::chrono::hours(1'000)}; // so that all differences are as usual

class execution;

struct thread_state {
    thread_state(execution& of, unsigned number, std::string called, std::function<void()> body)
        : run(of), name(std::move(called)), runs(std::move(body)) {
        sees.thread = number;
    }

    execution& run;
    const std::string name;
    fiber runs;
    observer sees;
    bool ended = false;
    bool yielded = false;
    std::uint64_t yielded_at = 0;   // the step
    bool sleeps = false;            // until another thread joins it
    const void* waits_on = nullptr; // null: it can run
    const char* waits_for = "";     // in words
    std::optional<model_time> deadline;
    bool timed_out = false;
    std::uint64_t priority = 0;
    std::uint64_t steps = 0;
};

thread_state* self = nullptr; // who has the baton; null: the explorer

/// Who makes the decisions of an execution: one of the three.
struct director {
    systematic_search* systematic = nullptr;
    random_numbers* random = nullptr;
    const schedule* fixed = nullptr;
    std::uint64_t usual_length = 1; // of random executions: where priorities change
};

class execution {
  public:
    execution(const bounds& within, director by) : within_(within), by_(by) {
        if (by_.random != nullptr)
            for (auto& at : changes_at_)
                at = by_.random->below(by_.usual_length) + 1;
    }

    /// Runs the scenario on a thread of its own. False when it failed: then this must live for ever.
    bool run(const std::function<void()>& scenario);

    // --- For who has the baton
    std::uint64_t start(std::function<void()> body, std::string name);
    void point(const char* operation, const void* at);
    void yield_point();
    void changed() noexcept;
    bool block(const char* why, const void* on, std::optional<model_time> deadline);
    void wake_all(const void* on) noexcept;
    void wake_one(const void* on);
    void await_end(std::uint64_t number);
    std::uint64_t load(const void* at, std::uint64_t present, std::memory_order order);
    [[noreturn]] void fail(const std::string& what) noexcept;

    memory seen;
    std::unordered_map<const void*, vector_clock> locks;
    model_time now = time_begins;

    thread_state& thread(std::uint64_t number) noexcept { return *threads_[number]; }

    // --- When it has ended
    std::string failure;
    schedule made;
    std::uint64_t steps = 0;

  private:
    thread_state& make_thread(std::function<void()> body, std::string name, const observer& parent);
    [[noreturn]] void end(thread_state& t);
    [[noreturn]] void return_to_explorer() noexcept;
    thread_state* choose(thread_state* runs);
    thread_state* first_deadline() const noexcept;
    unsigned decide(const decision& d, unsigned at_random);
    unsigned highest_priority(unsigned free) const noexcept;
    void pass_baton(thread_state& from, thread_state& to);
    std::string states() const;
    void trace(const char* operation, const void* at);

    const bounds& within_;
    const director by_;
    std::array<std::uint64_t, priority_changes> changes_at_{};
    std::uint64_t lowest_priority_ = 1U << 30;
    fiber explorer_;
    std::vector<std::unique_ptr<thread_state>> threads_;
    std::vector<thread_state*> options_;
    std::unordered_map<const void*, unsigned> names_; // of places, for the trace
};

execution* running = nullptr; // for who is told of a crash

// --- Threads ---------------------------------------------------------------------------------------------------------

bool execution::run(const std::function<void()>& scenario) {
    running = this;
    self = &make_thread(scenario, "scenario", {});
    explorer_.switch_to(self->runs);
    running = nullptr;
    return failure.empty();
}

thread_state& execution::make_thread(std::function<void()> body, std::string name, const observer& parent) {
    const auto number = static_cast<unsigned>(threads_.size());
    if (number == most_threads)
        fail("more threads than the explorer knows of");
    auto made = std::make_unique<thread_state>(*this, number, std::move(name), [this, number, body = std::move(body)] {
        try {
            const auto called = body; // what it holds ends with the thread
            called();
        } catch (const std::exception& error) {
            fail(std::string("an exception leaves a thread: ") + error.what());
        } catch (...) {
            fail("an exception leaves a thread");
        }
        end(*threads_[number]);
    });
    thread_state& t = *threads_.emplace_back(std::move(made));
    t.sees.clock = parent.clock;
    t.sees.clock.steps[number] = 1;
    t.sleeps = !within_.sleeper.empty() && t.name == within_.sleeper;
    if (by_.random != nullptr)
        t.priority = (std::uint64_t{1} << 32) + by_.random->below(1U << 30);
    return t;
}

std::uint64_t execution::start(std::function<void()> body, std::string name) {
    point("start a thread", nullptr);
    return make_thread(std::move(body), std::move(name), self->sees).sees.thread;
}

void execution::end(thread_state& t) {
    t.ended = true;
    wake_all(&t);
    if (std::all_of(threads_.begin(), threads_.end(), [](const auto& each) { return each->ended; }))
        return_to_explorer();
    pass_baton(t, *choose(nullptr));
    std::abort(); // nobody passes it back
}

void execution::return_to_explorer() noexcept {
    fiber& from = self->runs;
    self = nullptr;
    from.switch_to(explorer_);
    std::abort(); // nobody comes back
}

void execution::await_end(std::uint64_t number) {
    thread_state& t = *threads_[number];
    point("join", nullptr);
    t.sleeps = false;
    if (!t.ended)
        block("a thread's end", &t, {});
    self->sees.clock.join(t.sees.clock);
}

// --- Who runs --------------------------------------------------------------------------------------------------------

void execution::point(const char* operation, const void* at) {
    ++self->sees.clock.steps[self->sees.thread];
    ++self->steps;
    if (++steps > within_.steps)
        fail("no end in sight after " + std::to_string(steps - 1) + " steps");
    thread_state& me = *self;
    pass_baton(me, *choose(&me));
    trace(operation, at);
}

void execution::yield_point() {
    self->yielded = true;
    self->yielded_at = steps;
    if (by_.random != nullptr)
        self->priority = --lowest_priority_;
    point("yield", nullptr);
}

void execution::changed() noexcept {
    for (const auto& t : threads_)
        if (t.get() != self)
            t->yielded = false;
}

bool execution::block(const char* why, const void* on, std::optional<model_time> deadline) {
    thread_state& me = *self;
    trace(why, on);
    me.waits_on = on;
    me.waits_for = why;
    me.deadline = deadline;
    me.timed_out = false;
    pass_baton(me, *choose(nullptr));
    return !me.timed_out;
}

void execution::wake_all(const void* on) noexcept {
    for (const auto& t : threads_)
        if (t->waits_on == on)
            t->waits_on = nullptr;
}

void execution::wake_one(const void* on) {
    std::vector<thread_state*> waiting;
    for (const auto& t : threads_)
        if (t->waits_on == on)
            waiting.push_back(t.get());
    if (waiting.empty())
        return;
    const auto count = static_cast<unsigned>(waiting.size());
    const auto at_random = by_.random != nullptr ? static_cast<unsigned>(by_.random->below(count)) : 0;
    waiting[count == 1 ? 0 : decide({count, count, cost::preemption}, at_random)]->waits_on = nullptr;
}

/// Who runs next: `runs` went on by right, null where it cannot. Those who may run at no cost come first, and after
/// them those for which another is preempted. In turn, so that nobody is forgotten.
thread_state* execution::choose(thread_state* runs) {
    options_.clear();
    const auto add = [&](auto wanted) {
        const std::size_t begin = self != nullptr ? self->sees.thread + 1 : 0;
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            thread_state& t = *threads_[(begin + i) % threads_.size()];
            if (!t.ended && !t.sleeps && &t != runs && wanted(t))
                options_.push_back(&t);
        }
    };
    const auto add_ready = [&] { add([](const thread_state& t) { return t.waits_on == nullptr && !t.yielded; }); };
    unsigned free = 0;
    const bool goes_on = runs != nullptr && !runs->yielded;
    if (goes_on) {
        options_.push_back(runs);
        free = 1;
        add_ready();
    } else {
        add_ready();
        free = static_cast<unsigned>(options_.size());
    }
    // Who has yielded: for a preemption. When nobody else can run, who did so longest ago; the others for one.
    add([](const thread_state& t) { return t.waits_on == nullptr && t.yielded; });
    if (runs != nullptr && runs->yielded)
        options_.push_back(runs);
    if (free == 0 && !options_.empty()) {
        std::stable_sort(options_.begin(), options_.end(),
                         [](const auto* a, const auto* b) { return a->yielded_at < b->yielded_at; });
        free = 1;
    }
    if (within_.time_passes || options_.empty())
        add([](const thread_state& t) { return t.waits_on != nullptr && t.deadline.has_value(); });
    if (options_.empty())
        fail("deadlock: every thread waits");
    if (free == 0) { // time passes
        thread_state* const first = first_deadline();
        std::erase_if(options_, [&](const thread_state* t) { return *t->deadline > *first->deadline; });
        free = static_cast<unsigned>(options_.size());
    }

    const auto count = static_cast<unsigned>(options_.size());
    const unsigned at_random = by_.random != nullptr ? highest_priority(free) : 0;
    thread_state* const next = options_[count == 1 ? 0 : decide({free, count, cost::preemption}, at_random)];
    if (next->waits_on != nullptr) {
        next->waits_on = nullptr;
        next->timed_out = true;
        now = std::max(now, *next->deadline);
    }
    next->yielded = false;
    return next;
}

thread_state* execution::first_deadline() const noexcept {
    return *std::min_element(options_.begin(), options_.end(),
                             [](const auto* a, const auto* b) { return *a->deadline < *b->deadline; });
}

/// For random executions. Now and then who runs comes last from here on; and now and then time passes.
unsigned execution::highest_priority(unsigned free) const noexcept {
    std::size_t among = options_.size();
    while (among > free &&
           (options_[among - 1]->waits_on != nullptr ? by_.random->below(64) != 0 : options_[among - 1]->yielded))
        --among;
    const auto end = options_.begin() + static_cast<std::ptrdiff_t>(among);
    const auto at =
        std::max_element(options_.begin(), end, [](const auto* a, const auto* b) { return a->priority < b->priority; });
    return static_cast<unsigned>(at - options_.begin());
}

unsigned execution::decide(const decision& d, unsigned at_random) {
    unsigned chosen = at_random;
    if (by_.systematic != nullptr)
        chosen = by_.systematic->decide(d);
    else if (by_.fixed != nullptr)
        chosen = std::min(by_.fixed->at(made.size()), d.options - 1);
    made.add(chosen);
    if (by_.systematic != nullptr && by_.systematic->has_diverged())
        fail("the same decisions led to another execution: something depends on more than them");
    return chosen;
}

void execution::pass_baton(thread_state& from, thread_state& to) {
    if (by_.random != nullptr && std::find(changes_at_.begin(), changes_at_.end(), steps) != changes_at_.end())
        to.priority = --lowest_priority_;
    if (&from == &to)
        return;
    self = &to;
    from.runs.switch_to(to.runs);
}

// --- What is seen ----------------------------------------------------------------------------------------------------

std::uint64_t execution::load(const void* at, std::uint64_t present, std::memory_order order) {
    const auto count = static_cast<unsigned>(seen.readable(at, present, order, self->sees));
    unsigned age = 0;
    if (count > 1) {
        unsigned at_random = 0;
        if (by_.random != nullptr && by_.random->below(stale_one_in) == 0)
            at_random = static_cast<unsigned>(by_.random->below(count));
        age = decide({1, count, cost::stale_read}, at_random);
    }
    if (age > 0)
        trace("    yields an older store", at);
    return seen.load(at, age, order, self->sees);
}

// --- How it ends -----------------------------------------------------------------------------------------------------

void execution::fail(const std::string& what) noexcept {
    failure = what + '\n' + states();
    return_to_explorer();
}

std::string execution::states() const {
    std::string text;
    for (const auto& t : threads_) {
        text += "  thread " + std::to_string(t->sees.thread) + ", " + t->name + ": ";
        text += t->ended                 ? "has ended"
                : t->sleeps              ? "sleeps until it is joined"
                : t->waits_on != nullptr ? std::string("waits for ") + t->waits_for
                : t.get() == self        ? "runs"
                                         : "can run";
        text += '\n';
    }
    return text;
}

void execution::trace(const char* operation, const void* at) {
    if (by_.fixed == nullptr)
        return;
    std::fprintf(stderr, "%5llu  %zu %-12s %s", static_cast<unsigned long long>(steps), std::size_t{self->sees.thread},
                 self->name.c_str(), operation);
    if (at != nullptr)
        std::fprintf(stderr, " #%u", names_.try_emplace(at, static_cast<unsigned>(names_.size())).first->second);
    std::fputc('\n', stderr);
}

/// Says which execution it was that crashed.
void report_crash(int signal) {
    if (running != nullptr)
        std::fprintf(stderr, "model: signal %d in the execution of TASKPOOL_MODEL_SCHEDULE='%s'\n", signal,
                     running->made.text().c_str());
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// What must not throw, since the core's own functions do not.
template <class F>
decltype(auto) guarded(F f) noexcept {
    try {
        return f();
    } catch (const memory::error& error) {
        self->run.fail(error.what);
    }
}

} // namespace

// --- The search ------------------------------------------------------------------------------------------------------

outcome explore(bounds within, const std::function<void()>& scenario) {
    for (const int crash : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL})
        std::signal(crash, report_crash);
    outcome result;
    result.within = within;
    const auto run = [&](const director& by) {
        auto* const one = new execution(within, by);
        const bool passed = one->run(scenario);
        result.longest = std::max(result.longest, one->steps);
        if (passed) {
            delete one;
            release_quarantine();
        } else {
            result.failure = one->failure;
            result.schedule = one->made.text();
        }
        return passed;
    };
    if (const char* const text = std::getenv("TASKPOOL_MODEL_SCHEDULE")) {
        const schedule fixed(text);
        run({.fixed = &fixed});
        return result;
    }

    const auto effort = number_from("TASKPOOL_MODEL_EFFORT", 1);
    if (effort > 1)
        ++within.preemptions;
    within.systematic *= effort;
    within.random *= effort;
    result.within = within;
    systematic_search search(within.preemptions, within.stale_reads);
    while (result.systematic < within.systematic && !result.complete) {
        search.begin();
        ++result.systematic;
        if (!run({.systematic = &search}))
            return result;
        result.complete = !search.advance();
    }
    random_numbers seeds(number_from("TASKPOOL_MODEL_SEED", 1));
    while (result.random < within.random) {
        random_numbers random(seeds.next());
        ++result.random;
        if (!run({.random = &random, .usual_length = std::max<std::uint64_t>(1, result.longest)}))
            return result;
    }
    return result;
}

// --- For who has the baton -------------------------------------------------------------------------------------------

std::uint64_t start_thread(std::function<void()> body, std::string name) {
    return self->run.start(std::move(body), std::move(name));
}

void require(bool condition, const char* what, std::source_location where) {
    if (!condition)
        fail(std::string("required in vain: ") + what + ", line " + std::to_string(where.line()));
}

bool is_explored() noexcept { return self != nullptr; }
void point(const char* operation, const void* at) noexcept { self->run.point(operation, at); }
void yield_point() noexcept { self->run.yield_point(); }
void changed() noexcept { self->run.changed(); }

void begin_atomic(const void* at, std::uint64_t value) noexcept { self->run.seen.begin(at, value, self->sees); }
void end_atomic(const void* at) noexcept {
    guarded([&] { self->run.seen.end(at, self->sees); });
}
std::uint64_t load(const void* at, std::uint64_t present, std::memory_order order) noexcept {
    return guarded([&] { return self->run.load(at, present, order); });
}
void store(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order) noexcept {
    guarded([&] { self->run.seen.store(at, present, value, order, self->sees); });
}
void exchange(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order) noexcept {
    guarded([&] { self->run.seen.exchange(at, present, value, order, self->sees); });
}
void read_cell(const void* at) noexcept {
    if (self != nullptr)
        guarded([&] { self->run.seen.read_cell(at, self->sees); });
}
void write_cell(const void* at) noexcept {
    if (self != nullptr)
        guarded([&] { self->run.seen.write_cell(at, self->sees); });
}

model_time time_now() noexcept { return self->run.now; }
bool block(const char* why, const void* on, std::optional<model_time> deadline) noexcept {
    return self->run.block(why, on, deadline);
}
void wake_all(const void* on) noexcept { self->run.wake_all(on); }
void wake_one(const void* on) noexcept { self->run.wake_one(on); }
void await_end(std::uint64_t thread) noexcept { self->run.await_end(thread); }

void acquire_from(const void* lock) noexcept { self->sees.clock.join(self->run.locks[lock]); }
void release_to(const void* lock) noexcept { self->run.locks[lock].join(self->sees.clock); }

void fail(const std::string& what) noexcept { self->run.fail(what); }

std::uint64_t this_thread_number() noexcept { return self->sees.thread; }
std::uint64_t steps_of(std::uint64_t thread) noexcept { return self->run.thread(thread).steps; }
bool is_blocked(std::uint64_t thread) noexcept { return self->run.thread(thread).waits_on != nullptr; }

} // namespace taskpool::model
