// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace taskpool::random {

namespace {

constexpr milliseconds catch_up = 20; // what a key that waits for its rate may make good

bool contains(const std::vector<int>& keys, int key) { return std::find(keys.begin(), keys.end(), key) != keys.end(); }

void remove(std::vector<job*>& from, const job& j) { std::erase(from, &j); }

bool is_dead(const job& j) { return j.state == job_state::gone; } // a place that is left of one of several keys

/// A coroutine that lent its key, and is in the queue to go on.
bool goes_on(const job& j) { return j.kind == job_kind::lending && j.begun; }

/// A coroutine that has lent its key does, whether it is in the queue or not.
bool takes_room(const job& j) {
    return j.state == job_state::waiting || (j.kind == job_kind::lending && j.state == job_state::between);
}

[[noreturn]] void fail(const job& j, const std::string& why) { throw mismatch(to_string(j) + ": " + why); }

} // namespace

std::string name_of(int key) { return key == barrier_key ? "(barrier)" : "k" + std::to_string(key); }

std::string to_string(const job& j) {
    constexpr const char* kinds[] = {"job", "shared job", "job of several keys", "barrier", "coroutine", "lending one"};
    constexpr const char* states[] = {"made", "timed", "due", "waiting", "running", "between", "done", "gone"};
    std::string text = std::string(j.repeats != nullptr ? "beat" : kinds[static_cast<int>(j.kind)]) + " " +
                       std::to_string(j.id) + " of";
    for (const int key : j.keys)
        text += " " + name_of(key);
    return text + " (" + states[static_cast<int>(j.state)] + ")";
}

job& model::make(job like) {
    like.id = static_cast<int>(jobs_.size());
    jobs_.push_back(std::make_unique<job>(std::move(like)));
    return *jobs_.back();
}

// --- Room ------------------------------------------------------------------------------------------------------------

std::size_t model::longest(int key) const {
    const auto found = keys_.find(key);
    return found == keys_.end() ? 0 : found->second.waiting.size();
}

/// Without the places at its front that may have been taken from the queue already.
std::size_t model::shortest(int key) const {
    const auto found = keys_.find(key);
    if (found == keys_.end())
        return 0;
    const auto& waiting = found->second.waiting;
    auto at = waiting.begin();
    while (at != waiting.end() && is_dead(**at))
        ++at;
    if (at != waiting.end() && (*at)->kind == job_kind::together)
        ++at;
    return static_cast<std::size_t>(waiting.end() - at);
}

std::size_t model::in_pool() const {
    return static_cast<std::size_t>(
        std::count_if(jobs_.begin(), jobs_.end(), [](const auto& j) { return takes_room(*j); }));
}

/// For certain, or perhaps.
bool model::is_full(int key, bool at_least) const {
    const std::size_t limit = by_.when_full == overflow::keep_latest ? 1 : by_.lane_capacity;
    return (at_least ? shortest(key) : longest(key)) >= limit;
}

bool model::has_room_for(const job& j) const {
    return in_pool() < by_.pool_capacity &&
           std::none_of(j.keys.begin(), j.keys.end(), [&](int key) { return is_full(key, false); });
}

// --- Calls -----------------------------------------------------------------------------------------------------------

void model::expect(job& j, discard_reason why) { expected_.emplace(&j, why); }

void model::must_have_been_told() const {
    for (const auto& [j, why] : expected_)
        fail(*j, "its discard, for reason " + std::to_string(static_cast<int>(why)) + ", was not reported");
}

void model::leave_queue(job& j) {
    for (const int key : j.keys)
        std::erase(keys_[key].waiting, &j);
}

