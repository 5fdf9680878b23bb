// SPDX-License-Identifier: Apache-2.0
// All of the core. Begin reading with task_pool.hpp.
#pragma once

#include <taskpool/blocking_scope.hpp>
#include <taskpool/deadline.hpp>
#include <taskpool/future.hpp>
#include <taskpool/job.hpp>
#include <taskpool/manual_clock.hpp>
#include <taskpool/options.hpp>
#include <taskpool/rate.hpp>
#include <taskpool/retry.hpp>
#include <taskpool/stats.hpp>
#include <taskpool/status.hpp>
#include <taskpool/task.hpp>
#include <taskpool/task_pool.hpp>
#include <taskpool/timer.hpp>
#include <taskpool/version.hpp>
