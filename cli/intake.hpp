// SPDX-License-Identifier: Apache-2.0
// The way of a record from the reader through the pool to the engine, and the count of what is on it.
//
//   reader   admit(key)  waits while the buffer is full; then submits a job to the pool
//   pool     offer()     that job, when its key's turn comes: it holds the key and hands the record on
//   engine   take()      the records whose turn has come; ended(key) when one is over, its key released
//
// I-IN-1: of each key at most one record is between offer() and ended(): the pool holds the key meanwhile.
// I-IN-2: the records admitted and not ended are at most the buffer and the slots together, so memory is bounded
//         wherever they are: most of them may be ready and of different keys.
// I-IN-3: a record that was admitted is ended once, whether it ran, was skipped or was dropped.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <taskpool/job.hpp>

#include "record.hpp"

namespace taskpool::cli {

/// A record with its key, as it goes through the pool.
struct work {
    cli::record record;
    bool own_key = false; ///< It has no key, and the pool's is one made up for it.
};

/// What the engine gets: a record whose turn it is, or the number of one that is over without having been one.
struct arrival {
    std::unique_ptr<cli::work> work;  ///< Null: there is nothing to run.
    const std::string* key = nullptr; ///< The pool's key. Valid while `held` is.
    taskpool::held held;
    std::uint64_t number = 0;
    bool skipped = false; ///< With no work: its key is skipped. Otherwise the record was left out when it was read.

    /// The key for the command and for messages. REQUIRES: `work` and `held`.
    std::string_view shown_key() const noexcept { return work->own_key ? std::string_view() : std::string_view(*key); }
};

/// Hash of a key that needs no copy to look one up.
struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
};

class intake {
  public:
    /// `wake` makes the engine call take(); any thread may call it.
    intake(std::size_t room, std::function<void()> wake) : room_(room), wake_(std::move(wake)) {}

    // --- The reader -----------------------------------------------------------------------------------------------

    /// Waits for room and counts a record of this key. False when no more are wanted.
    bool admit(std::string_view key);

    /// The record that was admitted last was not taken by the pool.
    void withdraw(std::string_view key);

    /// A record is left out, and never admitted.
    void leave_out(std::uint64_t number);

    /// There is no more. `error`: why, when it is not the end of the input.
    void finish(std::optional<std::string> error);

    // --- The pool's jobs --------------------------------------------------------------------------------------------

    void offer(std::unique_ptr<work> what, const job_context& context);

    /// A job of the pool failed: its record is lost. Only memory can be short.
    void lose(std::string reason);

    // --- The engine -------------------------------------------------------------------------------------------------

    struct report {
        std::vector<arrival> arrivals;
        bool input_ended = false;
        std::optional<std::string> error; ///< Once, when it has just become known.
        std::uint64_t admitted = 0;       ///< In all.
        std::uint64_t dropped = 0;        ///< In all: admitted and then not run, because no more were wanted.
    };

    /// What has come since the last call. `into.arrivals` is replaced.
    void take(report& into);

    /// A record of this key is over. Says how many of the key are left; when there are any, the next one is on its way.
    std::size_t ended(std::string_view key);

    /// The records of this key that have not been offered need not be run.
    void skip_key(std::string_view key);

    /// No more records are wanted: the reader is refused, and those on their way are dropped and counted.
    void close();

    /// The buffer and the slots together, from now on.
    void set_room(std::size_t room);

    struct load {
        std::size_t keys = 0;    ///< With records that are not over.
        std::string hottest;     ///< The one of them with the most that wait ...
        std::size_t waiting = 0; ///< ... and how many those are.
    };
    load look() const; ///< Walks through all keys.

  private:
    void push(arrival what, std::unique_lock<std::mutex>& lock);
    std::size_t ended_locked(std::string_view key);

    mutable std::mutex mutex_;
    std::condition_variable room_or_closed_;
    std::size_t room_;
    const std::function<void()> wake_;

    std::unordered_map<std::string, std::size_t, text_hash, std::equal_to<>> of_key_; // admitted and not ended
    std::size_t outstanding_ = 0;                                                     // the same in all
    std::unordered_set<std::string, text_hash, std::equal_to<>> skipped_keys_;
    bool closed_ = false;
    bool reader_waits_ = false;
    report report_; // since the last take
};

} // namespace taskpool::cli