/// Its victim, if there is one, makes way for it: that is the only thing to be decided before the pool has answered.
submit_status model::answer(job& j) {
    if (closed_)
        return submit_status::stopped;
    auto& waiting = keys_[j.keys.front()].waiting;
    if (j.tag >= 0) {
        const auto same = std::find_if(waiting.begin(), waiting.end(), [&](const job* other) {
            return other->tag == j.tag && other->must_run == j.must_run;
        });
        if (same != waiting.end()) {
            job& old = **same;
            expect(old, discard_reason::replaced);
            old.state = job_state::gone;
            ++discarded_;
            ++replaced_;
            j.priority = old.priority;
            j.era = old.era;
            j.state = job_state::waiting;
            *same = &j; // in its place
            return submit_status::accepted;
        }
    }
    if (has_room_for(j))
        return submit_status::accepted;
    const bool drops = by_.when_full == overflow::drop_oldest || by_.when_full == overflow::keep_latest;
    if (!drops || j.kind == job_kind::together || waiting.empty() || goes_on(*waiting.front()))
        return submit_status::full;
    job& oldest = *waiting.front();
    expect(oldest, by_.when_full == overflow::keep_latest ? discard_reason::replaced : discard_reason::dropped_oldest);
    leave_queue(oldest);
    oldest.state = job_state::gone;
    if (oldest.repeats != nullptr)
        oldest.repeats->beat_waits = false;
    ++discarded_;
    j.has_made_way = true;
    return submit_status::accepted;
}

void model::submitted(job& j, submit_status answer, bool waited, milliseconds now) {
    const bool certainly_full =
        !j.has_made_way && (in_pool() >= by_.pool_capacity ||
                            std::any_of(j.keys.begin(), j.keys.end(), [&](int key) { return is_full(key, true); }));
    switch (answer) {
    case submit_status::accepted:
        if (closed_)
            fail(j, "accepted though the pool is closed");
        if (j.state == job_state::waiting) {
            ++accepted_;
            return; // it replaces another one
        }
        if (certainly_full)
            fail(j, "accepted though there is no room");
        push(j);
        ++accepted_;
        together_ += j.kind == job_kind::together ? 1 : 0;
        return;
    case submit_status::stopped:
        if (!closed_)
            fail(j, "refused as if the pool were closed");
        break;
    case submit_status::rate_limited:
    case submit_status::full:
    case submit_status::timed_out:
    case submit_status::would_deadlock:
        if (closed_)
            fail(j, "refused for want of room though the pool is closed");
        if (j.state == job_state::waiting || has_room_for(j))
            fail(j, "refused though there is room");
        if (answer == submit_status::rate_limited &&
            std::none_of(j.keys.begin(), j.keys.end(), [&](int key) { return keys_[key].limited.has_value(); }))
            fail(j, "refused for its rate, but it has none");
        if (answer == submit_status::would_deadlock)
            must_be_stuck(now);
        if (waited ? answer != submit_status::timed_out && answer != submit_status::would_deadlock
                   : answer != submit_status::full && answer != submit_status::rate_limited)
            fail(j, "an answer of another kind of submit");
        break;
    default:
        fail(j, "an answer that nothing here can give");
    }
    ++rejected_;
}

void model::push(job& j) {
    if (j.kind == job_kind::barrier)
        ++era_;
    j.era = era_;
    j.state = job_state::waiting;
    for (const int key : j.keys)
        keys_[key].waiting.push_back(&j);
}

submit_status model::schedule(job& j, milliseconds due) {
    if (closed_ || timed_.size() >= by_.timer_capacity) {
        ++rejected_;
        return closed_ ? submit_status::stopped : submit_status::full;
    }
    j.state = job_state::timed;
    j.due = due;
    j.armed = order_++;
    timed_.push_back(&j);
    accepted_ += j.period == 0 ? 1 : 0;
    return submit_status::accepted;
}

bool model::cancel_timer(job& j, discard_reason why) {
    if (j.state == job_state::due)
        return !std::exchange(j.taken_back, j.taken_back.value_or(why)).has_value();
    if (j.state != job_state::timed)
        return false;
    if (j.period == 0) {
        ++discarded_;
        expect(j, why);
    }
    j.state = job_state::gone;
    remove(timed_, j);
    return true;
}

