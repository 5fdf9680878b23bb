// SPDX-License-Identifier: Apache-2.0
#include "rate.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "barrier.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"

namespace taskpool::detail {

namespace {

using std::chrono::nanoseconds;

constexpr auto catch_up = std::chrono::milliseconds(20);     // some ticks: what a keeper may be late by
constexpr auto longest = nanoseconds(std::int64_t{1} << 60); // 36 years: until a token comes, or a burst

nanoseconds clamped_up(double time) noexcept {
    const auto most = static_cast<double>(longest.count());
    return time < most ? nanoseconds(static_cast<std::int64_t>(std::ceil(time))) : longest;
}

} // namespace

// --- Reckoning -------------------------------------------------------------------------------------------------------

pace::pace(const rate& of) {
    const auto refuse = [](const char* why) { throw std::invalid_argument(std::string("taskpool::rate: ") + why); };
    if (!(of.jobs > 0))
        refuse("jobs is not positive");
    if (of.per <= of.per.zero())
        refuse("per is not positive");
    if (of.burst < 1)
        refuse("burst is 0");
    const double exact = std::min(static_cast<double>(of.per.count()) / of.jobs, static_cast<double>(longest.count()));
    interval_ = nanoseconds(static_cast<std::int64_t>(exact)); // rounded down, so that no whole time comes a tick late
    ahead_ = clamped_up(static_cast<double>(interval_.count()) * (of.burst - 1));
}

bucket::time_point bucket::next_token() const noexcept {
    return full_at <= time_point::min() + at.ahead_ ? time_point::min() : full_at - at.ahead_;
}

void bucket::take(time_point now) noexcept {
    const bool makes_good = has_waited && later(full_at, catch_up) >= now;
    full_at = later(makes_good ? full_at : std::max(full_at, now), at.interval_);
    has_waited = makes_good && full_at < now;
}

void bucket::give_back() noexcept {
    if (full_at >= time_point::min() + at.interval_)
        full_at -= at.interval_;
}

void bucket::change(const pace& to, time_point now) noexcept {
    if (full_at > now && !at.is_unlimited()) {
        const auto length = [](nanoseconds time) { return static_cast<double>(time.count()); };
        const double lacks = length(full_at - now) / length(at.interval_);
        const auto most = to.ahead_ + to.interval_;
        const double time = std::ceil(lacks * length(to.interval_));
        full_at = later(now, time < length(most) ? nanoseconds(static_cast<std::int64_t>(time)) : most);
    }
    at = to;
}

// --- The buckets of a shard ------------------------------------------------------------------------------------------

bucket* rate_table::find(const lane& l) noexcept {
    if (!buckets)
        return nullptr;
    const auto found = buckets->find(&l);
    return found == buckets->end() ? nullptr : &found->second;
}

bucket& rate_table::find_or_make(lane& l, const pace& at) {
    if (!buckets)
        buckets = std::make_unique<std::unordered_map<const lane*, bucket>>();
    const auto [place, is_new] = buckets->try_emplace(&l, l, at);
    if (is_new) {
        ++l.pins;
        place->second.fire = [](pool_core& core, pool_timer& self) noexcept { core.fire(static_cast<bucket&>(self)); };
    }
    return place->second;
}

void rate_table::erase(const bucket& b) noexcept {
    assert(!b.waits && !b.armed && !b.is_own && b.in.pins > 0); // I-RATE-1
    --b.in.pins;
    buckets->erase(&b.in);
    if (buckets->empty())
        buckets.reset();
}

void rate_table::shrink() noexcept {
    if (!buckets || buckets->bucket_count() < 64 || buckets->size() > buckets->bucket_count() / 4)
        return;
    try {
        buckets->rehash(0);
    } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): it stays as large as it is
    }
}

/// Has the timer fire then, or before. Whether the keeper must be woken. REQUIRES: the shard's lock.
static bool arm_locked(timers& time, bucket& b, timers::time_point when) noexcept {
    if (b.armed && (b.fires_at <= when || !time.remove(b)))
        return false; // if the keeper has it, that looks when to be next
    b.armed = true;
    b.fires_at = when;
    return time.add(b, when);
}

// --- Between two jobs ------------------------------------------------------------------------------------------------

/// Takes a token if there is one; else the lane has to wait. REQUIRES: both locks.
bool pool_core::keep_waiting_locked(shard& s, bucket& b, timers::time_point now) noexcept {
    end_waiting_locked(s, b);
    if (b.at.is_unlimited()) {
        b.full_at = now;
        if (!b.is_own && arm_locked(time, b, now)) // which ends it
            poke_keeper();
        return false;
    }
    const auto taken = b.in.taken.load(std::memory_order_relaxed); // under the lane's lock
    if (taken != b.last_job)
        b.has_waited = false; // it was idle meanwhile
    const bool has_token = b.next_token() <= now;
    b.last_job = taken + (has_token ? 1 : 0);
    if (has_token) {
        b.take(now);
    } else {
        b.waits = b.has_waited = true;
        ++s.limited;
    }
    // While it makes good for lateness, it may be full for moments: it does not end then.
    if (arm_locked(time, b, has_token ? std::max(b.full_at, later(now, catch_up)) : b.next_token()))
        poke_keeper();
    assert(!b.waits || b.armed); // I-RATE-2
    return !has_token;
}

