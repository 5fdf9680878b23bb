// SPDX-License-Identifier: Apache-2.0
// A key of a pool as a scheduler of std::execution (P2300), by stdexec, its reference implementation.
//
//     stdexec::sender auto work = stdexec::schedule(taskpool::stdexec::scheduler(pool, "user-7")) | stdexec::then(f);
//
// What is scheduled on schedulers of one key runs as jobs of that key: one at a time, in the order in which the
// operations were started (G1, G2), among the key's other jobs, and on the pool's threads.
//
// Completion. With a value, inside the lane. With `stopped`, when the receiver's stop token asks for it before the job
// runs, when the job was discarded by stop() or cancel(key), and when the pool takes no jobs any more; that may be on
// another thread: the one that starts the operation, or discards the job. With an std::exception_ptr (std::bad_alloc)
// when there was no memory for the queue.
//
// Room. As what is posted by asio.hpp: never refused for want of room, and not dropped by an overflow rule.
//
// Thread-safety: one object as an int, copies apart. Making one from a pool looks the key up and allocates; copying
// costs an atomic addition. May outlive the pool, which counts as stopped then.
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include <stdexec/execution.hpp>

#include <taskpool/detail/posting.hpp>
#include <taskpool/task_pool.hpp>

namespace taskpool::stdexec {

/// A scheduler of (pool, key), or of a lane's handle, for pools with any type of key.
class scheduler {
    using lane_ptr = std::shared_ptr<const detail::posting_lane>;

    template <class Receiver>
    class operation {
      public:
        using operation_state_concept = ::stdexec::operation_state_t;

        operation(lane_ptr lane, Receiver receiver) : lane_(std::move(lane)), receiver_(std::move(receiver)) {}
        operation(operation&&) = delete;

        void start() & noexcept {
            const lane_ptr lane = lane_; // the job may end this object before post returns
            job posted(*this);
            try {
                lane->post(std::move(posted)); // what is refused stays here, and completes as stopped
            } catch (...) {
                posted.release();
                ::stdexec::set_error(std::move(receiver_), std::current_exception());
            }
        }

      private:
        /// Completes the operation once: when it is called, or when it is destroyed uncalled.
        class job {
          public:
            explicit job(operation& of) noexcept : of_(&of) {}
            job(job&& other) noexcept : of_(other.release()) {}
            job& operator=(job&&) = delete;
            ~job() {
                if (of_ != nullptr)
                    ::stdexec::set_stopped(std::move(of_->receiver_));
            }
            void operator()() noexcept {
                auto& receiver = release()->receiver_;
                if (::stdexec::get_stop_token(::stdexec::get_env(receiver)).stop_requested())
                    ::stdexec::set_stopped(std::move(receiver));
                else
                    ::stdexec::set_value(std::move(receiver));
            }
            operation* release() noexcept { return std::exchange(of_, nullptr); }

          private:
            operation* of_;
        };

        const lane_ptr lane_;
        Receiver receiver_;
    };

    class sender {
      public:
        using sender_concept = ::stdexec::sender_t;
        using completion_signatures =
            ::stdexec::completion_signatures<::stdexec::set_value_t(), ::stdexec::set_stopped_t(),
                                             ::stdexec::set_error_t(std::exception_ptr)>;

        explicit sender(lane_ptr lane) noexcept : lane_(std::move(lane)) {}

        template <class Receiver>
        operation<Receiver> connect(Receiver receiver) const {
            return operation<Receiver>(lane_, std::move(receiver));
        }

        struct attributes {
            lane_ptr lane;
            scheduler query(::stdexec::get_completion_scheduler_t<::stdexec::set_value_t>) const noexcept {
                return scheduler(lane);
            }
        };
        attributes get_env() const noexcept { return {lane_}; }

      private:
        lane_ptr lane_;
    };

  public:
    using scheduler_concept = ::stdexec::scheduler_t;

    /// REQUIRES: not moved from. Throws std::bad_alloc.
    template <class Key>
    explicit scheduler(const basic_lane<Key>& lane) : lane_(std::make_shared<const detail::posting_lane>(lane)) {}

    /// The same as scheduler(pool.lane(key)).
    template <class Key, class Hash, class Equal>
    scheduler(basic_task_pool<Key, Hash, Equal>& pool, typename basic_task_pool<Key, Hash, Equal>::key_view key)
        : scheduler(pool.lane(key)) {}

    sender schedule() const noexcept { return sender(lane_); }

    static constexpr ::stdexec::forward_progress_guarantee query(::stdexec::get_forward_progress_guarantee_t) noexcept {
        return ::stdexec::forward_progress_guarantee::parallel;
    }

    /// Whether both are of the same key of the same pool.
    friend bool operator==(const scheduler& a, const scheduler& b) noexcept {
        if (a.lane_ == nullptr || b.lane_ == nullptr)
            return a.lane_ == b.lane_;
        return a.lane_->is_same(*b.lane_);
    }

  private:
    explicit scheduler(lane_ptr lane) noexcept : lane_(std::move(lane)) {}

    lane_ptr lane_; // null in one that was moved from
};

} // namespace taskpool::stdexec
