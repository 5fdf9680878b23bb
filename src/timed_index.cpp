// SPDX-License-Identifier: Apache-2.0
#include "timed_index.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "timed_job.hpp"

namespace taskpool::detail {

namespace {

void push_front(timed_job*& chain, timed_job& t) noexcept {
    t.previous_in_chain = nullptr;
    t.next_in_chain = chain;
    if (chain != nullptr)
        chain->previous_in_chain = &t;
    chain = &t;
}

} // namespace

void timed_index::add(timed_job& t) noexcept {
    if (count_ >= chains() * most_in_chain)
        resize(chains() * 2);
    push_front(buckets()[t.hash & mask_], t);
    ++count_;
}

void timed_index::remove(timed_job& t) noexcept {
    (t.previous_in_chain != nullptr ? t.previous_in_chain->next_in_chain : buckets()[t.hash & mask_]) = t.next_in_chain;
    if (t.next_in_chain != nullptr)
        t.next_in_chain->previous_in_chain = t.previous_in_chain;
    if (--count_ == 0) {
        many_.reset();
        one_ = nullptr;
        mask_ = 0;
    }
}

void timed_index::shrink() noexcept {
    if (many_ && count_ < chains() / 2)
        resize(std::bit_ceil(std::max<std::size_t>(count_, 2) / 2));
}

/// Changes nothing when there is no memory.
void timed_index::resize(std::size_t to) noexcept {
    std::unique_ptr<timed_job*[]> fresh;
    if (to > 1 && !(fresh = std::unique_ptr<timed_job*[]>(new (std::nothrow) timed_job*[to]())))
        return;
    timed_index old;
    std::swap(old.many_, many_);
    std::swap(old.one_, one_);
    std::swap(old.mask_, mask_);
    many_ = std::move(fresh);
    mask_ = static_cast<std::uint32_t>(to - 1);
    for (std::size_t i = 0; i < old.chains(); ++i) {
        // Back to front, so that the newest stays in front.
        timed_job* t = old.chain(i);
        while (t != nullptr && t->next_in_chain != nullptr)
            t = t->next_in_chain;
        while (t != nullptr) {
            timed_job* const before = t->previous_in_chain;
            push_front(buckets()[t->hash & mask_], *t);
            t = before;
        }
    }
}

} // namespace taskpool::detail