/// Asked to stop: it sleeps no longer, and is not tried again.
void model::ask(job& j, milliseconds now) {
    j.asked = true;
    if (j.state == job_state::between && j.wake != never)
        j.wake = now;
}

/// The same for a coroutine that sleeps and has lent its key. REQUIRES: order_ is that of the call.
void model::ask_lent(job& j, milliseconds now) {
    ask(j, now);
    wake(j);
    j.woken_by = order_;
}

std::size_t model::cancel(int key, milliseconds now) {
    if (stopped_)
        return 0;
    std::size_t count = 0;
    for (auto* j : std::vector<job*>(timed_))
        if (contains(j->keys, key))
            count += cancel_timer(*j) && j->period == 0 ? 1 : 0;
    auto& state = keys_[key];
    for (auto* j : state.running)
        ask(*j, now);
    ++order_;
    for (const auto& j : jobs_)
        if (j->kind == job_kind::lending && j->state == job_state::between && contains(j->keys, key))
            ask_lent(*j, now);
    std::vector<job*> go_on;
    for (auto* j : std::deque<job*>(state.waiting)) {
        if (is_dead(*j))
            continue;
        if (goes_on(*j)) {
            j->asked = true;
            if (std::find(go_on.begin(), go_on.end(), j) == go_on.end())
                go_on.push_back(j);
            continue;
        }
        ++count;
        ++discarded_;
        expect(*j, discard_reason::cancelled);
        j->state = job_state::gone;
        if (j->repeats != nullptr)
            j->repeats->beat_waits = false;
        for (const int other : j->keys)
            if (auto& limited = keys_[other].limited; limited && j->kind == job_kind::together)
                limited->full_at_latest = std::max<double>(limited->full_at_latest, static_cast<double>(now)) +
                                          static_cast<double>(limited->interval); // it may have taken one
    }
    // Of one of several keys the places under the others are left until their turn comes.
    state.waiting.clear();
    for (auto* j : go_on) {
        push(*j);
        j->woken_by = order_;
    }
    return count;
}

bool model::pause(int key) { return !stopped_ && !std::exchange(keys_[key].paused, true); }

bool model::resume(int key) { return std::exchange(keys_[key].paused, false); }

void model::limit_key(int key, milliseconds interval, int burst, milliseconds now) {
    if (stopped_)
        return;
    auto& limited = keys_[key].limited;
    const auto at = static_cast<double>(now);
    const auto scaled = [&](double full_at) { // what it has used counts, in tokens
        if (!limited || full_at <= at)
            return full_at;
        const double lacks = (full_at - at) / static_cast<double>(limited->interval);
        return at + std::min<double>(lacks, burst) * static_cast<double>(interval);
    };
    limit next{interval, burst, at - 1000, at};
    if (limited) {
        next.full_at_earliest = scaled(limited->full_at_earliest);
        next.full_at_latest = scaled(limited->full_at_latest) + 1;
    } else {
        next.full_at_latest = at + static_cast<double>(interval * burst); // it may have had a rate before
    }
    limited = next;
}

bool model::unlimit(int key) { return std::exchange(keys_[key].limited, std::nullopt).has_value(); }

void model::release(job& held) {
    if (held.state == job_state::between && !held.backs_off)
        finish(held);
}

void model::stop(milliseconds now) {
    closed_ = stopped_ = true;
    ++order_;
    for (auto& [key, state] : keys_) {
        state.paused = false;
        for (auto* j : state.running)
            ask(*j, now);
    }
    for (const auto& j : jobs_) {
        switch (j->state) {
        case job_state::timed:
        case job_state::due:
            if (j->must_run && j->period == 0) {
                break; // it is brought forward
            }
            cancel_timer(*j, discard_reason::stopped);
            break;
        case job_state::waiting:
            if (goes_on(*j)) {
                j->asked = true;
                break;
            }
            if (j->must_run)
                break;
            ++discarded_;
            expect(*j, discard_reason::stopped);
            leave_queue(*j);
            j->state = job_state::gone;
            if (j->repeats != nullptr)
                j->repeats->beat_waits = false;
            break;
        case job_state::between:
            if (j->kind == job_kind::lending)
                ask_lent(*j, now);
            else
                ask(*j, now);
            break;
        default:
            break;
        }
    }
}

