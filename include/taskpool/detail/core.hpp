// SPDX-License-Identifier: Apache-2.0
// The border between the templates and the compiled core: keys and callables reach it as tables of functions.
// Nothing here is for users.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <sstream>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/job.hpp>
#include <taskpool/options.hpp>
#include <taskpool/stats.hpp>
#include <taskpool/status.hpp>

namespace taskpool::detail {

class pool_core;
struct lane;

// --- Keys ---------------------------------------------------------------------------------------------------------

/// How the core treats keys whose type it does not see. A *stored* key lives in a lane; a *view* is what callers pass;
/// `functions` is the pool's key_functions.
struct key_type {
    std::size_t size;
    std::size_t alignment;
    void (*construct)(void* at, const void* view); // may throw, like all but destroy
    void (*copy)(void* at, const void* stored);
    void (*destroy)(void* stored) noexcept;
    std::uint64_t (*hash)(const void* functions, const void* stored);
    std::uint64_t (*hash_view)(const void* functions, const void* view);
    bool (*equal)(const void* functions, const void* stored, const void* view);
    bool (*same)(const void* functions, const void* stored, const void* other_stored);
    std::string (*describe)(const void* stored);
    std::size_t (*extent)(const void* stored); // bytes outside the object, where that is known
    void (*look)(const void* stored, void* self, void (*use)(void* self, const void* view)); // calls `use` with a view
};

struct key_view {
    const void* view;
    std::uint64_t hash;
};

template <class Hash, class Equal>
struct key_functions {
    [[no_unique_address]] Hash hash;
    [[no_unique_address]] Equal equal;
};

/// What callers pass for a key: a string_view for strings, so that no look-up copies; a reference for the rest.
template <class Key>
using view_of = std::conditional_t<std::is_same_v<Key, std::string>, std::string_view, const Key&>;

template <class Key>
std::string describe_key(const Key& key) {
    if constexpr (std::is_convertible_v<const Key&, std::string_view>) {
        return std::string(std::string_view(key));
    } else if constexpr (requires(std::ostream& out) { out << key; }) {
        std::ostringstream out;
        out << key;
        return std::move(out).str();
    } else {
        return "(a key with no text)";
    }
}

template <class Key, class Hash, class Equal>
struct key_type_for {
    using functions = key_functions<Hash, Equal>;
    using view = std::remove_reference_t<view_of<Key>>;

    static const Key& key(const void* stored) { return *static_cast<const Key*>(stored); }

    static constexpr key_type table = {
        sizeof(Key),
        alignof(Key),
        [](void* at, const void* from) { new (at) Key(*static_cast<const view*>(from)); },
        [](void* at, const void* stored) { new (at) Key(key(stored)); },
        [](void* stored) noexcept { static_cast<Key*>(stored)->~Key(); },
        [](const void* self, const void* stored) -> std::uint64_t {
            return static_cast<const functions*>(self)->hash(key(stored));
        },
        [](const void* self, const void* from) -> std::uint64_t {
            return static_cast<const functions*>(self)->hash(*static_cast<const view*>(from));
        },
        [](const void* self, const void* stored, const void* other) -> bool {
            return static_cast<const functions*>(self)->equal(key(stored), *static_cast<const view*>(other));
        },
        [](const void* self, const void* stored, const void* other) -> bool {
            return static_cast<const functions*>(self)->equal(key(stored), key(other));
        },
        [](const void* stored) { return describe_key(key(stored)); },
        [](const void* stored) -> std::size_t {
            if constexpr (std::is_convertible_v<const Key&, std::string_view>)
                return std::string_view(key(stored)).size();
            else
                return 0;
        },
        [](const void* stored, void* self, void (*use)(void*, const void*)) {
            view seen = key(stored);
            use(self, &seen);
        },
    };
};

/// So many objects, without values at first. A few lie in itself; more lie elsewhere, all of them.
template <class T>
class few_or_many {
  public:
    explicit few_or_many(std::size_t count)
        : many_(count > most_few ? std::make_unique_for_overwrite<T[]>(count) : nullptr), // NOLINT(*-avoid-c-arrays)
          count_(count) {}

