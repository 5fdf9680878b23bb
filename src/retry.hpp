// SPDX-License-Identifier: Apache-2.0
// Jobs that are tried again. A plain job that throws, and is to be tried again, becomes a coroutine on the spot: that
// owns the callable, sleeps, runs it, and so on. So a lane that backs off is one that a coroutine holds; stop, cancel,
// drain and pause treat it as such, and jobs that do not throw know nothing of it.
//
//   I-RETRY-1  What becomes of a job that threw is decided once for each attempt (running_job::after), by whoever
//              catches the exception first: with_retry with its policy, else, with the pool's, the future or the
//              worker.
//   I-RETRY-2  A job that is tried again is the current job of its lane all the time, with no hold but the coroutine's.
#pragma once

namespace taskpool::detail {

/// Thrown by an attempt after the first that finds that it is not wanted any more: the failure before it stands.
struct not_tried {};

} // namespace taskpool::detail
