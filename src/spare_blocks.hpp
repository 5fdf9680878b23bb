// SPDX-License-Identifier: Apache-2.0
// Free blocks of memory of one size, for whoever needs the next one. Who has them knows where they came from, and gives
// them back there: this class frees none.
#pragma once

#include <cassert>
#include <cstddef>
#include <new>
#include <utility>

namespace taskpool::detail {

class spare_blocks {
  public:
    std::size_t size() const noexcept { return size_; }

    /// The one that take() would give, or null.
    const void* first() const noexcept { return first_; }

    /// REQUIRES: a block that a pointer fits into, and that holds nothing.
    void put(void* block) noexcept {
        first_ = new (block) spare{first_};
        ++size_;
    }

    /// The one that was put last. REQUIRES: there is one.
    void* take() noexcept {
        assert(first_ != nullptr);
        --size_;
        return std::exchange(first_, first_->next);
    }

  private:
    struct spare {
        spare* next;
    };
    spare* first_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace taskpool::detail