    T& operator[](std::size_t i) noexcept { return all()[i]; }
    std::span<T> all() noexcept { return {many_ == nullptr ? few_.data() : many_.get(), count_}; }
    std::span<const T> all() const noexcept { return {many_ == nullptr ? few_.data() : many_.get(), count_}; }

  private:
    static constexpr std::size_t most_few = 4;
    std::array<T, most_few> few_;
    std::unique_ptr<T[]> many_; // NOLINT(*-avoid-c-arrays): a vector would give them values
    std::size_t count_;
};

// --- Jobs ---------------------------------------------------------------------------------------------------------

/// Callables up to this size and alignment that move without throwing need no allocation.
inline constexpr std::size_t inline_job_size = 32;
inline constexpr std::size_t inline_job_alignment = 16;

template <class F>
inline constexpr bool fits_inline =
    sizeof(F) <= inline_job_size && alignof(F) <= inline_job_alignment && std::is_nothrow_move_constructible_v<F>;

/// How often a stored callable can be run, and where.
enum class job_kind : std::uint8_t {
    plain,   ///< Again and again, anywhere.
    of_pool, ///< Again, by this pool: it is a pointer to something of the pool's.
    once,    ///< Its first run uses it up.
};

/// What can be done with a stored callable. A null `relocate` means 32 bytes of memcpy, a null `destroy` nothing.
struct job_ops {
    void (*run)(void* storage, const running_job& job); // throws what the callable throws
    void (*destroy)(void* storage);                     // throws what the callable's destructor throws
    void (*relocate)(void* to, void* from) noexcept;    // moves it and ends it at `from`
    job_kind kind = job_kind::plain;
};

/// In a job's place for stop_action: as `discard`, but what a lane and the pool can hold does not bind it. It is taken
/// when they are full, and not dropped to make room: who posts for an executor can neither wait nor keep it.
inline constexpr auto posted = static_cast<stop_action>(5);

/// A job on its way into a lane. The core calls `store` once it has room, with the lane locked; until then the caller's
/// callable is untouched.
struct job_source {
    const job_ops* ops = nullptr;
    void (*store)(job_source& self, void* storage) = nullptr; // may throw, leaving both sides as they were
    lane* accepted_in = nullptr;                              // set by the core before it calls store
    bool was_accepted = false; // when it was set a time for: closing is past it, and it has been counted
    bool tries_again = false;  // a refusal for want of room is not the last word
    bool exists = false;       // its state does, whether it is accepted or not: the pool's capacity cannot bound it
};

template <class F>
inline constexpr job_kind kind_of = requires { typename F::runs_once; } ? job_kind::once : job_kind::plain;

/// The functions for a callable `F` that lies in the slot itself.
template <class Key, class F>
inline constexpr job_ops inline_job_ops = {
    [](void* storage, const running_job& job) {
        call_in_job<Key>(*static_cast<F*>(storage), basic_job_context<Key>(job));
    },
    std::is_trivially_destructible_v<F> ? nullptr : static_cast<void (*)(void*)>([](void* storage) {
        static_cast<F*>(storage)->~F();
    }),
    std::is_trivially_copyable_v<F> ? nullptr
                                    : static_cast<void (*)(void*, void*) noexcept>([](void* to, void* from) noexcept {
                                          new (to) F(std::move(*static_cast<F*>(from)));
                                          static_cast<F*>(from)->~F();
                                      }),
    kind_of<F>,
};

/// The functions for a callable `F` to which the slot holds a pointer.
template <class Key, class F>
inline constexpr job_ops boxed_job_ops = {
    [](void* storage, const running_job& job) {
        call_in_job<Key>(**static_cast<F**>(storage), basic_job_context<Key>(job));
    },
    [](void* storage) {
        // The destructor may throw; the memory is given back all the same.
        struct box_memory {
            F* box;
            ~box_memory() { ::operator delete(box, std::align_val_t(alignof(F))); }
        } memory{*static_cast<F**>(storage)};
        memory.box->~F();
    },
    nullptr,
    kind_of<F>,
};

/// Takes the callable out of a stored_job. Throws std::invalid_argument for one that is empty.
TASKPOOL_EXPORT const job_ops* unpack(stored_job&& job, void* storage);

/// Brings a callable of type `F`, which `make(lane&)` yields, or `make()`, to the core. The memory of one that needs a
/// box is taken before any lock.
template <class Key, class F, class Make>
class job_source_of : public job_source {
  public:
    explicit job_source_of(Make make) : make_(std::move(make)) {
        if constexpr (std::is_same_v<F, stored_job>) { // lies in the slot as it did when it was a pool's job before
            store = [](job_source& self, void* storage) {
                self.ops = unpack(static_cast<job_source_of&>(self).made(), storage);
            };
        } else if constexpr (fits_inline<F>) {
            ops = &inline_job_ops<Key, F>;
            store = [](job_source& self, void* storage) { new (storage) F(static_cast<job_source_of&>(self).made()); };
        } else {
            ops = &boxed_job_ops<Key, F>;
            box_ = ::operator new(sizeof(F), std::align_val_t(alignof(F)));
            store = [](job_source& self, void* storage) {
                auto& source = static_cast<job_source_of&>(self);
                F* box = new (source.box_) F(source.made());
                source.box_ = nullptr;
                new (storage) F*(box);
            };
        }
    }
    job_source_of(const job_source_of&) = delete;
    job_source_of& operator=(const job_source_of&) = delete;
    ~job_source_of() {
        if (box_ != nullptr)
            ::operator delete(box_, std::align_val_t(alignof(F)));
    }

