// SPDX-License-Identifier: Apache-2.0
// What may be submitted, and what becomes of the callable.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Job, takes_nothing_a_stop_token_or_a_context) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit("key", [&](std::stop_token token) {
        EXPECT_TRUE(token.stop_possible());
        ++ran;
    }));
    ASSERT_TRUE(pool.submit("key", [&](const std::stop_token&) { ++ran; }));
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        EXPECT_EQ(context.key(), "key");
        ++ran;
    }));
    ASSERT_TRUE(pool.submit("key", [&]() mutable noexcept { ++ran; }));
    ASSERT_TRUE(pool.submit("key", [&] { return ++ran; })); // the result is ignored
    ASSERT_TRUE(pool.submit("key", std::function<void()>([&] { ++ran; })));
    pool.drain();
    EXPECT_EQ(ran, 7);
}

std::atomic<int> free_function_ran = 0;
void free_function() { ++free_function_ran; }

TEST(Job, may_be_a_function) {
    free_function_ran = 0;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", free_function));
    ASSERT_TRUE(pool.submit("key", &free_function));
    pool.drain();
    EXPECT_EQ(free_function_ran, 2);
}

TEST(Job, the_context_tells_of_the_key_and_the_number) {
    journal<std::pair<std::string, std::uint64_t>> seen;
    task_pool pool({.threads = 1, .autostart = false});
    for (int i = 0; i < 3; ++i) {
        for (const auto* key : {"a", "b"})
            ASSERT_TRUE(pool.submit(key, [&](const job_context& context) {
                seen.add({context.key(), context.number()});
            }));
    }
    pool.start();
    pool.drain();
    std::vector<std::uint64_t> a, b;
    for (const auto& [key, number] : seen.entries())
        (key == "a" ? a : b).push_back(number);
    EXPECT_EQ(a, (std::vector<std::uint64_t>{1, 2, 3}));
    EXPECT_EQ(b, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST(Job, its_number_counts_those_that_were_discarded_before_it) {
    journal<std::uint64_t> numbers;
    const auto note = [&](const job_context& context) { numbers.add(context.number()); };
    {
        task_pool pool({.threads = 1, .lane_capacity = 2, .when_full = overflow::drop_oldest, .autostart = false});
        for (int i = 0; i < 5; ++i)
            ASSERT_TRUE(pool.submit("key", note));
        pool.start();
        pool.drain();
    }
    EXPECT_EQ(numbers.entries(), (std::vector<std::uint64_t>{4, 5}));
    gate until;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    occupy(pool, "key", until);
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", note));
    EXPECT_EQ(pool.cancel("key"), 3U);
    ASSERT_TRUE(pool.submit("key", note)); // the key has had work all the time
    until.open();
    pool.drain();
    EXPECT_EQ(numbers.entries(), (std::vector<std::uint64_t>{4, 5, 5}));
}

TEST(Job, the_context_may_be_asked_from_another_thread_while_the_job_runs) {
    std::latch running(1);
    std::atomic<bool> stopped = false;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        std::thread other([&] {
            EXPECT_EQ(context.key(), "key");
            EXPECT_EQ(context.number(), 1U);
            running.count_down();
            while (!context.stop_requested())
                std::this_thread::yield();
            stopped = context.stop_token().stop_requested();
        });
        other.join();
    }));
    running.wait();
    pool.stop();
    EXPECT_TRUE(stopped);
}

TEST(Job, need_not_be_copyable) {
    std::atomic<int> sum = 0;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&sum, value = std::make_unique<int>(7)] { sum += *value; }));
    ASSERT_TRUE(pool.try_submit("key", [&sum, value = std::make_unique<int>(8)](std::stop_token) { sum += *value; }));
    pool.drain();
    EXPECT_EQ(sum, 15);
}

struct owner {
    std::unique_ptr<int> value = std::make_unique<int>(1);
    void operator()() const {}
};