// --- What the pool does ----------------------------------------------------------------------------------------------

/// One that sleeps goes on.
void model::wake(job& j) {
    j.wake = never;
    push(j);
}

void model::settle(milliseconds now) {
    while (clock_ < now) { // the pool has come to rest, and has let time pass, from one timer to the next
        settle_once(clock_);
        must_be_idle(clock_);
        milliseconds next = now;
        for (const auto& j : jobs_) {
            const auto at = j->state == job_state::timed ? j->due : j->state == job_state::between ? j->wake : never;
            if (at > clock_)
                next = std::min(next, at);
        }
        clock_ = next;
    }
    settle_once(now);
}

void model::settle_once(milliseconds now) {
    std::vector<job*> woken;
    for (const auto& j : jobs_)
        j->woken |= j->state == job_state::between && !j->asked && j->wake <= now;
    for (const auto& j : jobs_)
        if (j->state == job_state::between && j->kind == job_kind::lending && j->wake <= now)
            woken.push_back(j.get());
    std::sort(woken.begin(), woken.end(),
              [](const job* a, const job* b) { return std::pair(a->wake, a->slept) < std::pair(b->wake, b->slept); });
    for (auto* j : woken)
        wake(*j);
    deliver(now);
}

void model::deliver(milliseconds now) {
    std::vector<job*> due(due_.begin(), due_.end()); // those that found no room before come first
    std::vector<job*> fresh;
    for (auto* j : timed_)
        if (j->state == job_state::timed && (j->due <= now || stopped_))
            fresh.push_back(j);
    std::sort(fresh.begin(), fresh.end(),
              [](const job* a, const job* b) { return std::pair(a->due, a->armed) < std::pair(b->due, b->armed); });
    due.insert(due.end(), fresh.begin(), fresh.end());
    due_.clear();
    bool kept_back = false;
    for (auto* j : due) {
        if (j->period > 0) {
            beat(*j, now);
            continue;
        }
        if (j->taken_back) {
            expect(*j, *j->taken_back);
            ++discarded_;
            j->state = job_state::gone;
            remove(timed_, *j);
            continue;
        }
        const bool was_closed = std::exchange(closed_, false); // it was accepted before
        const bool accepted = !kept_back && answer(*j) == submit_status::accepted;
        closed_ = was_closed;
        if (accepted) {
            push(*j);
            remove(timed_, *j);
        } else if (by_.when_full == overflow::reject) {
            expect(*j, discard_reason::no_room);
            ++discarded_;
            j->state = job_state::gone;
            remove(timed_, *j);
        } else {
            kept_back = true;
            j->state = job_state::due;
            due_.push_back(j);
        }
    }
}

void model::beat(job& of, milliseconds now) {
    if (closed_) {
        of.state = job_state::gone;
        remove(timed_, of);
        return;
    }
    bool given = false;
    if (!of.beat_waits) {
        job like;
        like.keys = of.keys;
        like.failures = of.failures;
        like.repeats = &of;
        job& b = make(like);
        given = answer(b) == submit_status::accepted;
        if (given) {
            push(b);
            ++accepted_;
            of.beat_waits = true;
        }
    }
    const auto passed = (now - of.due) / of.period + 1;
    of.due += of.period * passed;
    of.armed = order_++;
    of.missed += static_cast<std::uint64_t>(passed) - (given ? 1 : 0);
}

