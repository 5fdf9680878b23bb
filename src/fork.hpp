// SPDX-License-Identifier: Apache-2.0
// What fork() does to pools: the child has one thread, and what others had locked at that moment stays locked for ever.
// So each pool of the child is marked, and answers every call without touching anything.
#pragma once

namespace taskpool::detail {

class pool_core;

/// All pools of the process.
namespace pool_registry {
void add(pool_core* core);             // throws std::bad_alloc
void remove(pool_core* core) noexcept; // does nothing for one that is not there
} // namespace pool_registry

} // namespace taskpool::detail
