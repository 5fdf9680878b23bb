// SPDX-License-Identifier: Apache-2.0
// What future.hpp, task.hpp and task_pool.hpp share: the state of a result, who waits for it, and calls whose state
// lies where the caller wants it. Nothing here is for users. Longer than 400 lines, as what follows a result is a call.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <taskpool/detail/core.hpp>
#include <taskpool/export.hpp>
#include <taskpool/job.hpp>
#include <taskpool/status.hpp>

namespace taskpool::detail {

struct coroutine_job; // a coroutine that was spawned; compiled

/// For a job with a future that has thrown: whether it is to be tried again. REQUIRES: called in a handler of that.
TASKPOOL_EXPORT bool judge_with_future(const running_job& job) noexcept;

// --- States and waiters ----------------------------------------------------------------------------------------------

/// Somebody who is to be told once when a result is there. Lies with who waits.
struct future_waiter {
    void (*ready)(future_waiter& self) noexcept = nullptr; // called under no lock; `self` may be gone afterwards
    future_waiter* next = nullptr;
    const lane* recorded_in = nullptr; // the wait of this lane's job is in the wait graph
};

/// The untyped half of a result's state. Compiled: it takes part in the search for cycles of waits. Counted by
/// references, or, with no `dispose`, a part of something else that is not counted.
class TASKPOOL_EXPORT future_core {
  public:
    using dispose_function = void (*)(future_core& self) noexcept;

    /// Begins with `references`, the job's and the future's.
    future_core(dispose_function dispose, unsigned references) noexcept;
    future_core(const future_core&) = delete;
    future_core& operator=(const future_core&) = delete;

    void share() noexcept;
    void drop() noexcept;
    /// Whether anybody but the job refers to it. Without references, it is its caller who waits.
    bool is_wanted() const noexcept;

    /// Where the job is to be submitted, or was accepted. REQUIRES: called once, before the job can run.
    void set_place(pool_core& pool, const lane& where) noexcept {
        pool_ = &pool;
        lane_ = &where;
    }
    /// The job will be the next one of its lane. REQUIRES: called where job_source::store is.
    void set_number() noexcept;
    /// The job is a coroutine that lends its key: it has no number, as it will be in its lane's queue again, who knows
    /// where. REQUIRES: as set_number().
    void set_comes_again() noexcept;
    bool comes_again() const noexcept;
    /// Which job of its lane it is, as set; 0 while it has not been submitted.
    std::uint32_t number() const noexcept;
    bool is_counted() const noexcept { return dispose_ != nullptr; }

    /// Tells all who wait. They may end what is not counted. REQUIRES: called once.
    void finish(std::exception_ptr error) noexcept;
    /// Ends without a result: with the error that was set, or as discarded. Reports an error that nobody wants.
    /// REQUIRES: as finish(), by a job or for one that was discarded.
    void abandon() noexcept;
    /// What finish() will be given. REQUIRES: not ready.
    void set_error(std::exception_ptr error) noexcept { error_ = std::move(error); }
    bool is_ready() const noexcept;
    /// Waits; false when the time was up first. Throws deadlock_error.
    bool wait(const patience& how_long) const;
    /// Registers `w`; false when it is ready already, and `w` will not be told.
    bool add(future_waiter& w) const noexcept;
    /// REQUIRES: ready, or only one thread knows it.
    const std::exception_ptr& error() const noexcept { return error_; }

    /// The job is submitted when `before` is ready. REQUIRES: `before` lives until this is called again, with null.
    void follow(const future_core* before) noexcept;
    /// Calls `visit` with the future of each job that is still to end before this one's is submitted, the nearest
    /// first, until it says false; whether it never did.
    bool each_before(void* self, bool (*visit)(void* self, const future_core& before)) const;

    /// The job's pool and lane, or null. Valid until ready.
    const pool_core* pool() const noexcept { return pool_; }
    const lane* where() const noexcept { return lane_; }

  protected:
    ~future_core();

  private:
    struct parts;
    parts& own() const noexcept;
    bool remove(future_waiter& w) const noexcept;

    alignas(void*) mutable std::byte parts_[4 * sizeof(void*)]; // no atomics in this header
    std::exception_ptr error_;                                  // written before ready, read after it
    pool_core* pool_ = nullptr;
    const lane* lane_ = nullptr;
    const dispose_function dispose_;
};

template <class T>
class future_state : public future_core {
  public:
    using future_core::future_core;

    template <class F>
    void set_from(F&& f) {
        value_.emplace(std::forward<F>(f)());
    }
    /// The value, moved out, or the error, thrown. REQUIRES: ready.
    T take() {
        if (error())
            std::rethrow_exception(error());
        return std::move(*value_);
    }

  private:
    std::optional<T> value_;
};

template <>
class future_state<void> : public future_core {
  public:
    using future_core::future_core;