TEST(Job, stays_with_the_caller_unmoved_when_it_is_not_accepted) {
    task_pool pool({.lane_capacity = 1, .autostart = false});
    auto lane = pool.lane("key");
    ASSERT_TRUE(pool.submit("key", [] {}));
    owner job;
    EXPECT_EQ(pool.try_submit("key", std::move(job)), submit_status::full);
    ASSERT_NE(job.value, nullptr);
    EXPECT_EQ(pool.submit_for("key", 1ms, std::move(job)), submit_status::timed_out);
    ASSERT_NE(job.value, nullptr);
    EXPECT_EQ(lane.try_submit(std::move(job)), submit_status::full);
    ASSERT_NE(job.value, nullptr);
    pool.close();
    EXPECT_EQ(pool.submit("key", std::move(job)), submit_status::stopped);
    ASSERT_NE(job.value, nullptr);
    auto refused = pool.async("key", std::move(job));
    EXPECT_THROW(refused.get(), job_rejected);
    ASSERT_NE(job.value, nullptr);
    // The same for one in a box.
    struct large_owner : owner {
        std::array<char, 100> more{};
    } large;
    EXPECT_EQ(pool.submit("key", std::move(large)), submit_status::stopped);
    ASSERT_NE(large.value, nullptr);
}

struct copy_counter {
    int* copies;
    int* moves;
    int* ran;
    copy_counter(int& c, int& m, int& r) : copies(&c), moves(&m), ran(&r) {}
    copy_counter(const copy_counter& other) noexcept : copies(other.copies), moves(other.moves), ran(other.ran) {
        ++*copies;
    }
    copy_counter(copy_counter&& other) noexcept : copies(other.copies), moves(other.moves), ran(other.ran) { ++*moves; }
    void operator()() const { ++*ran; }
};

TEST(Job, an_lvalue_is_copied_and_an_rvalue_is_moved) {
    int copies = 0, moves = 0, ran = 0;
    task_pool pool({.autostart = false});
    copy_counter job(copies, moves, ran);
    const copy_counter& constant = job;
    ASSERT_TRUE(pool.submit("key", job));
    EXPECT_EQ(copies, 1);
    ASSERT_TRUE(pool.submit("key", constant));
    EXPECT_EQ(copies, 2);
    moves = 0;
    ASSERT_TRUE(pool.submit("key", std::move(job)));
    EXPECT_EQ(copies, 2);
    EXPECT_EQ(moves, 1); // once, and only because it was accepted
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 3);
}

/// Throws when it is copied or moved, as often as told to.
struct throwing {
    struct state {
        int throw_copies = 0, throw_moves = 0;
        std::atomic<int> ran = 0, alive = 0;
    };
    explicit throwing(state& s) : state_(&s) { ++state_->alive; }
    throwing(const throwing& other) : state_(other.state_) {
        if (state_->throw_copies > 0 && state_->throw_copies-- > 0)
            throw std::runtime_error("copy");
        ++state_->alive;
    }
    throwing(throwing&& other) : state_(other.state_) {
        if (state_->throw_moves > 0 && state_->throw_moves-- > 0)
            throw std::runtime_error("move");
        ++state_->alive;
    }
    ~throwing() { --state_->alive; }
    void operator()() const { ++state_->ran; }
    state* state_;
};

TEST(Job, a_copy_that_throws_leaves_the_pool_as_it_was) {
    throwing::state state;
    {
        task_pool pool({.autostart = false});
        const throwing job(state);
        state.throw_copies = 1;
        EXPECT_THROW(pool.submit("key", job), std::runtime_error);
        EXPECT_EQ(pool.stats().accepted, 0U);
        EXPECT_EQ(pool.stats().waiting, 0U);
        EXPECT_EQ(pool.active_keys(), 0U);
        EXPECT_EQ(state.alive, 1);
        ASSERT_TRUE(pool.submit("key", job));
        pool.start();
        pool.drain();
        EXPECT_EQ(state.ran, 1);
    }
    EXPECT_EQ(state.alive, 0);
}