/// Why one that is the first under its keys may not start. `strictly`: for certain, as one that waits may say so that
/// the pool takes its time.
model::reason model::may_start(const job& j, milliseconds now, bool strictly) const {
    for (const auto& [key, state] : keys_) {
        if (j.kind == job_kind::barrier) {
            for (const auto* other : state.running)
                if (other->era < j.era || key == barrier_key)
                    return "a job before it has not ended: " + to_string(*other);
            for (const auto* other : state.waiting)
                if (other->era < j.era && (strictly || !is_dead(*other)))
                    return "a job before it waits: " + to_string(*other);
        } else if (key == barrier_key) {
            for (const auto* barrier : state.running)
                if (barrier->era <= j.era)
                    return "a barrier before it has not ended: " + to_string(*barrier);
            for (const auto* barrier : state.waiting)
                if (barrier->era <= j.era)
                    return "a barrier before it waits: " + to_string(*barrier);
        }
    }
    for (const int key : j.keys) {
        const auto& state = keys_.at(key);
        if (state.paused && (strictly || j.kind != job_kind::together))
            return "its key is paused";
        std::size_t shared = 0;
        for (const auto* other : state.running) {
            if (other->kind != job_kind::shared || j.kind != job_kind::shared)
                return "another job of its key has not ended: " + to_string(*other);
            if (++shared == by_.max_shared)
                return "as many shared jobs of its key run as may";
        }
        const bool needs_token =
            state.limited && !stopped_ && !goes_on(j) && (strictly || j.kind != job_kind::together);
        if (needs_token) {
            const auto full_at = strictly ? state.limited->full_at_latest : state.limited->full_at_earliest;
            if (full_at - static_cast<double>(state.limited->interval * (state.limited->burst - 1)) >
                static_cast<double>(now))
                return "its key has no token";
        }
    }
    return {};
}

/// Its turn has come under all its keys.
void model::must_be_first(job& j) {
    for (const int key : j.keys) {
        auto& waiting = keys_[key].waiting;
        while (!waiting.empty() && is_dead(*waiting.front()))
            waiting.pop_front();
        for (const auto* other : waiting) {
            if (other == &j)
                break;
            if (j.woken_by == 0 || other->woken_by != j.woken_by)
                fail(j, "comes to its turn before " + to_string(*other));
        }
    }
}

void model::starts(job& j, milliseconds now) {
    settle(now);
    j.asked |= stopped_;
    if (j.state == job_state::between) {
        if (j.wake > now)
            fail(j,
                 "goes on too early: it goes on at " + std::to_string(j.wake) + ", and now is " + std::to_string(now));
        if (j.backs_off && !j.woken && !(stopped_ && j.must_run))
            fail(j, "is tried again though it was asked to stop");
        retries_ += std::exchange(j.backs_off, false) ? 1 : 0;
        j.state = job_state::running;
        j.wake = never;
        ++j.attempt;
        return;
    }
    if (j.state != job_state::waiting)
        fail(j, "starts, but does not wait");
    must_be_first(j);
    if (const auto why = may_start(j, now, false); !why.empty())
        fail(j, "starts, but " + why);
    if (j.deadline < now && !j.begun)
        fail(j, "starts after its deadline");
    leave_queue(j);
    for (const int key : j.keys) {
        auto& state = keys_[key];
        state.running.push_back(&j);
        if (state.limited && !goes_on(j)) {
            auto& l = *state.limited;
            if (j.kind != job_kind::together)
                l.full_at_earliest =
                    std::max(l.full_at_earliest, static_cast<double>(now - catch_up)) + static_cast<double>(l.interval);
            l.full_at_latest = std::max(l.full_at_latest, static_cast<double>(now)) + static_cast<double>(l.interval);
        }
    }
    j.begun = true;
    j.woken_by = 0;
    j.state = job_state::running;
    ++j.attempt;
}

