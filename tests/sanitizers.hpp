// SPDX-License-Identifier: Apache-2.0
// Which sanitizer the tests are built with, if any.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define TASKPOOL_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TASKPOOL_TEST_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TASKPOOL_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TASKPOOL_TEST_ASAN 1
#endif
#endif
#if defined(TASKPOOL_TEST_TSAN) || defined(TASKPOOL_TEST_ASAN)
#define TASKPOOL_TEST_SANITIZER 1
#endif

namespace taskpool::testing {

#if defined(TASKPOOL_TEST_SANITIZER)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

/// How much slower than usual a test may be here.
inline constexpr int slowness = sanitized ? 5 : 1;

} // namespace taskpool::testing
