// SPDX-License-Identifier: Apache-2.0
// Results and who waits for them. Waiters lie in a list, under a lock of a few instructions; finish() takes the list
// and tells each of them once.
//
//   I-FUTURE-1  A waiter is told by finish() or finds the result ready when it adds itself, never both.
//   I-FUTURE-2  finish() touches nothing of what is not counted once it has told the last waiter. [checked by:
//               AddressSanitizer, in the tests of futures and in the soak]
#include <taskpool/detail/future.hpp>

#include <cassert>
#include <mutex>
#include <new>
#include <utility>

#include "coroutine.hpp"
#include "manual.hpp"
#include "pool_core.hpp"
#include "sync.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

struct future_core::parts {
    sync::atomic<std::uint32_t> references;
    sync::atomic<std::uint32_t> number;
    sync::spin_lock lock;
    bool comes_again = false; // constant from its submission on
    // Under lock:
    bool ready = false;
    future_waiter* waiters = nullptr;
    const future_core* before = nullptr;
};

future_core::future_core(dispose_function dispose, unsigned references) noexcept : dispose_(dispose) {
    static_assert(sizeof(parts) <= sizeof(parts_) && alignof(parts) <= alignof(void*));
    new (parts_) parts{references, 0, {}};
}

future_core::~future_core() { own().~parts(); }

future_core::parts& future_core::own() const noexcept { return *std::launder(reinterpret_cast<parts*>(parts_)); }

// relaxed: who passes a reference on orders that by other means.
void future_core::share() noexcept { own().references.fetch_add(1, std::memory_order_relaxed); }

void future_core::drop() noexcept {
    // release: what this reference was used for comes before the end; pairs with the acquire of whoever drops the last.
    if (own().references.fetch_sub(1, std::memory_order_acq_rel) == 1)
        dispose_(*this);
}