void model::finish(job& j) {
    for (const int key : j.keys)
        remove(keys_[key].running, j);
    j.state = job_state::done;
    if (j.repeats != nullptr)
        j.repeats->beat_waits = false;
    ++finished_;
    failed_ += j.failed ? 1 : 0;
}

void model::ends(job& j, bool threw, milliseconds now) {
    if (j.state != job_state::running)
        fail(j, "ends, but does not run");
    if (threw && j.attempt < j.attempts && !j.asked && !stopped_) {
        j.state = job_state::between;
        j.woken = false;
        j.backs_off = true;
        j.wake = now + (j.backoff << (j.attempt - 1));
        return;
    }
    j.failed = threw;
    if (!threw && j.stretch < j.pauses.size()) {
        const auto pause = j.pauses[j.stretch++];
        j.state = job_state::between;
        j.woken = false;
        j.wake = now + pause;
        j.slept = order_++;
        if (j.kind == job_kind::lending) {
            for (const int key : j.keys)
                remove(keys_[key].running, j);
            if (pause == 0)
                wake(j);
        }
        return;
    }
    if (!threw && j.takes_hold) {
        j.state = job_state::between;
        j.wake = never;
        return;
    }
    finish(j);
}

void model::discarded(job& j, discard_reason why, milliseconds now) {
    if (why == discard_reason::expired) {
        if (j.state != job_state::waiting)
            fail(j, "expires, but does not wait");
        must_be_first(j);
        if (const auto blocked = may_start(j, now, false); !blocked.empty())
            fail(j, "expires before its turn: " + blocked);
        if (j.deadline >= now)
            fail(j, "expires before its deadline");
        leave_queue(j);
        j.state = job_state::gone;
        j.expired = true;
        ++discarded_;
        ++expired_;
        return;
    }
    const auto found = expected_.find(&j);
    if (found == expected_.end())
        fail(j, "is discarded, for reason " + std::to_string(static_cast<int>(why)) + ", but should not be");
    if (found->second != why)
        fail(j, "is discarded for reason " + std::to_string(static_cast<int>(why)) + ", not " +
                    std::to_string(static_cast<int>(found->second)));
    expected_.erase(found);
}

std::optional<discard_reason> model::expected(const job& j) const {
    const auto found = expected_.find(&j);
    return found == expected_.end() ? std::nullopt : std::optional(found->second);
}

std::size_t model::expected(const std::string& key, discard_reason why) const {
    return static_cast<std::size_t>(std::count_if(expected_.begin(), expected_.end(), [&](const auto& e) {
        return e.second == why &&
               std::any_of(e.first->keys.begin(), e.first->keys.end(), [&](int each) { return name_of(each) == key; });
    }));
}

job* model::expected_to_live_on(const std::string& key, discard_reason why) const {
    for (const auto& j : jobs_) {
        const bool in_frame = j->has_future && (j->kind == job_kind::holding || j->kind == job_kind::lending);
        if ((j->repeats != nullptr || in_frame) && expected(*j) == why && name_of(j->keys.front()) == key)
            return j.get();
    }
    return nullptr;
}

void model::given_up(job& j) {
    if (j.state != job_state::between || !j.backs_off || j.woken)
        fail(j, "was given up between two attempts");
    j.failed = true;
    finish(j);
}

// --- What must hold --------------------------------------------------------------------------------------------------

void model::must_be_idle(milliseconds now) const {
    for (const auto& [key, state] : keys_) {
        auto at = state.waiting.begin();
        while (at != state.waiting.end() && is_dead(**at))
            ++at;
        // One that is dead waits for its turn like any other; what it waits for is not looked for here.
        const bool behind_dead = at != state.waiting.begin() && (state.limited || !state.running.empty());
        if (at != state.waiting.end() && !behind_dead) {
            const job& first = **at;
            const bool first_everywhere = std::all_of(first.keys.begin(), first.keys.end(), [&](int other) {
                const auto& waiting = keys_.at(other).waiting;
                const auto alive =
                    std::find_if(waiting.begin(), waiting.end(), [](const job* j) { return !is_dead(*j); });
                return *alive == &first;
            });
            if (first_everywhere && may_start(first, now, true).empty())
                fail(first, "could start, and does not");
        }
        for (const auto* j : state.running)
            if (j->state == job_state::between && j->wake <= now)
                fail(*j, "could go on, and does not");
    }
}

