// SPDX-License-Identifier: Apache-2.0
// How long ready keys wait for a worker, and what a pool does that is given a limit for it (options::max_wait): while
// the limit is passed, the gate is shut, and new work is refused.
//
// What is measured are the lanes in the ready queues, each since a tick of its own, apart from the age by which it
// takes its turn: a lane that comes to have work, since the submit; one that made way for an older one, since the
// submit of its next job. One that had waited for itself only (its job was held, it was paused, had no token, or could
// have gone on but for a surplus of threads) begins anew when it comes to be ready: what it waited for is no lack of
// workers, and must not have the pool refuse other keys (G3). Running and suspended lanes are in no queue, and count
// for nothing.
//
// The keeper looks once a tick. It takes two looks for a pool to be overloaded, as a lane that is taken up at once may
// be met in its queue by one; and one to end it. No submit looks: shutting the gate takes all budgets from the shards,
// so that submits come to the gate. In a pool without threads each of them looks, as the gate grants one job at a time.
//
//   I-OVERLOAD-1  While a pool is overloaded, some lane was ready at the keeper's last look; so the keeper does not
//                 fall asleep, and looks again.
//   I-OVERLOAD-2  Nobody sleeps in the room beyond the keeper's next tick while the pool is overloaded: who enters it
//                 before the mark is set is woken by each tick, and who looks after that leaves.
#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "barrier.hpp"
#include "manual.hpp"
#include "pool_core.hpp"

namespace taskpool::detail {

namespace {

constexpr std::size_t most_oldest_keys = 256; // each of them is looked for among as many again

} // namespace

std::optional<tick> pool_core::oldest_since() const noexcept {
    std::optional<tick> oldest;
    for (const auto& queue : queues)
        if (const auto since = queue.oldest_since(); since && (!oldest || older(*since, *oldest)))
            oldest = since;
    return oldest;
}

std::chrono::milliseconds pool_core::oldest_wait() const noexcept {
    const auto since = oldest_since();
    if (!since)
        return {};
    const tick now = manual ? manual->now() : clock.now();
    return std::chrono::milliseconds(older(now, *since) ? 0 : now - *since);
}

void pool_core::visit_oldest_keys(std::size_t most, key_visitor visitor) const {
    const auto since = is_forked() ? std::nullopt : oldest_since();
    if (!since)
        return;
    most = std::min(most, most_oldest_keys);
    std::vector<std::pair<const lane*, std::uint16_t>> seen;
    seen.reserve(most);
    for (const auto& queue : queues)
        queue.each_since(*since, most - seen.size(), [&](const lane& l) {
            if (&l != &barrier->own)
                seen.emplace_back(&l, l.shard);
        });
    // Each may be gone by now. Under its shard's lock one that is still in the queue, or another in its place, stays.
    for (const auto& [l, index] : seen) {
        const std::lock_guard lock(shards[index].lock);
        bool stays = false;
        queues[index % queues.size()].each_since(*since, most, [&, l = l, index = index](const lane& ready) {
            stays |= &ready == l && ready.shard == index;
        });
        if (stays && l->state == lane_state::active) // else its jobs were cancelled
            visitor.visit(visitor.self, maker.key_of(*l), 0, 0);
    }
}

/// For the keeper, or who submits to a pool without threads. REQUIRES: there is a limit.
void pool_core::watch_load() noexcept {
    const bool was_over = std::exchange(was_over_, oldest_wait() > *settings.max_wait);
    const bool refuses = was_over_ && (was_over || manual);
    if (refuses == is_overloaded())
        return;
    if (refuses)
        gate.shut(shards);
    else
        gate.open();
    overloaded_.store(refuses, std::memory_order_relaxed); // see is_overloaded
}

} // namespace taskpool::detail
