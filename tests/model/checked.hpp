// SPDX-License-Identifier: Apache-2.0
// A plain value whose reads and writes must be ordered (I-MEMORY-2): what the jobs of a key share, or what travels with
// a job. It is as large as the value, so that a callable with one in it still lies in the slot itself.
#pragma once

#include <utility>

#include "explorer.hpp"

namespace taskpool::model {

template <class T>
class checked {
  public:
    checked() noexcept : checked(T()) {}
    explicit checked(T value) noexcept : value_(std::move(value)) { write_cell(this); }
    checked(checked&& other) noexcept : value_(other.get()) { write_cell(this); }
    checked& operator=(checked&&) = delete;
    ~checked() { write_cell(this); }

    const T& get() const noexcept {
        read_cell(this);
        return value_;
    }
    void set(T value) noexcept {
        write_cell(this);
        value_ = std::move(value);
    }

  private:
    T value_;
};

} // namespace taskpool::model