bool model::repeats() const {
    return std::any_of(timed_.begin(), timed_.end(), [](const job* j) { return j->period > 0; });
}

void model::must_be_stuck(milliseconds now) const {
    must_be_idle(now);
    for (const auto& j : jobs_) {
        const bool sleeps = j->state == job_state::between && j->wake != never;
        if (sleeps || j->state == job_state::timed)
            fail(*j, "time would help it, but a wait was refused as one without end");
    }
}

bool model::has_work(int key) const {
    return std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& j) {
        return contains(j->keys, key) && j->period == 0 && j->state != job_state::made && j->state != job_state::done &&
               j->state != job_state::gone;
    });
}

bool model::has_dead_places() const {
    return std::any_of(keys_.begin(), keys_.end(), [](const auto& each) {
        return std::any_of(each.second.waiting.begin(), each.second.waiting.end(), [](auto* j) { return is_dead(*j); });
    });
}

bool model::has_only_dead_places(int key) const {
    const auto found = keys_.find(key);
    return found != keys_.end() && !found->second.waiting.empty() && !has_work(key);
}

bool model::has_work() const {
    return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& j) {
        return j->period == 0 && j->state != job_state::made && j->state != job_state::done &&
               j->state != job_state::gone;
    });
}

void model::must_be_done() const {
    must_have_been_told();
    for (const auto& j : jobs_)
        if (j->period == 0 && j->state != job_state::made && j->state != job_state::done && j->state != job_state::gone)
            fail(*j, "is left at the end");
}

std::vector<int> model::active_keys() const {
    std::set<int> keys;
    for (const auto& j : jobs_)
        for (const int key : j->keys)
            if (key != barrier_key && has_work(key))
                keys.insert(key);
    return {keys.begin(), keys.end()};
}

std::vector<int> model::paused_keys() const {
    std::vector<int> keys;
    for (const auto& [key, state] : keys_)
        if (state.paused)
            keys.push_back(key);
    return keys;
}

void model::must_agree(const pool_stats& stats, bool idle) const {
    const auto check = [](const char* what, std::uint64_t told, std::uint64_t known) {
        if (told != known)
            throw mismatch("stats()." + std::string(what) + " is " + std::to_string(told) + ", not " +
                           std::to_string(known));
    };
    check("accepted", stats.accepted, accepted_);
    check("finished", stats.finished, finished_);
    check("failed", stats.failed, failed_);
    check("retries", stats.retries, retries_);
    check("discarded", stats.discarded, discarded_);
    check("expired", stats.expired, expired_);
    check("replaced", stats.replaced, replaced_);
    check("together", stats.together, together_);
    check("rejected", stats.rejected, rejected_);
    check("timers", stats.timers, timed_.size());
    check("paused_keys", stats.paused_keys, paused_keys().size());
    std::size_t waiting = 0, shared = 0, barriers = 0;
    for (const auto& j : jobs_) {
        const bool in_lane = j->state == job_state::waiting;
        const bool begun = j->state == job_state::running || j->state == job_state::between;
        waiting += takes_room(*j) ? 1 : 0;
        shared += j->kind == job_kind::shared && begun ? 1 : 0;
        barriers += j->kind == job_kind::barrier && (in_lane || begun) ? 1 : 0;
    }
    check("waiting", stats.waiting, waiting);
    check("shared", stats.shared, shared);
    check("barriers", stats.barriers, barriers);
    if (idle)
        check("running", stats.running, 0);
}

} // namespace taskpool::random
