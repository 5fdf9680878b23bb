// SPDX-License-Identifier: Apache-2.0
// The executor behind asio.hpp and boost_asio.hpp, which are the same but for the names of Asio's types: `Asio` is a
// struct of those. The contract is in asio.hpp. Nothing here is for users.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include <taskpool/detail/posting.hpp>
#include <taskpool/task_pool.hpp>

namespace taskpool::detail {

/// The execution context of a pool: where Asio keeps the services of what was made with an executor of the pool, such
/// as sockets. It ends with the pool's stop(), its memory with the last executor.
template <class Asio>
class asio_context final : public Asio::execution_context, public companion {
  public:
    static asio_context& of(pool_core& core) {
        static const char kind = 0;
        return static_cast<asio_context&>(
            companion_of(core, &kind, []() -> std::unique_ptr<companion> { return std::make_unique<asio_context>(); }));
    }

    void pool_has_stopped() noexcept override { this->shutdown(); } // destroys the handlers of pending operations
};

/// A function that fits a slot, as a job.
template <class F>
struct posted_function {
    F f;
    void operator()() { std::move(f)(); }
};

/// One that does not: in memory of the executor's allocator, which is given back before the call, as Asio does it.
template <class F, class Allocator>
class posted_box {
    struct contents {
        F f;
        Allocator allocator;
    };
    using traits = typename std::allocator_traits<Allocator>::template rebind_traits<contents>;
    using box_allocator = typename traits::allocator_type;

    static void give_back(contents* box) {
        box_allocator allocator(box->allocator);
        struct memory {
            box_allocator& from;
            contents* box;
            ~memory() { traits::deallocate(from, box, 1); }
        } const gives_back{allocator, box}; // also if the destructor throws
        box->~contents();
    }

  public:
    template <class From>
    posted_box(From&& f, const Allocator& allocator) {
        box_allocator from(allocator);
        contents* const memory = traits::allocate(from, 1);
        try {
            box_ = new (memory) contents{std::forward<From>(f), allocator};
        } catch (...) {
            traits::deallocate(from, memory, 1);
            throw;
        }
    }
    posted_box(posted_box&& other) noexcept : box_(std::exchange(other.box_, nullptr)) {}
    posted_box& operator=(posted_box&&) = delete;
    ~posted_box() noexcept(std::is_nothrow_destructible_v<F>) {
        if (box_ != nullptr)
            give_back(box_);
    }

    void operator()() {
        F f(std::move(box_->f));
        give_back(std::exchange(box_, nullptr));
        std::move(f)();
    }

  private:
    contents* box_ = nullptr;
};

/// Where executors post to; shared by those that were copied from one.
template <class Asio>
struct asio_place : posting_lane {
    template <class Key>
    explicit asio_place(const basic_lane<Key>& lane) : posting_lane(lane), context(asio_context<Asio>::of(core())) {}
    typename Asio::execution_context& context;
};

/// How they post: the properties that take no room of their own.
struct asio_how {
    bool never_blocks = false;
    bool continues = false; // a wish that changes nothing: a lane has one order
    bool tracks = false;
    friend bool operator==(const asio_how&, const asio_how&) noexcept = default;
};

template <class Asio, class Allocator = std::allocator<void>>
class asio_executor {
    using place = asio_place<Asio>;
    using how = asio_how;
    using blocking = typename Asio::blocking;
    using relationship = typename Asio::relationship;
    using outstanding_work = typename Asio::outstanding_work;
    using mapping = typename Asio::mapping;

  public:
    /// REQUIRES: not moved from. Throws std::bad_alloc.
    template <class Key>
    explicit asio_executor(const basic_lane<Key>& lane) : place_(std::make_shared<const place>(lane)) {}

    /// The same as asio_executor(pool.lane(key)).
    template <class Key, class Hash, class Equal>
    asio_executor(basic_task_pool<Key, Hash, Equal>& pool, typename basic_task_pool<Key, Hash, Equal>::key_view key)
        : asio_executor(pool.lane(key)) {}

