// SPDX-License-Identifier: Apache-2.0
// What the compiled library shows to its users; everything else has hidden visibility.
#pragma once

#if defined(TASKPOOL_STATIC)
#define TASKPOOL_EXPORT
#elif defined(_WIN32)
#if defined(TASKPOOL_BUILDING)
#define TASKPOOL_EXPORT __declspec(dllexport)
#else
#define TASKPOOL_EXPORT __declspec(dllimport)
#endif
#else
#define TASKPOOL_EXPORT __attribute__((visibility("default")))
#endif
