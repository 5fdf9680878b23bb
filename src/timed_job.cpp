// SPDX-License-Identifier: Apache-2.0
// From schedule() to the lane, or to a discard. Longer than 400 lines, since who makes, takes back, delivers and ends
// one rely on one another's marks.
#include "timed_job.hpp"

#include <algorithm>
#include <bitset>
#include <cassert>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <utility>

#include <taskpool/timer.hpp>

#include "pool_core.hpp"
#include "retry.hpp"

namespace taskpool::detail {

namespace {

constexpr std::size_t taken_under_one_lock = 256; // timed jobs

/// The key behind a timed job. REQUIRES: its alignment divides the object's size, or is the object's.
std::size_t key_offset(const key_type& keys) noexcept {
    return (sizeof(timed_job) + keys.alignment - 1) / keys.alignment * keys.alignment;
}
std::align_val_t alignment_of(const key_type& keys) noexcept {
    return std::align_val_t(keys.alignment > alignof(timed_job) ? keys.alignment : alignof(timed_job));
}
void* key_of(timed_job& t, const key_type& keys) noexcept {
    return reinterpret_cast<std::byte*>(&t) + key_offset(keys);
}
const void* key_of(const timed_job& t, const key_type& keys) noexcept {
    return reinterpret_cast<const std::byte*>(&t) + key_offset(keys);
}

void* allocate(std::size_t size, std::align_val_t alignment) {
    return static_cast<std::size_t>(alignment) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__ ? ::operator new(size)
                                                                                   : ::operator new(size, alignment);
}
void deallocate(void* memory, std::align_val_t alignment) noexcept {
    if (static_cast<std::size_t>(alignment) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__)
        ::operator delete(memory);
    else
        ::operator delete(memory, alignment);
}

struct was_taken_back {};

/// Whether stop() has looked through the shard's lanes, and will take this back next. REQUIRES: the shard's lock.
bool stop_takes_back_locked(const shard& s, const timed_job& t) noexcept {
    return s.frozen && t.on_stop != stop_action::run;
}

/// Hands the job of one that runs once to its lane, unless it is taken back first: the shard's lock decides.
struct hand_over final : job_source {
    timed_job& t;
    const shard& in;
    hand_over(timed_job& from, const shard& of_key) noexcept : t(from), in(of_key) {
        was_accepted = tries_again = true;
        ops = t.ops;
        store = [](job_source& self, void* storage) {
            auto& source = static_cast<hand_over&>(self);
            timed_job& moved = source.t;
            if (moved.taken_back || stop_takes_back_locked(source.in, moved))
                throw was_taken_back();
            move_callable(*moved.ops, storage, moved.storage);
            moved.ops = nullptr; // it is delivered
        };
    }
};

/// A beat, as it lies in the lane.
class beat {
  public:
    beat(pool_core& core, timed_job& of) noexcept : core_(&core), of_(&of) {}
    beat(beat&& other) noexcept : core_(other.core_), of_(std::exchange(other.of_, nullptr)) {}
    beat& operator=(beat&&) = delete;
    ~beat() {
        if (of_ == nullptr)
            return;
        core_->drop_timed(*of_, true);
    }
    void run(const running_job& job) {
        if (!core_->is_taken_back(*of_))
            of_->repeated().ops->run(of_->repeated().storage, job);
        else if (job.earlier_attempts > 0)
            throw not_tried();
    }