    asio_executor(const asio_executor& other) noexcept
        : place_(other.place_), how_(other.how_), allocator_(other.allocator_) {
        begin_work();
    }
    asio_executor(asio_executor&& other) noexcept
        : place_(std::move(other.place_)), how_(other.how_), allocator_(std::move(other.allocator_)) {}
    asio_executor& operator=(asio_executor other) noexcept {
        std::swap(place_, other.place_);
        std::swap(how_, other.how_);
        if constexpr (!std::is_empty_v<Allocator>)
            std::swap(allocator_, other.allocator_);
        return *this;
    }
    ~asio_executor() {
        if (how_.tracks && place_)
            place_->end_work();
    }

    /// Runs `f` as a job of the key, or at once where `blocking` allows it and the calling thread is inside the lane.
    /// If the pool takes no jobs any more, `f` is destroyed unrun.
    template <class F>
    void execute(F&& f) const {
        using function = std::decay_t<F>;
        if (!how_.never_blocks && place_->runs_here()) {
            function here(std::forward<F>(f));
            try {
                std::move(here)();
            } catch (...) {
                report_failure_here();
            }
        } else if constexpr (fits_inline<posted_function<function>>) {
            place_->post(posted_function<function>{std::forward<F>(f)});
        } else {
            place_->post(posted_box<function, Allocator>(std::forward<F>(f), allocator_));
        }
    }

    /// Whether both post to the same key of the same pool, in the same way.
    friend bool operator==(const asio_executor& a, const asio_executor& b) noexcept {
        if (a.place_ == nullptr || b.place_ == nullptr)
            return a.place_ == b.place_;
        return a.place_->is_same(*b.place_) && a.how_ == b.how_ && a.allocator_ == b.allocator_;
    }
    friend bool operator!=(const asio_executor& a, const asio_executor& b) noexcept { return !(a == b); }

    // --- Properties
    // ---------------------------------------------------------------------------------------------------

    typename Asio::execution_context& query(typename Asio::context) const noexcept { return place_->context; }

    static constexpr mapping query(mapping) noexcept { return mapping(typename mapping::thread_t()); }

    blocking query(blocking) const noexcept {
        return how_.never_blocks ? blocking(typename blocking::never_t()) : blocking(typename blocking::possibly_t());
    }
    asio_executor require(typename blocking::possibly_t) const { return with(&how::never_blocks, false); }
    asio_executor require(typename blocking::never_t) const { return with(&how::never_blocks, true); }

    relationship query(relationship) const noexcept {
        return how_.continues ? relationship(typename relationship::continuation_t())
                              : relationship(typename relationship::fork_t());
    }
    asio_executor require(typename relationship::fork_t) const { return with(&how::continues, false); }
    asio_executor require(typename relationship::continuation_t) const { return with(&how::continues, true); }

    outstanding_work query(outstanding_work) const noexcept {
        return how_.tracks ? outstanding_work(typename outstanding_work::tracked_t())
                           : outstanding_work(typename outstanding_work::untracked_t());
    }
    asio_executor require(typename outstanding_work::tracked_t) const { return with(&how::tracks, true); }
    asio_executor require(typename outstanding_work::untracked_t) const { return with(&how::tracks, false); }

    template <class Any>
    Allocator query(typename Asio::template allocator<Any>) const noexcept {
        return allocator_;
    }
    template <class Other>
    asio_executor<Asio, Other> require(typename Asio::template allocator<Other> property) const {
        return {place_, how_, property.value()};
    }
    asio_executor<Asio> require(typename Asio::template allocator<void>) const { return {place_, how_, {}}; }

  private:
    template <class, class>
    friend class asio_executor;

    asio_executor(std::shared_ptr<const place> where, how as, Allocator allocator) noexcept
        : place_(std::move(where)), how_(as), allocator_(std::move(allocator)) {
        begin_work();
    }

    void begin_work() const noexcept {
        if (how_.tracks && place_)
            place_->begin_work();
    }

    asio_executor with(bool how::*property, bool value) const noexcept {
        how changed = how_;
        changed.*property = value;
        return {place_, changed, allocator_};
    }

    std::shared_ptr<const place> place_; // null in one that was moved from
    how how_;
    [[no_unique_address]] Allocator allocator_;
};

} // namespace taskpool::detail
