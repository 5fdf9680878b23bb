// SPDX-License-Identifier: Apache-2.0
#include "fork.hpp"

#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

#include "pool_core.hpp"
#include "sync.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail::pool_registry {

namespace {

struct registry {
    sync::mutex mutex;             // held across fork(), so that the child finds the list whole
    std::vector<pool_core*> pools; // under mutex
};

registry& the_registry() noexcept;

void before_fork() {
    the_registry().mutex.lock();
    wait_graph::instance().before_fork();
}

void after_fork() {
    wait_graph::instance().after_fork(false);
    the_registry().mutex.unlock();
}

void after_fork_in_child() {
    auto& all = the_registry();
    for (pool_core* const core : all.pools)
        core->forked.store(true, std::memory_order_relaxed); // see pool_core::is_forked
    all.pools.clear();
    forget_current_job();
    wait_graph::instance().after_fork(true);
    all.mutex.unlock();
}

registry& the_registry() noexcept {
    // Never destroyed: static pools may outlive other static objects.
    alignas(registry) static std::byte memory[sizeof(registry)];
    static auto* const made = [] {
        auto* const fresh = new (memory) registry;
        platform::at_fork(before_fork, after_fork, after_fork_in_child);
        return fresh;
    }();
    return *made;
}

} // namespace

void add(pool_core* core) {
    auto& all = the_registry();
    const std::lock_guard lock(all.mutex);
    all.pools.push_back(core);
}

void remove(pool_core* core) noexcept {
    auto& all = the_registry();
    const std::lock_guard lock(all.mutex);
    std::erase(all.pools, core);
}

} // namespace taskpool::detail::pool_registry
