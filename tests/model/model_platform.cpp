// SPDX-License-Identifier: Apache-2.0
// The system, as the core sees it in an execution: src/platform.hpp with the explorer's threads, and the two functions
// of the standard library that wait for a thread or tell the time, which the linker puts in place of its own (--wrap).
#include "platform.hpp"

#include "explorer.hpp"

extern "C" {
void __real__ZNSt6thread4joinEv(std::thread* self); // NOLINT: names that the linker makes
void __wrap__ZNSt6thread4joinEv(std::thread* self) {
    if (taskpool::model::is_explored())
        taskpool::model::await_end(self->native_handle());
    __real__ZNSt6thread4joinEv(self);
}

std::chrono::steady_clock::time_point __real__ZNSt6chrono3_V212steady_clock3nowEv();
std::chrono::steady_clock::time_point __wrap__ZNSt6chrono3_V212steady_clock3nowEv() {
    return taskpool::model::is_explored() ? taskpool::model::time_now() : __real__ZNSt6chrono3_V212steady_clock3nowEv();
}
}

namespace taskpool::detail::platform {

unsigned available_processors() noexcept { return 2; }

std::thread start_thread(void (*body)(void*), void* argument, const std::string& name, unsigned number) {
    return model::start([=] { body(argument); }, name + '-' + std::to_string(number));
}

thread_probe thread_probe::of_this_thread() noexcept {
    thread_probe probe;
    probe.id_ = static_cast<std::int64_t>(model::this_thread_number());
    return probe;
}

// A step takes a nanosecond.
std::optional<std::chrono::nanoseconds> thread_probe::cpu_time() const noexcept {
    return std::chrono::nanoseconds(model::steps_of(static_cast<std::uint64_t>(id_)));
}

thread_probe::sleep thread_probe::asleep() const noexcept {
    return model::is_blocked(static_cast<std::uint64_t>(id_)) ? sleep::in_call : sleep::no;
}

void at_fork(void (*)(), void (*)(), void (*)()) noexcept {}

} // namespace taskpool::detail::platform
