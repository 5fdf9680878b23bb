// SPDX-License-Identifier: Apache-2.0
// A key of a pool as an executor of Boost.Asio (1.74 or newer): all that asio.hpp says holds here.
#pragma once

#include <memory>

#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>

#include <taskpool/detail/asio_executor.hpp>

namespace taskpool {

namespace detail {

struct boost_asio {
    using execution_context = ::boost::asio::execution_context;
    using context = ::boost::asio::execution::context_t;
    using blocking = ::boost::asio::execution::blocking_t;
    using relationship = ::boost::asio::execution::relationship_t;
    using outstanding_work = ::boost::asio::execution::outstanding_work_t;
    using mapping = ::boost::asio::execution::mapping_t;
    template <class T>
    using allocator = ::boost::asio::execution::allocator_t<T>;
};

} // namespace detail

namespace boost_asio {

/// See asio.hpp. Made by executor(pool, key) or executor(lane), for pools with any type of key.
using executor = detail::asio_executor<detail::boost_asio>;

} // namespace boost_asio
} // namespace taskpool