    template <class F>
    void set_from(F&& f) {
        std::forward<F>(f)();
    }
    void take() const {
        if (error())
            std::rethrow_exception(error());
    }
};

struct future_drop {
    void operator()(future_core* state) const noexcept { state->drop(); }
};

/// One reference to a state.
template <class T>
using future_ref = std::unique_ptr<future_state<T>, future_drop>;

template <class T>
class allocated_future_state final : public future_state<T> {
  public:
    allocated_future_state()
        : future_state<T>([](future_core& self) noexcept { delete static_cast<allocated_future_state*>(&self); }, 2) {}
};

/// The job's end of a future: finishes it when the job ran, and as discarded when it is destroyed without.
template <class T>
class promise {
  public:
    /// Takes over one reference.
    explicit promise(future_state<T>* state) noexcept : state_(state) {}
    promise(promise&&) noexcept = default;
    promise& operator=(promise&&) = delete;
    ~promise() {
        if (state_)
            state_->abandon();
    }

    /// Runs `f`, which yields the value or throws. Throws what it threw where nobody wants to know, or where the job is
    /// to be tried again: then that is the result if it is not. Says whether it threw.
    template <class F>
    bool fulfil(const running_job& job, F&& f) {
        std::exception_ptr error;
        try {
            state_->set_from(std::forward<F>(f));
        } catch (...) {
            error = std::current_exception();
            if (judge_with_future(job)) {
                state_->set_error(std::move(error));
                throw;
            }
        }
        const auto state = std::move(state_);
        const bool wanted = state->is_wanted();
        state->finish(error);
        if (error && !wanted)
            std::rethrow_exception(error);
        return error != nullptr;
    }

    /// It was not accepted.
    void reject(std::exception_ptr error) noexcept { std::exchange(state_, nullptr)->finish(std::move(error)); }

  private:
    future_ref<T> state_;
};

/// What async gives for a callable `F`: its result, by value.
template <class Key, class F>
using job_result = std::decay_t<decltype(call_in_job<Key>(std::declval<std::decay_t<F>&>(),
                                                          std::declval<const basic_job_context<Key>&>()))>;

// --- Coroutines as waiters -------------------------------------------------------------------------------------------

/// The job of which a coroutine is a part, or null for a coroutine of somebody else's.
template <class Promise>
coroutine_job* job_of(std::coroutine_handle<Promise> coroutine) noexcept {
    if constexpr (requires { coroutine.promise().job_of_task(); })
        return coroutine.promise().job_of_task();
    else
        return nullptr;
}

/// A suspended coroutine that goes on when a result is there: in its lane if it has one.
struct coroutine_waiter : future_waiter {
    coroutine_job* job = nullptr;
    std::coroutine_handle<> coroutine;
};

/// Suspends: registers `w`, and records the wait where the coroutine's job holds its lane. False when the result is
/// there already. Throws deadlock_error.
TASKPOOL_EXPORT bool await_future(const future_core& future, coroutine_waiter& w);

template <class T>
class future_awaiter {
  public:
    using is_lane_aware = void;

    explicit future_awaiter(future_ref<T> state) noexcept : state_(std::move(state)) {}

    bool await_ready() const noexcept { return state_->is_ready(); }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> coroutine) {
        waiter_.job = job_of(coroutine);
        waiter_.coroutine = coroutine;
        return await_future(*state_, waiter_);
    }
    T await_resume() { return state_->take(); }

  private:
    future_ref<T> state_;
    coroutine_waiter waiter_;
};

/// Calls `what.attempt` once: at once, or when the call of this function in which it is made has made its own, so that
/// a long chain of ends needs no stack.
TASKPOOL_EXPORT void in_turn(delivery& what) noexcept;

// --- Calls whose state lies where the caller wants it ----------------------------------------------------------------

/// A call as a job of a lane: state, callable and place in one object. The job in the lane is but a pointer to it.
/// `Call` takes a context.
template <class Key, class R, class Call>
class job_call : public future_state<R>, public delivery {
  public:
    /// Pins the lane. Throws std::bad_alloc.
    job_call(std::shared_ptr<pool_core> core, const key_view& key, Call call, future_core::dispose_function dispose)
        : future_state<R>(dispose, 2), core_(std::move(core)), call_(std::move(call)),
          lane_(acquire_lane(*core_, key)) {
        this->set_place(*core_, *lane_);
    }
    ~job_call() { release_lane(*core_, *lane_); }

    /// Submits it, now or as soon as there is room. REQUIRES: called once.
    void start() noexcept {
        attempt = &attempt_to_submit;
        const auto core = core_; // the end may come, and the pool go, before this returns
        deliver(*core, *this);
    }

    /// Ends it without a call, unless it is one of many that do so at this moment: then in its turn.
    void fail(std::exception_ptr error) noexcept {
        this->set_error(std::move(error));
        attempt = [](delivery& what) noexcept {
            auto& self = static_cast<job_call&>(what);
            self.end(self.error());
            return true;
        };
        in_turn(*this);
    }

    Call& call() noexcept { return call_; }

  private:
    // What lies in the lane.
    struct pointer {
        using runs_once = void;
        job_call* call;