TEST(Job, a_move_that_throws_leaves_the_pool_as_it_was) {
    throwing::state state;
    std::vector<int> ran;
    {
        task_pool pool({.threads = 1, .lane_capacity = 45, .pool_capacity = 45, .autostart = false});
        auto lane = pool.lane("key");
        // At every place of a queue that grows: in an empty lane, in its first chunk and at the edge of the next.
        for (int i = 0; i < 45; ++i) {
            state.throw_moves = 1;
            EXPECT_THROW(pool.submit("key", throwing(state)), std::runtime_error);
            state.throw_moves = 1;
            EXPECT_THROW(lane.submit(throwing(state)), std::runtime_error);
            state.throw_moves = 1;
            EXPECT_THROW((void)pool.async("key", throwing(state)), std::runtime_error);
            EXPECT_EQ(state.alive, 0);
            EXPECT_EQ(pool.stats().accepted, static_cast<std::uint64_t>(i));
            EXPECT_EQ(pool.stats().waiting, static_cast<std::size_t>(i));
            EXPECT_EQ(pool.active_keys(), i == 0 ? 0U : 1U);
            ASSERT_TRUE(pool.try_submit("key", [&ran, i] { ran.push_back(i); }));
        }
        EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full); // no room was lost, none was won
        pool.start();
        pool.drain();
        EXPECT_EQ(ran, count_up(45));
        state.throw_moves = 1;
        EXPECT_THROW(pool.submit("key", throwing(state)), std::runtime_error);
        EXPECT_EQ(pool.active_keys(), 0U);
        pool.drain();
        ASSERT_TRUE(pool.submit("key", throwing(state)));
        pool.drain();
    }
    EXPECT_EQ(state.ran, 1);
    EXPECT_EQ(state.alive, 0);
}

TEST(Job, a_move_that_throws_gives_up_no_other_job) {
    // With drop_oldest and keep_latest, too.
    for (const auto when_full : {overflow::drop_oldest, overflow::keep_latest}) {
        throwing::state state;
        std::atomic<int> ran = 0;
        task_pool pool({.lane_capacity = 1, .when_full = when_full, .autostart = false});
        ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
        state.throw_moves = 1;
        EXPECT_THROW(pool.submit("key", throwing(state)), std::runtime_error);
        EXPECT_EQ(pool.stats().discarded, 0U);
        pool.start();
        pool.drain();
        EXPECT_EQ(ran, 1);
    }
}

TEST(Job, of_any_alignment_is_kept_aligned) {
    std::atomic<int> ran = 0, wrong = 0;
    task_pool pool({.threads = 2});
    const auto submit = [&]<std::size_t alignment>(std::integral_constant<std::size_t, alignment>) {
        struct alignas(alignment) job {
            std::atomic<int>* ran;
            std::atomic<int>* wrong;
            void operator()() const {
                *wrong += reinterpret_cast<std::uintptr_t>(this) % alignment != 0;
                ++*ran;
            }
        };
        for (int i = 0; i < 50; ++i)
            EXPECT_TRUE(pool.submit("key", job{&ran, &wrong}));
    };
    submit(std::integral_constant<std::size_t, 8>());
    submit(std::integral_constant<std::size_t, 16>());
    submit(std::integral_constant<std::size_t, 32>());
    submit(std::integral_constant<std::size_t, 64>());
    submit(std::integral_constant<std::size_t, 4096>());
    pool.drain();
    EXPECT_EQ(ran, 250);
    EXPECT_EQ(wrong, 0);
}

