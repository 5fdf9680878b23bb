// SPDX-License-Identifier: Apache-2.0
// A key of a pool as an executor of Asio: what a strand is to an io_context, without the map of strands. For Boost.Asio
// it is boost_asio.hpp, with boost_asio for asio in all names.
//
//     asio::co_spawn(taskpool::asio::executor(pool, "session-12"), session(std::move(socket)), asio::detached);
//
// Purpose. Handlers, coroutines and functions that are given to executors of one key run as jobs of that key: one at a
// time, in the order in which they were posted (G1, G2), among the key's other jobs. They run on the pool's threads, so
// a handler that blocks holds up no other key (G3). It meets Asio's requirements of executors, with the properties
// blocking (possibly, never), relationship, outstanding_work, mapping, context and allocator, and converts to
// any_io_executor.
//
// post and defer put a function behind what waits in the lane. dispatch runs it at once when the calling thread is
// inside the lane, and posts it otherwise.
//
// Room. A function that is posted is never refused for want of room and never waits for it, since an event loop can do
// neither: lane_capacity and pool_capacity do not bind it, though it counts in both for others, and an overflow rule
// does not drop it. A submit that would have to drop one answers `full`. What bounds a session is that it begins one
// operation after the other.
//
// Failures. What a function throws goes to the pool's failure handler, once, and to nobody else (G10), also when
// dispatch ran it at once.
//
// The end. After close() and stop() a function that is posted is destroyed unrun, on the thread that posts it, and
// counted as rejected; dispatch inside the lane still runs it. Those that wait when stop() or cancel(key) come are
// discarded and reported like other jobs: destroyed unrun. Executors may outlive the pool, which counts as stopped
// then.
//
// Outstanding work. While an executor with outstanding_work.tracked exists (a work guard, a pending operation whose
// handler belongs to the key), drain() and drain_for() wait; drain(key) and stop() do not.
//
// The context. Each pool has one execution_context, so sockets and timers may be made with an executor of the pool:
// Asio then runs an event loop of its own on one more thread, and no io_context is needed. stop() ends it and destroys
// the handlers of pending operations. Such sockets must not begin operations after that.
//
// Thread-safety: one object as an int, copies apart. Copying costs an atomic addition (two when tracked). Making one
// from a pool looks the key up and allocates: make one for each session and copy it.
#pragma once

#include <memory>

#include <asio/execution.hpp>
#include <asio/execution_context.hpp>

#include <taskpool/detail/asio_executor.hpp>

namespace taskpool {

namespace detail {

struct standalone_asio {
    using execution_context = ::asio::execution_context;
    using context = ::asio::execution::context_t;
    using blocking = ::asio::execution::blocking_t;
    using relationship = ::asio::execution::relationship_t;
    using outstanding_work = ::asio::execution::outstanding_work_t;
    using mapping = ::asio::execution::mapping_t;
    template <class T>
    using allocator = ::asio::execution::allocator_t<T>;
};

} // namespace detail

namespace asio {

/// See the top of this file. Made by executor(pool, key) or executor(lane), for pools with any type of key.
using executor = detail::asio_executor<detail::standalone_asio>;

} // namespace asio
} // namespace taskpool