        explicit pointer(job_call* to) noexcept : call(to) {}
        pointer(pointer&& other) noexcept : call(std::exchange(other.call, nullptr)) {}
        pointer& operator=(pointer&&) = delete;
        ~pointer() {
            if (call != nullptr)
                call->end(std::make_exception_ptr(job_discarded()));
        }
        void operator()(const basic_job_context<Key>& context) { std::exchange(call, nullptr)->run(context); }
    };

    static bool attempt_to_submit(delivery& what) noexcept {
        auto& self = static_cast<job_call&>(what);
        try {
            const auto make = [&self](lane&) {
                self.set_number();
                return pointer(&self);
            };
            job_source_of<Key, pointer, decltype(make)> source(make);
            source.tries_again = source.exists = true;
            const auto answer = submit(*self.core_, *self.lane_, source, {}, {patience::none});
            if (answer == submit_status::full)
                return false;
            if (!answer)
                self.end(std::make_exception_ptr(job_rejected(answer)));
        } catch (...) { // std::bad_alloc for the lane's queue
            return false;
        }
        return true;
    }

    void run(const basic_job_context<Key>& context) {
        std::exception_ptr error;
        try {
            this->set_from([&]() -> R { return call_(context); });
        } catch (...) {
            error = std::current_exception();
        }
        const bool wanted = this->is_wanted();
        end(error);
        if (error && !wanted)
            std::rethrow_exception(error);
        if (error)
            count_failure(context_access::job(context));
    }

    void end(std::exception_ptr error) noexcept {
        const bool counted = this->is_counted();
        this->finish(std::move(error)); // what is not counted may be gone from here on
        if (counted)
            this->drop();
    }

    const std::shared_ptr<pool_core> core_;
    Call call_;
    lane* const lane_;
};

// --- future<T>::then -------------------------------------------------------------------------------------------------

/// Runs a continuation with the value that it waited for.
template <class Key, class T, class F>
struct continuation {
    future_ref<T> before;
    F f;

    decltype(auto) operator()(const basic_job_context<Key>& context) {
        const auto used = std::move(before); // it does not stay as long as the result
        if constexpr (std::is_void_v<T>) {
            return call_in_job<Key>(f, context);
        } else {
            return call_in_job<Key>(f, context, used->take());
        }
    }
};

template <class Key, class T, class F>
using continuation_result = std::decay_t<decltype(std::declval<continuation<Key, T, std::decay_t<F>>&>()(
    std::declval<const basic_job_context<Key>&>()))>;

/// The call of a continuation, started when the result before it is there.
template <class Key, class R, class T, class F>
class continuation_call final : public job_call<Key, R, continuation<Key, T, F>>, public future_waiter {
    using base = job_call<Key, R, continuation<Key, T, F>>;

  public:
    continuation_call(std::shared_ptr<pool_core> core, const key_view& key, future_ref<T> before, F&& f)
        : base(std::move(core), key, {std::move(before), std::move(f)},
               [](future_core& self) noexcept { delete &static_cast<continuation_call&>(self); }) {
        ready = [](future_waiter& self) noexcept { static_cast<continuation_call&>(self).go_on(); };
    }

    void go_on() noexcept {
        this->follow(nullptr);
        if (const auto error = this->call().before->error()) {
            this->call().before.reset();
            this->fail(error);
        } else {
            this->start();
        }
    }
};

/// What future<T>::then does. Throws std::bad_alloc.
template <class Key, class T, class F>
auto continue_with(std::shared_ptr<pool_core> core, const key_view& key, future_ref<T> before, F&& f) {
    using result = continuation_result<Key, T, F>;
    auto* const call = new continuation_call<Key, result, T, std::decay_t<F>>(std::move(core), key, std::move(before),
                                                                              std::decay_t<F>(std::forward<F>(f)));
    future_ref<result> after(call);
    call->follow(call->call().before.get());
    if (!call->call().before->add(*call))
        call->go_on();
    return after;
}

/// Passes a result on to a std::promise.
template <class T>
struct std_promise_setter final : future_waiter {
    std::promise<T> to;
    future_ref<T> from;

    explicit std_promise_setter(future_ref<T> result) : from(std::move(result)) {
        ready = [](future_waiter& self) noexcept { static_cast<std_promise_setter&>(self).set(); };
    }
    void set() noexcept {
        const std::unique_ptr<std_promise_setter> last(this);
        try {
            if constexpr (std::is_void_v<T>) {
                from->take();
                to.set_value();
            } else {
                to.set_value(from->take());
            }
        } catch (...) {
            to.set_exception(std::current_exception());
        }
    }
};

template <class T>
std::future<T> to_std_future(future_ref<T> result) {
    auto setter = std::make_unique<std_promise_setter<T>>(std::move(result));
    auto future = setter->to.get_future();
    auto& s = *setter.release();
    if (!s.from->add(s))
        s.set();
    return future;
}

} // namespace taskpool::detail
