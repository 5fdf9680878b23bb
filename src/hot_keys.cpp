// SPDX-License-Identifier: Apache-2.0
#include "hot_keys.hpp"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

namespace taskpool::detail {

hot_keys::~hot_keys() {
    for (std::size_t i = 0; i < used_; ++i)
        free_key(counters_[i].key);
}

void hot_keys::free_key(void* key) noexcept {
    maker_.keys.destroy(key);
    ::operator delete(key, std::align_val_t(maker_.keys.alignment));
}

void hot_keys::count(const void* stored_key, std::uint64_t jobs, tick now) noexcept {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock())
        return;
    while (older(halved_ + half_life, now))
        halve();
    try {
        const auto& keys = maker_.keys;
        if (keys.extent(stored_key) > longest_key)
            return;
        const auto* const functions = maker_.functions.get();
        const auto hash = static_cast<std::uint32_t>(keys.hash(functions, stored_key));
        for (std::size_t i = 0; i < used_; ++i) {
            if (hashes_[i] == hash && keys.same(functions, counters_[i].key, stored_key)) {
                counters_[i].jobs += jobs;
                return;
            }
        }
        void* const key = ::operator new(keys.size, std::align_val_t(keys.alignment));
        try {
            keys.copy(key, stored_key);
        } catch (...) {
            ::operator delete(key, std::align_val_t(keys.alignment));
            throw;
        }
        if (used_ < capacity) {
            hashes_[used_] = hash;
            counters_[used_++] = {key, jobs, 0};
            return;
        }
        // The key with the lowest count makes way, and leaves its count behind as the newcomer's error.
        const auto lowest = find_lowest();
        auto& c = counters_[lowest];
        free_key(c.key);
        hashes_[lowest] = hash;
        c = {key, c.jobs + jobs, c.jobs};
    } catch (...) { // NOLINT(bugprone-empty-catch): a sample is not worth an error
    }
}

std::size_t hot_keys::find_lowest() noexcept {
    for (std::size_t seen = 0; counters_[lowest_at_].jobs > lowest_; lowest_at_ = (lowest_at_ + 1) % capacity)
        if (++seen == capacity)
            lowest_ = std::min_element(counters_.begin(), counters_.end(), [](const counter& a, const counter& b) {
                          return a.jobs < b.jobs;
                      })->jobs;
    return lowest_at_;
}

void hot_keys::halve() noexcept {
    halved_ += half_life;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < used_; ++i) {
        counter c = counters_[i];
        c.jobs /= 2;
        c.error /= 2;
        if (c.jobs == 0)
            free_key(c.key);
        else {
            counters_[kept] = c;
            hashes_[kept++] = hashes_[i];
        }
    }
    used_ = kept;
    lowest_ = 0;
}

void hot_keys::visit(std::size_t most, key_visitor visitor) const {
    const std::lock_guard lock(mutex_);
    std::vector<const counter*> order;
    for (std::size_t i = 0; i < used_; ++i)
        order.push_back(&counters_[i]);
    std::sort(order.begin(), order.end(), [](const counter* a, const counter* b) { return a->jobs > b->jobs; });
    for (std::size_t i = 0; i < std::min(most, order.size()); ++i)
        visitor.visit(visitor.self, order[i]->key, order[i]->jobs, order[i]->error);
}

} // namespace taskpool::detail
