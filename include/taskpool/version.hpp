// SPDX-License-Identifier: Apache-2.0
// The version, in its one place: the build reads it from here.
#pragma once

#define TASKPOOL_VERSION_MAJOR 0
#define TASKPOOL_VERSION_MINOR 1
#define TASKPOOL_VERSION_PATCH 0
#define TASKPOOL_VERSION "0.1.0"