/// The bucket's timer has fired.
void pool_core::fire(bucket& b) noexcept {
    lane& l = b.in;
    shard& s = shard_of(l);
    std::optional<tick> ready;
    const auto now = time.now();
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        b.armed = false;
        if (is_stopping())
            return; // the bucket ends with the pool
        // By the keeper, which looks again before it sleeps:
        const auto arm = [&](bucket::time_point when) { static_cast<void>(arm_locked(time, b, when)); };
        if (b.waits && b.next_token() > now) {
            arm(b.next_token());
        } else if (b.waits) {
            ready = wake_locked(s, l);
            // Its worker asks for the token, and sets the timer anew if need be; who cancels the lane's jobs does not.
            arm(std::max(later(b.next_token(), b.at.interval()), later(now, catch_up)));
        } else if (!b.is_full(now) && (b.is_own || s.rates.all_attend)) {
            arm(b.full_at);
        } else if (!b.is_own) {
            s.rates.erase(b);
            l.attends = l.paused || attends_locked(s, l);
        }
    }
    if (ready)
        enqueue(l, *ready); // ours since it is active and in no queue
}

/// A job for which a token was taken has not been run after all.
void pool_core::give_token_back(lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard lock(s.lock);
    if (bucket* const b = s.rates.find(key_lane_locked(l)))
        b->give_back();
}

/// Whether the lane waits for a token. REQUIRES: pinned.
bool pool_core::is_limited(const lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard lock(s.lock);
    const bucket* const b = s.rates.find(l);
    return b != nullptr && b->waits;
}

// --- Changing rates --------------------------------------------------------------------------------------------------

void pool_core::limit(const key_view& key, const rate& most) {
    const pace own(most);
    if (is_forked())
        return;
    const auto [s, hash] = place_of(key);
    const auto now = time.now();
    lane* l = nullptr;
    std::optional<tick> ready;
    {
        const std::lock_guard shard_lock(s.lock);
        if (s.frozen)
            return;
        l = &s.table.find_or_make_locked(key, hash);
        bucket& b = s.rates.find_or_make(*l, own);
        b.is_own = true;
        b.change(own, now);
        const std::lock_guard lock(l->head_lock);
        l->attends = true;
        if (b.waits)
            ready = wake_locked(s, *l);
    }
    if (ready)
        enqueue(*l, *ready);
}

bool pool_core::unlimit(const key_view& key) {
    if (is_forked())
        return false;
    const auto [s, hash] = place_of(key);
    lane* l = nullptr;
    std::optional<tick> ready;
    {
        const std::lock_guard shard_lock(s.lock);
        l = s.table.find_locked(key, hash);
        bucket* const b = l != nullptr ? s.rates.find(*l) : nullptr;
        if (b == nullptr || !b->is_own)
            return false;
        b->is_own = false;
        b->version = 0;
        if (arm_locked(time, *b, time.now())) // which ends it, if it may
            poke_keeper();
        const std::lock_guard lock(l->head_lock);
        if (b->waits)
            ready = wake_locked(s, *l);
    }
    if (ready)
        enqueue(*l, *ready);
    return true;
}

void pool_core::limit_all(const std::optional<rate>& most) {
    if (most)
        static_cast<void>(pace(*most)); // throws where it makes no sense
    change_rates([&](common_rates& rates) { rates.all = most; });
}

void pool_core::limit_by(rate_function f) {
    auto by = std::make_shared<const rate_function>(std::move(f));
    change_rates([&](common_rates& rates) { rates.by.swap(by); }); // the one before ends here, under no lock
}

template <class Change>
void pool_core::change_rates(Change change) {
    if (is_forked())
        return;
    auto changed = std::make_shared<common_rates>();
    const std::lock_guard lock(rates_mutex_);
    if (rates_)
        *changed = *rates_;
    change(*changed);
    rates_ = changed;
    for (auto& s : shards) {
        const std::lock_guard shard_lock(s.lock);
        if (s.frozen)
            return;
        tell_of_rates_locked(s, *changed);
    }
}

void pool_core::tell_of_rates_locked(shard& s, const common_rates& rates) noexcept {
    ++s.rates.version;
    s.rates.all_attend = rates.all || rates.by;
    s.table.have_new_ones_attend_locked(s.rates.all_attend || s.guarded);
    bool wakes_keeper = false;
    for (lane* const l : s.table.places_locked()) {
        if (l == nullptr)
            continue;
        std::optional<tick> ready;
        {
            const std::lock_guard lock(l->head_lock);
            bucket* const b = s.rates.find(*l);
            l->attends = l->paused || attends_locked(s, *l);
            if (b != nullptr && b->waits)
                ready = wake_locked(s, *l);
            if (b != nullptr && !b->is_own && !s.rates.all_attend)
                wakes_keeper |= arm_locked(time, *b, bucket::time_point::min()); // which ends it
        }
        if (ready)
            enqueue(*l, *ready); // a ready queue's lock may be taken under a shard's
    }
    if (wakes_keeper)
        poke_keeper();
}

/// What the rates for all keys say of one. REQUIRES: no lock held; the lane's key stays.
pace pool_core::common_pace(const lane& l) const noexcept {
    std::shared_ptr<const common_rates> rates;
    {
        const std::lock_guard lock(rates_mutex_);
        rates = rates_;
    }
    if (!rates)
        return pace::without_limit();
    try {
        if (rates->by)
            if (const auto own = (*rates->by)(maker.key_of(l)))
                return pace(*own);
    } catch (...) { // NOLINT(bugprone-empty-catch): the rate of all keys counts
    }
    return rates->all ? pace(*rates->all) : pace::without_limit();
}

} // namespace taskpool::detail