  private:
    F made() {
        if constexpr (std::is_invocable_v<Make&>)
            return make_(); // a timed job has no lane yet
        else
            return make_(*accepted_in);
    }

    Make make_;
    void* box_ = nullptr;
};

// --- The compiled core -----------------------------------------------------------------------------------------------

using clock = std::chrono::steady_clock;

/// How long a call may wait. Passed by reference: a copy on the stack is written in pieces and read as a whole, which
/// waits until all earlier stores are in the cache.
struct patience {
    enum kind_t : std::uint8_t { none, until_deadline, for_ever } kind;
    std::uint32_t milliseconds = 0; // until the deadline, rounded up, or the most that there are: for virtual time
    clock::time_point deadline{};
};

/// A pool without threads, which its caller drives (testing.hpp), under a seed in an order of that seed's.
struct manual_mode {
    std::optional<std::uint64_t> seed;
};

struct timed_job;

/// The answer of schedule: accepted with the job, or refused without.
struct scheduled {
    submit_status status;
    timed_job* job;
};

/// Called with a stored key; may throw.
struct key_visitor {
    void (*visit)(void* self, const void* stored, std::uint64_t count, std::uint64_t error);
    void* self;
};

TASKPOOL_EXPORT std::shared_ptr<pool_core> make_core(options settings, const key_type& keys,
                                                     std::shared_ptr<const void> functions);
TASKPOOL_EXPORT std::shared_ptr<pool_core> make_core(const manual_mode& mode, options settings, const key_type& keys,
                                                     std::shared_ptr<const void> functions);
TASKPOOL_EXPORT void destroy_core(pool_core& core) noexcept; // what the pool's destructor does

TASKPOOL_EXPORT submit_result submit(pool_core& core, const key_view& key, job_source& job, const job_options& how,
                                     const patience& wait);
TASKPOOL_EXPORT submit_result submit(pool_core& core, lane& lane, job_source& job, const job_options& how,
                                     const patience& wait);
TASKPOOL_EXPORT submit_result submit(pool_core& core, const key_view& key, std::string_view tag, job_source& job,
                                     const job_options& how, const patience& wait);
TASKPOOL_EXPORT submit_result submit_together(pool_core& core, std::span<const key_view> keys, job_source& job,
                                              const job_options& how, const patience& wait);

/// Beside its neighbours that are shared, too.
TASKPOOL_EXPORT submit_result submit_shared(pool_core& core, const key_view& key, job_source& job,
                                            const job_options& how, const patience& wait);
TASKPOOL_EXPORT submit_result submit_shared(pool_core& core, lane& lane, job_source& job, const job_options& how,
                                            const patience& wait);

/// Between all that was submitted before and after it.
TASKPOOL_EXPORT submit_result submit_barrier(pool_core& core, job_source& job, const job_options& how,
                                             const patience& wait);

/// Submits for a later time, and again every `period` if that is positive.
TASKPOOL_EXPORT scheduled schedule(pool_core& core, const key_view& key, job_source& job, const job_options& how,
                                   clock::time_point when, std::chrono::nanoseconds period);
TASKPOOL_EXPORT clock::time_point pool_now(const pool_core& core) noexcept;

TASKPOOL_EXPORT std::uint64_t hash_of(const pool_core& core, const void* key_view); // throws what the hash throws

/// Work for a lane that is tried again once a tick while there is no room for it.
struct delivery {
    bool (*attempt)(delivery& self) noexcept = nullptr; // false: no room; else it is done, and may be gone
    delivery* next = nullptr;
};
TASKPOOL_EXPORT void deliver(pool_core& core, delivery& what) noexcept;

TASKPOOL_EXPORT lane* acquire_lane(pool_core& core, const key_view& key);
TASKPOOL_EXPORT void share_lane(pool_core& core, lane& lane) noexcept;
TASKPOOL_EXPORT void release_lane(pool_core& core, lane& lane) noexcept;
TASKPOOL_EXPORT const void* stored_key(const pool_core& core, const lane& lane) noexcept;

TASKPOOL_EXPORT void start(pool_core& core);
TASKPOOL_EXPORT void close(pool_core& core) noexcept;
TASKPOOL_EXPORT bool drain(pool_core& core, const patience& wait);
TASKPOOL_EXPORT bool drain(pool_core& core, const key_view& key, const patience& wait);
TASKPOOL_EXPORT std::size_t cancel(pool_core& core, const key_view& key);
TASKPOOL_EXPORT stop_report stop(pool_core& core);

/// The rate that a function of the user's sets for a stored key.
using rate_function = std::function<std::optional<rate>(const void* stored_key)>;

TASKPOOL_EXPORT void limit(pool_core& core, const key_view& key, const rate& most);
TASKPOOL_EXPORT bool unlimit(pool_core& core, const key_view& key);
TASKPOOL_EXPORT void limit_all(pool_core& core, const std::optional<rate>& most);
TASKPOOL_EXPORT void limit_by(pool_core& core, rate_function f);

TASKPOOL_EXPORT bool pause(pool_core& core, const key_view& key);
TASKPOOL_EXPORT bool resume(pool_core& core, const key_view& key);
TASKPOOL_EXPORT std::size_t active_keys(const pool_core& core) noexcept;
TASKPOOL_EXPORT void visit_active_keys(pool_core& core, key_visitor visitor);
TASKPOOL_EXPORT void visit_paused_keys(pool_core& core, key_visitor visitor);
TASKPOOL_EXPORT void visit_hottest_keys(pool_core& core, std::size_t most, key_visitor visitor);
TASKPOOL_EXPORT void visit_oldest_keys(const pool_core& core, std::size_t most, key_visitor visitor);
TASKPOOL_EXPORT pool_stats stats(const pool_core& core);

/// `by` after `from`, or the clock's last time. REQUIRES: by is not negative.
inline clock::time_point later(clock::time_point from, std::chrono::nanoseconds by) noexcept {
    return by > clock::time_point::max() - std::max(from, clock::time_point()) ? clock::time_point::max() : from + by;
}

/// Turns a relative time into a deadline without overflow: what lies beyond the clock's end is for ever.
template <class Rep, class Period>
patience patience_for(const std::chrono::duration<Rep, Period>& time) {
    using seconds = std::chrono::duration<double>;
    const auto now = clock::now();
    if (time <= time.zero())
        return {patience::until_deadline, 0, now};
    if (seconds(time) >= seconds(clock::time_point::max() - now) - std::chrono::hours(1))
        return {patience::for_ever};
    const auto wait = std::chrono::ceil<clock::duration>(time);
    constexpr auto most = std::chrono::milliseconds(std::numeric_limits<std::uint32_t>::max());
    const auto milliseconds = std::min(std::chrono::ceil<std::chrono::milliseconds>(wait), most).count();
    return {patience::until_deadline, static_cast<std::uint32_t>(milliseconds), now + wait};
}

/// The same for a point in time, which may be the clock's first or last.
template <class Duration>
patience patience_until(const std::chrono::time_point<clock, Duration>& time) {
    const auto now = clock::now();
    return time <= now ? patience{patience::until_deadline, 0, now} : patience_for(time - now);
}

} // namespace taskpool::detail