// relaxed: for the wait graph, which reads it under the shard's lock, as it is written; or before there is another
// thread that could know of the job.
void future_core::set_number() noexcept {
    own().number.store(lane_->pushed.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
std::uint32_t future_core::number() const noexcept { return own().number.load(std::memory_order_relaxed); }

void future_core::set_comes_again() noexcept { own().comes_again = true; }
bool future_core::comes_again() const noexcept { return own().comes_again; }

bool future_core::is_wanted() const noexcept {
    // relaxed: a future that is dropped at this moment may or may not be counted.
    return dispose_ == nullptr || own().references.load(std::memory_order_relaxed) > 1;
}

void future_core::finish(std::exception_ptr error) noexcept {
    future_waiter* waiters = nullptr;
    {
        const std::lock_guard lock(own().lock);
        assert(!own().ready); // I-FUTURE-1
        error_ = std::move(error);
        own().ready = true;
        waiters = std::exchange(own().waiters, nullptr);
    }
    // The lane that the waits name is there until this call returns (I-GRAPH-1).
    for (const future_waiter* w = waiters; w != nullptr; w = w->next)
        if (w->recorded_in != nullptr)
            wait_graph::instance().leave(*w->recorded_in, this);
    while (waiters != nullptr) {
        future_waiter& w = *std::exchange(waiters, waiters->next);
        w.ready(w);
    }
}

void future_core::abandon() noexcept {
    if (error_ && !is_wanted()) // of an attempt that is not repeated: the job still has its lane
        pool_->report_failure(pool_->describe(*lane_), error_);
    finish(error_ ? error_ : std::make_exception_ptr(job_discarded()));
}

bool future_core::is_ready() const noexcept {
    const std::lock_guard lock(own().lock);
    return own().ready;
}

void future_core::follow(const future_core* before) noexcept {
    const std::lock_guard lock(own().lock);
    own().before = before;
}

bool future_core::each_before(void* self, bool (*visit)(void* self, const future_core& before)) const {
    // Each is locked before the one that follows it is released: until then it is not freed.
    std::unique_lock lock(own().lock);
    for (const future_core* f = own().before; f != nullptr;) {
        std::unique_lock next(f->own().lock);
        if (f->own().ready)
            break; // and may be freed as soon as the one that follows is released
        if (!visit(self, *f))
            return false;
        f = f->own().before;
        lock = std::move(next);
    }
    return true;
}

bool future_core::add(future_waiter& w) const noexcept {
    const std::lock_guard lock(own().lock);
    if (own().ready)
        return false;
    w.next = std::exchange(own().waiters, &w);
    return true;
}

/// False when it has been taken by finish() already.
bool future_core::remove(future_waiter& w) const noexcept {
    const std::lock_guard lock(own().lock);
    for (future_waiter** at = &own().waiters; *at != nullptr; at = &(*at)->next) {
        if (*at == &w) {
            *at = w.next;
            return true;
        }
    }
    return false;
}

bool future_core::wait(const patience& how_long) const {
    struct thread_waiter : future_waiter {
        sync::event told;
    } waiter;
    waiter.ready = [](future_waiter& self) noexcept { static_cast<thread_waiter&>(self).told.signal(); };
    if (is_ready())
        return true;
    // A job's wait is recorded before the waiter is there: either finish() tells the waiter, or add() finds the result.
    const bool has_deadline = how_long.kind == patience::until_deadline;
    running_job* const job = lane_ == nullptr ? nullptr : current_job();
    const wait_graph::target what{.for_lane = lane_, .in = pool_, .future = this};
    bool is_open = job != nullptr && number() == 0; // before it is asked for the first time
    const job_wait waits(job, what, has_deadline);
    if (job != nullptr && !has_deadline)
        waiter.recorded_in = &job->in;
    if (!add(waiter))
        return true;
    if (pool_ != nullptr && pool_->manual) {
        struct takes_back {
            const future_core& from;
            thread_waiter& waiter;
            ~takes_back() { from.remove(waiter); }
        } at_end{*this, waiter};
        return pool_->manual->wait(how_long, lane_, [&] { return is_ready(); });
    }
    if (!has_deadline) {
        // Until the job is in its queue, one of several keys may come before it: now and then the wait is asked again,
        // and once after that. Whether there are threads was asked before.
        wait_graph::target again = what;
        again.needs_thread = false;
        while (is_open) {
            if (waiter.told.wait_until(std::chrono::steady_clock::now() + doubt_interval))
                return true;
            is_open = number() == 0;
            if (!pool_->has_joint_jobs())
                continue;
            try {
                wait_graph::instance().enter_or_throw(job->core, job->in, again, true, false);
            } catch (...) {
                if (remove(waiter))
                    throw;
                break; // finish() is about to tell it
            }
        }
        waiter.told.wait();
        return true;
    }
    if (waiter.told.wait_until(how_long.deadline))
        return true;
    if (remove(waiter))
        return false;
    waiter.told.wait(); // finish() is about to tell it
    return true;
}

void in_turn(delivery& what) noexcept {
    thread_local delivery* last = nullptr; // of those that wait for their turn; null: none is being called
    what.next = nullptr;
    if (last != nullptr) {
        last = last->next = &what;
        return;
    }
    delivery head;
    last = &head;
    head.next = &what;
    while (head.next != nullptr) {
        delivery& d = *head.next;
        head.next = d.next;
        if (last == &d)
            last = &head;
        d.attempt(d);
    }
    last = nullptr;
}

bool await_future(const future_core& future, coroutine_waiter& w) {
    w.ready = [](future_waiter& self) noexcept {
        auto& waiter = static_cast<coroutine_waiter&>(self);
        if (waiter.job != nullptr)
            resume(*waiter.job);
        else
            waiter.coroutine.resume();
    };
    if (w.job != nullptr) {
        suspend_at(*w.job, w.coroutine);
        if (future.where() != nullptr && keeps_lane(*w.job)) {
            wait_graph::instance().enter_or_throw(
                *w.job->core, *w.job->in,
                {.for_lane = future.where(), .in = future.pool(), .future = &future, .by = w.job}, false, false);
            w.recorded_in = w.job->in;
        }
    }
    if (future.add(w))
        return true;
    if (w.recorded_in != nullptr)
        wait_graph::instance().leave(*w.recorded_in, &future);
    return false;
}

} // namespace taskpool::detail