TEST(Job, of_any_size_arrives_whole) {
    std::atomic<int> ran = 0, wrong = 0;
    task_pool pool({.threads = 2});
    const auto submit = [&]<std::size_t size>(std::integral_constant<std::size_t, size>) {
        for (int i = 0; i < 30; ++i) {
            std::array<unsigned char, size> bytes;
            for (std::size_t at = 0; at < size; ++at)
                bytes[at] = static_cast<unsigned char>(at * 7 + static_cast<std::size_t>(i));
            EXPECT_TRUE(pool.submit("key", [&ran, &wrong, bytes, i] {
                for (std::size_t at = 0; at < size; ++at)
                    wrong += bytes[at] != static_cast<unsigned char>(at * 7 + static_cast<std::size_t>(i));
                ++ran;
            }));
        }
    };
    submit(std::integral_constant<std::size_t, 1>());
    submit(std::integral_constant<std::size_t, 12>());
    submit(std::integral_constant<std::size_t, 13>());
    submit(std::integral_constant<std::size_t, 100>());
    submit(std::integral_constant<std::size_t, 100'000>());
    pool.drain();
    EXPECT_EQ(ran, 150);
    EXPECT_EQ(wrong, 0);
}

TEST(Job, a_small_one_costs_no_allocation) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1});
    auto lane = pool.lane("key");
    struct small { // 32 bytes
        std::atomic<int>* ran;
        std::array<std::uint64_t, 3> more;
        void operator()() const { ++*ran; }
    };
    static_assert(sizeof(small) == 32);
    const auto allocations_of = [&](auto&& submit) {
        submit();
        pool.drain(); // warmed up
        std::uint64_t allocations = 0;
        for (int i = 0; i < 1'000; ++i) {
            const auto before = allocations_of_this_thread();
            submit();
            allocations += allocations_of_this_thread() - before;
            pool.drain("key");
        }
        return allocations;
    };
    EXPECT_EQ(allocations_of([&] { EXPECT_TRUE(lane.submit(small{&ran, {}})); }), 0U);
    EXPECT_EQ(allocations_of([&] { EXPECT_TRUE(pool.submit("key", small{&ran, {}})); }), 0U);
    EXPECT_EQ(allocations_of([&] { EXPECT_TRUE(pool.try_submit("key", [&ran] { ++ran; })); }), 0U);
    // The counter counts: a large one takes one box.
    EXPECT_EQ(allocations_of([&] { EXPECT_TRUE(lane.submit([large = std::array<char, 33>()] { (void)large; })); }),
              1'000U);
}

TEST(Job, a_backlog_of_small_ones_costs_far_less_than_an_allocation_each) {
    task_pool pool({.lane_capacity = 10'000, .autostart = false});
    auto lane = pool.lane("key");
    const auto before = allocations_of_this_thread();
    for (int i = 0; i < 10'000; ++i)
        EXPECT_TRUE(lane.submit([&pool] { (void)pool; }));
    EXPECT_LE(allocations_of_this_thread() - before, 1'000U);
}

TEST(Job, a_long_key_that_has_work_is_looked_up_without_an_allocation) {
    gate until;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    const std::string key(1'000'000, 'k');
    occupy(pool, key, until);
    ASSERT_TRUE(pool.submit(key, [] {}));
    ASSERT_TRUE(pool.submit(key, [] {})); // has a chunk now
    const auto before = allocations_of_this_thread();
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit(std::string_view(key), [] {}));
    EXPECT_EQ(allocations_of_this_thread() - before, 0U);
}

TEST(Job, is_destroyed_when_it_has_run_not_with_the_pool) {
    task_pool pool({.threads = 2});
    auto owned = std::make_shared<int>(1);
    const std::weak_ptr<int> watched = owned;
    ASSERT_TRUE(pool.submit("key", [owned] { (void)owned; }));
    ASSERT_TRUE(pool.submit("key", [owned, large = std::array<char, 100>()] { (void)owned, (void)large; }));
    owned.reset();
    pool.drain();
    EXPECT_TRUE(watched.expired());
}

TEST(Job, each_status_has_words) {
    EXPECT_EQ(to_string(submit_status::accepted), "accepted");
    EXPECT_EQ(to_string(submit_status::full), "full");
    EXPECT_EQ(to_string(submit_status::timed_out), "timed out");
    EXPECT_EQ(to_string(submit_status::stopped), "stopped");
    EXPECT_EQ(to_string(submit_status::would_deadlock), "would deadlock");
    EXPECT_EQ(submit_result(submit_status::full).message(), "full");
    EXPECT_EQ(submit_result(submit_status::would_deadlock, "would deadlock: a -> a").message(),
              "would deadlock: a -> a");
    EXPECT_TRUE(submit_result(submit_status::accepted));
    EXPECT_FALSE(submit_result(submit_status::timed_out));
}

} // namespace
} // namespace taskpool::testing