  private:
    pool_core* core_;
    timed_job* of_;
};

constexpr job_ops beat_ops = {
    [](void* storage, const running_job& job) { static_cast<beat*>(storage)->run(job); },
    [](void* storage) { static_cast<beat*>(storage)->~beat(); },
    nullptr, // its bytes may be copied
    job_kind::of_pool,
};

} // namespace

// --- Submitting ------------------------------------------------------------------------------------------------------

scheduled schedule(pool_core& core, const key_view& key, job_source& job, const job_options& how,
                   std::chrono::steady_clock::time_point when, std::chrono::nanoseconds period) {
    return core.schedule(key, job, how, when, period);
}

std::chrono::steady_clock::time_point pool_now(const pool_core& core) noexcept { return core.time.now(); }

scheduled pool_core::schedule(const key_view& key, job_source& job, const job_options& how, timers::time_point when,
                              std::chrono::nanoseconds period) {
    if (is_forked())
        return {submit_status::stopped, nullptr};
    const auto& keys = maker.keys;
    const auto alignment = alignment_of(keys);
    const auto [s, hash] = place_of(key);
    std::unique_ptr<repetition> repeated;
    if (period > period.zero())
        repeated.reset(new repetition{period, when, nullptr, {}});
    void* const memory = allocate(key_offset(keys) + keys.size, alignment);
    auto* const t = new (memory) timed_job;
    const auto undo = [&] {
        t->~timed_job();
        deallocate(memory, alignment);
    };
    try {
        keys.construct(key_of(*t, keys), key.view);
    } catch (...) {
        undo();
        throw;
    }
    t->hash = hash;
    t->shard = static_cast<std::uint16_t>(&s - shards.data());
    t->on_stop = how.on_stop;
    t->priority = how.priority;
    t->repeats = repeated != nullptr;
    t->fire = [](pool_core& self, pool_timer& due) noexcept { self.fall_due(static_cast<timed_job&>(due)); };
    submit_status refusal = submit_status::accepted;
    bool wake = false;
    // relaxed: a count by itself. Counted first, so that there are never more.
    if (timed_.fetch_add(1, std::memory_order_relaxed) >= settings.timer_capacity)
        refusal = submit_status::full;
    try {
        const std::lock_guard lock(s.lock);
        if (s.closed)
            refusal = submit_status::stopped;
        if (refusal == submit_status::accepted) {
            job.store(job, repeated ? repeated->storage : t->storage);
            if (repeated) {
                repeated->ops = job.ops;
                new (t->storage) repetition*(repeated.release());
            } else {
                t->ops = job.ops;
                ++s.accepted;
                ++s.timed;
            }
            t->has_handle = true;
            t->listed = true;
            s.timed_jobs.add(*t);
            wake = time.add(*t, when);
        }
    } catch (...) {
        timed_.fetch_sub(1, std::memory_order_relaxed); // as above
        keys.destroy(key_of(*t, keys));
        undo();
        throw;
    }
    if (refusal != submit_status::accepted) {
        timed_.fetch_sub(1, std::memory_order_relaxed); // as above
        keys.destroy(key_of(*t, keys));
        undo();
        s.rejected.fetch_add(1, std::memory_order_relaxed); // a figure by itself
        return {refusal, nullptr};
    }
    if (wake)
        poke_keeper();
    return {submit_status::accepted, t};
}

// --- Its end ---------------------------------------------------------------------------------------------------------

/// REQUIRES: the shard's lock.
void pool_core::unlist_locked(shard& s, timed_job& t) noexcept {
    assert(t.listed && (t.repeats || s.timed > 0)); // I-TIMED-1
    t.listed = false;
    s.timed_jobs.remove(t);
    timed_.fetch_sub(1, std::memory_order_relaxed); // as in schedule
    if (!t.repeats)
        --s.timed;
    tell_drainers_locked(s);
}

/// Gives up the list's part in it, or a beat's. The callable ends with the last of them, whether there is a handle or
/// not.
void pool_core::drop_timed(timed_job& t, bool by_beat) noexcept {
    if (is_forked())
        return; // a handler has forked: another thread may have had the lock
    shard& s = shards[t.shard];
    {
        const std::lock_guard lock(s.lock);
        if (by_beat)
            t.beat_waits = false;
        if (t.users > 1) {
            --t.users;
            return;
        }
    }
    // Nobody else uses it; its end may drop the handle.
    if (t.repeats)
        destroy_callable(key_of(t, maker.keys), t.repeated().ops, t.repeated().storage);
    else if (t.ops != nullptr)
        destroy_callable(key_of(t, maker.keys), t.ops, t.storage);
    {
        const std::lock_guard lock(s.lock);
        t.users = 0;
        if (t.has_handle)
            return;
    }
    free_timed(t);
}

void pool_core::drop_handle(timed_job& t) noexcept {
    {
        const std::lock_guard lock(shards[t.shard].lock);
        t.has_handle = false;
        if (t.users > 0)
            return;
    }
    free_timed(t);
}

void pool_core::free_timed(timed_job& t) const noexcept {
    const auto& keys = maker.keys;
    if (t.repeats)
        delete &t.repeated();
    keys.destroy(key_of(t, keys));
    t.~timed_job();
    deallocate(&t, alignment_of(keys));
}

/// Reports one that will not run. REQUIRES: no lock held; unlisted; the caller has the list's part in it.
void pool_core::discard_timed(timed_job& t, discard_reason why) noexcept {
    if (!t.repeats)
        report_discard(key_of(t, maker.keys), why);
    drop_timed(t);
}

static bool has_key(const lane_maker& maker, const timed_job& t, const key_view& key) {
    return maker.keys.equal(maker.functions.get(), key_of(t, maker.keys), key.view);
}

/// Whether its lane has it, though it may still be listed. REQUIRES: the shard's lock.
static bool is_delivered_locked(const timed_job& t) noexcept { return !t.repeats && t.ops == nullptr; }

/// Takes it back. True: the caller has to discard it; else the keeper will. REQUIRES: the shard's lock; listed, neither
/// taken back nor delivered.
bool pool_core::take_back_locked(shard& s, timed_job& t, bool by_stop) noexcept {
    assert(t.listed && !t.taken_back && !is_delivered_locked(t)); // I-TIMED-2
    t.by_stop = by_stop;
    t.taken_back = true;
    if (!time.remove(t))
        return false; // the keeper has it, and looks at the mark
    if (!t.repeats)
        ++s.discarded;
    unlist_locked(s, t);
    return true;
}

bool pool_core::cancel_timed(timed_job& t) noexcept {
    if (is_forked())
        return false;
    shard& s = shards[t.shard];
    {
        const std::lock_guard lock(s.lock);
        if (!t.listed || t.taken_back || is_delivered_locked(t))
            return false;
        if (!take_back_locked(s, t, false))
            return true;
    }
    discard_timed(t, discard_reason::cancelled);
    return true;
}

bool pool_core::is_taken_back(timed_job& t) noexcept {
    const std::lock_guard lock(shards[t.shard].lock);
    return t.taken_back;
}

/// Takes back the timed jobs of a shard: those of a key, or all but those that stop() must run. Returns how many that
/// run once were discarded, and how many the keeper will discard. REQUIRES: no lock held. Throws what comparing keys
/// throws.
std::pair<std::size_t, std::size_t> pool_core::take_back_timed(shard& s, const key_view* key, std::uint32_t hash) {
    const bool by_stop = key == nullptr;
    std::size_t discarded = 0;
    std::size_t marked = 0;
    timed_job* taken = nullptr; // by `next`, which is ours once the timer is unlinked
    std::size_t most = 0;
    const auto take_chain_locked = [&](timed_job* t) {
        while (t != nullptr && most > 0) {
            timed_job& chosen = *std::exchange(t, t->next_in_chain);
            if (chosen.taken_back || is_delivered_locked(chosen))
                continue;
            if (by_stop ? !chosen.repeats && chosen.on_stop == stop_action::run
                        : chosen.hash != hash || !has_key(maker, chosen, *key))
                continue;
            if (take_back_locked(s, chosen, by_stop)) {
                chosen.next = std::exchange(taken, &chosen);
                --most;
            } else {
                marked += chosen.repeats ? 0 : 1;
            }
        }
    };
    std::exception_ptr error;
    do {
        most = taken_under_one_lock;
        {
            const std::lock_guard lock(s.lock);
            try {
                if (by_stop)
                    for (std::size_t i = 0; i < s.timed_jobs.chains(); ++i)
                        take_chain_locked(s.timed_jobs.chain(i));
                else
                    take_chain_locked(s.timed_jobs.chain_of(hash));
            } catch (...) {
                error = std::current_exception();
            }
        }
        while (taken != nullptr) {
            timed_job& t = *std::exchange(taken, static_cast<timed_job*>(taken->next));
            discarded += t.repeats ? 0 : 1;
            discard_timed(t, by_stop ? discard_reason::stopped : discard_reason::cancelled);
        }
    } while (most == 0 && !error && !is_forked());
    if (error)
        std::rethrow_exception(error);
    return {discarded, marked};
}

/// Discards a shard's timed jobs, but for those that must run.
void pool_core::discard_all_timed(shard& s) noexcept {
    const auto count = take_back_timed(s, nullptr, 0).first;
    discarded_by_stop_.fetch_add(count, std::memory_order_relaxed); // a figure, read after the join
}

std::size_t pool_core::cancel_timed(shard& s, const key_view& key, std::uint32_t hash) {
    const auto [discarded, marked] = take_back_timed(s, &key, hash);
    return discarded + marked;
}

/// Whether a job of the key waits for its time. REQUIRES: the shard's lock.
bool pool_core::has_timed_locked(const shard& s, const key_view& key, std::uint32_t hash) const {
    for (const timed_job* t = s.timed_jobs.chain_of(hash); t != nullptr; t = t->next_in_chain)
        if (!t->repeats && t->hash == hash && has_key(maker, *t, key))
            return true;
    return false;
}

void visit_timed_keys_locked(const lane_maker& maker, const shard& s, key_visitor visitor) {
    struct look_up {
        const shard& in;
        std::uint32_t hash;
        const lane* found;
    };
    for (std::size_t i = 0; i < s.timed_jobs.chains(); ++i) {
        for (const timed_job* t = s.timed_jobs.chain(i); t != nullptr; t = t->next_in_chain) {
            if (t->repeats)
                continue;
            const void* const key = key_of(*t, maker.keys);
            // Of several only the last in the chain.
            const timed_job* other = t->next_in_chain;
            while (other != nullptr && (other->repeats || other->hash != t->hash ||
                                        !maker.keys.same(maker.functions.get(), key, key_of(*other, maker.keys))))
                other = other->next_in_chain;
            if (other != nullptr)
                continue;
            look_up c{s, t->hash, nullptr};
            maker.keys.look(key, &c, [](void* self, const void* view) {
                auto& [in, hash, found] = *static_cast<look_up*>(self);
                found = in.table.find_locked({view, 0}, hash);
            });
            if (c.found == nullptr || c.found->state == lane_state::idle)
                visitor.visit(visitor.self, key, 0, 0);
        }
    }
}

// --- Its time --------------------------------------------------------------------------------------------------------

/// Submits a job under the key of a timed one, without waiting.
submit_status pool_core::submit_for_timed(timed_job& t, job_source& job) noexcept {
    struct call {
        pool_core& core;
        timed_job& t;
        job_source& job;
        submit_status answer = submit_status::full;
    } c{*this, t, job};
    try {
        maker.keys.look(key_of(t, maker.keys), &c, [](void* self, const void* view) {
            auto& [core, of, what, answer] = *static_cast<call*>(self);
            const job_options how{.on_stop = of.on_stop, .priority = of.priority};
            answer = core.submit_in(core.shards[of.shard], of.hash, {view, 0}, what, how, {patience::none}).status();
        });
    } catch (const was_taken_back&) { // NOLINT(bugprone-empty-catch): the caller finds the mark
    } catch (...) {                   // NOLINT(bugprone-empty-catch): no memory for the lane is no room
    }
    return c.answer;
}

/// One try to hand it over, or none, but to see whether it was taken back. False when there is no room yet.
bool pool_core::try_to_deliver(timed_job& t, bool is_known_full) noexcept {
    shard& s = shards[t.shard];
    auto answer = submit_status::full;
    if (!is_known_full) {
        hand_over source(t, s);
        answer = submit_for_timed(t, source);
    }
    bool discards = false;
    auto why = discard_reason::no_room;
    {
        const std::lock_guard lock(s.lock);
        if (t.ops != nullptr) {
            if (t.taken_back)
                why = t.by_stop ? discard_reason::stopped : discard_reason::cancelled;
            else if (answer == submit_status::full &&
                     (settings.when_full != overflow::reject || stop_takes_back_locked(s, t)))
                return false;
            discards = true;
            ++s.discarded;
        }
        unlist_locked(s, t);
    }
    if (discards) {
        if (why == discard_reason::stopped)
            discarded_by_stop_.fetch_add(1, std::memory_order_relaxed); // a figure, read after the join
        discard_timed(t, why);
    } else {
        drop_timed(t);
    }
    return true;
}

/// The keeper has unlinked its timer.
void pool_core::fall_due(timed_job& t) noexcept {
    assert(!t.is_linked() && (last_due_ == nullptr || last_due_->due <= t.due)); // I-TIMED-3
    t.next = nullptr;
    if (last_due_ != nullptr)
        last_due_->next = &t;
    else
        first_due_ = &t;
    last_due_ = &t;
}

/// For the keeper: hands over those that are due, in that order; whether some found no room.
bool pool_core::deliver_due() noexcept {
    timed_job* all = std::exchange(first_due_, nullptr);
    last_due_ = nullptr;
    if (all == nullptr)
        return false;
    // Behind one that found no room no other of its key is tried: it might find some, and come first. The keys are told
    // apart by some bits of their hashes, by others each time, so that no key waits long for another.
    constexpr unsigned bits = 12;
    std::bitset<std::size_t{1} << bits> full;
    due_salt_ += 0x9E3779B97F4A7C15U; // odd multiples of the golden ratio
    do {
        timed_job& t = *all;
        all = static_cast<timed_job*>(t.next);
        if (t.repeats) {
            fire_beat(t);
            continue;
        }
        const auto bit = ((std::uint64_t{t.shard} << 32 | t.hash) * (due_salt_ | 1)) >> (64 - bits);
        if (!try_to_deliver(t, full[bit])) {
            full.set(bit);
            fall_due(t);
        }
    } while (all != nullptr);
    return first_due_ != nullptr;
}

void pool_core::fire_beat(timed_job& t) noexcept {
    repetition& r = t.repeated();
    shard& s = shards[t.shard];
    const auto ends_locked = [&] {
        if (!t.taken_back && !s.closed)
            return false;
        t.taken_back = true;
        unlist_locked(s, t);
        return true;
    };
    const auto now = time.now(); // before the beat can run, and the clock be moved for the next
    bool ended = false;
    bool given = false;
    {
        const std::lock_guard lock(s.lock);
        ended = ends_locked();
        if (!ended && !t.beat_waits) {
            given = t.beat_waits = true;
            ++t.users;
        }
    }
    if (!ended) {
        if (given) {
            struct source final : job_source {
                beat made;
                explicit source(beat b) noexcept : made(std::move(b)) {
                    tries_again = true;
                    ops = &beat_ops;
                    store = [](job_source& self, void* storage) {
                        new (storage) beat(std::move(static_cast<source&>(self).made));
                    };
                }
            } from(beat(*this, t)); // if it is not accepted, it ends itself
            given = submit_for_timed(t, from) == submit_status::accepted;
        }
        // No drift: beats are whole periods after the first. Those whose time is over are passed over.
        const auto late = std::max(now - r.next, r.period.zero());
        const auto passed = late / r.period + 1;
        const auto left = timers::time_point::max() - r.next;
        r.next = left / r.period < passed ? timers::time_point::max() : r.next + r.period * passed;
        r.missed.fetch_add(static_cast<std::uint64_t>(passed) - (given ? 1 : 0),
                           std::memory_order_relaxed); // a figure by itself
        const std::lock_guard lock(s.lock);
        ended = ends_locked();
        if (!ended)
            static_cast<void>(time.add(t, r.next)); // by the keeper, which looks again before it sleeps
    }
    if (ended)
        discard_timed(t, discard_reason::cancelled);
}

} // namespace taskpool::detail

namespace taskpool {

timer::timer(std::shared_ptr<detail::pool_core> core, detail::timed_job* job) noexcept
    : answer_(submit_status::accepted), core_(std::move(core)), job_(job) {}

timer& timer::operator=(timer&& other) noexcept {
    std::swap(answer_, other.answer_);
    std::swap(core_, other.core_);
    std::swap(job_, other.job_);
    return *this;
}

timer::~timer() {
    if (job_ != nullptr && !core_->is_forked())
        core_->drop_handle(*job_);
}

bool timer::cancel() noexcept { return job_ != nullptr && core_->cancel_timed(*job_); }

std::uint64_t timer::missed() const noexcept {
    // relaxed: a figure by itself.
    return job_ != nullptr && job_->repeats ? job_->repeated().missed.load(std::memory_order_relaxed) : 0;
}

} // namespace taskpool
