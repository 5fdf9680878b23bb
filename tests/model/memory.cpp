// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <algorithm>

namespace taskpool::model {

namespace {

constexpr std::size_t kept_stores = 8; // at least; twice as many at most
constexpr std::uint32_t not_yet = 0xFFFFFFFF;

bool acquires(std::memory_order order) noexcept {
    return order == std::memory_order_acquire || order == std::memory_order_consume ||
           order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}

bool releases(std::memory_order order) noexcept {
    return order == std::memory_order_release || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
}

std::uint32_t now(const observer& by) noexcept { return by.clock.steps[by.thread]; }

} // namespace

void vector_clock::join(const vector_clock& other) noexcept {
    for (std::size_t i = 0; i < most_threads; ++i)
        steps[i] = std::max(steps[i], other.steps[i]);
}

void memory::begin(const void* at, std::uint64_t value, const observer& by) {
    location& l = locations_[at];
    l.stores.clear();
    l.used = {};
    l.ended = false;
    add(l, value, by);
}

void memory::end(const void* at, const observer& by) {
    location& l = locations_[at];
    for (std::size_t i = 0; i < most_threads; ++i)
        if (l.used.steps[i] > by.clock.steps[i])
            throw error{"a race: the end of an atomic that does not happen after a use of it"};
    l.ended = true;
}

memory::location& memory::use(const void* where, std::uint64_t present, const observer& by) {
    location& l = locations_[where];
    if (l.ended)
        throw error{"an atomic is used after its end"};
    if (l.stores.empty() || l.stores.back().value != present) {
        l.stores.clear();
        l.stores.push_back({present, false, {}, {}}); // known to all since their first step
    }
    l.used.steps[by.thread] = now(by);
    return l;
}

void memory::add(location& l, std::uint64_t value, const observer& by) {
    if (l.stores.size() == 2 * kept_stores)
        l.stores.erase(l.stores.begin(), l.stores.begin() + kept_stores);
    made_store& s = l.stores.emplace_back();
    s.value = value;
    s.releases = false;
    s.seen.fill(not_yet);
    s.seen[by.thread] = now(by);
}

std::size_t memory::readable(const void* where, std::uint64_t present, std::memory_order order, const observer& by) {
    const location& l = use(where, present, by);
    if (order == std::memory_order_seq_cst)
        return 1;
    for (std::size_t age = 0; age < l.stores.size(); ++age) {
        const made_store& s = l.stores[l.stores.size() - 1 - age];
        for (std::size_t i = 0; i < most_threads; ++i)
            if (s.seen[i] <= by.clock.steps[i])
                return age + 1;
    }
    return l.stores.size();
}

std::uint64_t memory::load(const void* where, std::size_t age, std::memory_order order, observer& by) {
    location& l = locations_[where];
    made_store& s = l.stores[l.stores.size() - 1 - age];
    s.seen[by.thread] = std::min(s.seen[by.thread], now(by));
    if (acquires(order) && s.releases)
        by.clock.join(s.released);
    return s.value;
}

void memory::store(const void* where, std::uint64_t present, std::uint64_t value, std::memory_order order,
                   observer& by) {
    location& l = use(where, present, by);
    add(l, value, by);
    l.stores.back().releases = releases(order);
    l.stores.back().released = by.clock;
}

void memory::exchange(const void* where, std::uint64_t present, std::uint64_t value, std::memory_order order,
                      observer& by) {
    location& l = use(where, present, by);
    load(where, 0, order, by);
    const bool carries_on = l.stores.back().releases;
    const vector_clock before = l.stores.back().released;
    add(l, value, by);
    made_store& s = l.stores.back();
    s.releases = carries_on || releases(order);
    if (releases(order))
        s.released = by.clock;
    if (carries_on)
        s.released.join(before);
}

void memory::read_cell(const void* at, const observer& by) {
    cell& c = cells_[at];
    if (c.written > by.clock.steps[c.writer])
        throw error{"a race: a plain read that does not happen after the last write"};
    c.reads.steps[by.thread] = now(by);
}

void memory::write_cell(const void* at, const observer& by) {
    cell& c = cells_[at];
    if (c.written > by.clock.steps[c.writer])
        throw error{"a race: a plain write that does not happen after the last write"};
    for (std::size_t i = 0; i < most_threads; ++i)
        if (c.reads.steps[i] > by.clock.steps[i])
            throw error{"a race: a plain write that does not happen after a read"};
    c.writer = by.thread;
    c.written = now(by);
}

void memory::clear() {
    locations_.clear();
    cells_.clear();
}

} // namespace taskpool::model
