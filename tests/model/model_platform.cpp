// SPDX-License-Identifier: Apache-2.0
// The system, as the core sees it in an execution: src/platform.hpp with the explorer's threads, std::thread objects
// for these, and the functions of the standard library that end such an object or tell the time, which the linker puts
// in place of its own (--wrap).
#include "platform.hpp"

#include <array>
#include <cstring>

#include "explorer.hpp"
#include "memory.hpp"

namespace taskpool::model {

// A std::thread of libstdc++ is the handle of the system's thread, or 0; here, the number of the explorer's, from 1.
static_assert(sizeof(std::thread) == sizeof(std::uint64_t));

static void set_handle(std::thread& of, std::uint64_t handle) noexcept {
    std::memcpy(static_cast<void*>(&of), &handle, sizeof handle);
}

std::thread start(std::function<void()> body, std::string name) {
    std::thread made;
    set_handle(made, start_thread(std::move(body), std::move(name)) + 1);
    return made;
}

} // namespace taskpool::model

using namespace taskpool::model;

extern "C" {
void __real__ZNSt6thread4joinEv(std::thread* self); // NOLINT: names that the linker makes
void __wrap__ZNSt6thread4joinEv(std::thread* self) {
    if (!is_explored())
        return __real__ZNSt6thread4joinEv(self);
    await_end(self->native_handle() - 1);
    set_handle(*self, 0);
}

void __real__ZNSt6thread6detachEv(std::thread* self);
void __wrap__ZNSt6thread6detachEv(std::thread* self) {
    if (!is_explored())
        return __real__ZNSt6thread6detachEv(self);
    set_handle(*self, 0);
}

std::chrono::steady_clock::time_point __real__ZNSt6chrono3_V212steady_clock3nowEv();
std::chrono::steady_clock::time_point __wrap__ZNSt6chrono3_V212steady_clock3nowEv() {
    return is_explored() ? time_now() : __real__ZNSt6chrono3_V212steady_clock3nowEv();
}
}

namespace taskpool::detail::platform {

unsigned available_processors() noexcept { return 2; }

std::thread start_thread(void (*body)(void*), void* argument, const std::string& name, unsigned number) {
    return model::start([=] { body(argument); }, name + '-' + std::to_string(number));
}

// A probe's making must happen before its use by another thread: there is a cell for each.
static std::array<char, model::most_threads> probes;

thread_probe thread_probe::of_this_thread() noexcept {
    thread_probe probe;
    probe.id_ = static_cast<std::int64_t>(model::this_thread_number());
    model::write_cell(&probes[static_cast<std::size_t>(probe.id_)]);
    return probe;
}

// A step takes a nanosecond.
std::optional<std::chrono::nanoseconds> thread_probe::cpu_time() const noexcept {
    model::read_cell(&probes[static_cast<std::size_t>(id_)]);
    return std::chrono::nanoseconds(model::steps_of(static_cast<std::uint64_t>(id_)));
}

thread_probe::sleep thread_probe::asleep() const noexcept {
    return model::is_blocked(static_cast<std::uint64_t>(id_)) ? sleep::in_call : sleep::no;
}

void at_fork(void (*)(), void (*)(), void (*)()) noexcept {}

} // namespace taskpool::detail::platform
