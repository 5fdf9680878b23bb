// SPDX-License-Identifier: Apache-2.0
#include "fiber.hpp"

#include <cstring>
#include <cxxabi.h>
#include <new>
#include <utility>

#include <link.h>
#include <sys/mman.h>

namespace taskpool::model {

namespace {

constexpr std::size_t stack_size = std::size_t{256} << 10;
constexpr std::size_t guard_size = std::size_t{4} << 10; // at its end, so that an overflow is a crash

/// The program's thread_local variables: where they lie, and how they begin.
struct local_block {
    std::byte* at = nullptr;
    std::size_t size = 0;
    std::vector<std::byte> initial;
};

const local_block& locals() {
    static const local_block found = [] {
        local_block block;
        dl_iterate_phdr(
            [](dl_phdr_info* info, std::size_t, void* result) {
                for (int i = 0; i < info->dlpi_phnum; ++i) {
                    const auto& part = info->dlpi_phdr[i];
                    if (part.p_type != PT_TLS || info->dlpi_tls_data == nullptr)
                        continue;
                    auto& made = *static_cast<local_block*>(result);
                    made.at = static_cast<std::byte*>(info->dlpi_tls_data);
                    made.size = part.p_memsz;
                    made.initial.resize(part.p_memsz);
                    // NOLINTNEXTLINE(performance-no-int-to-ptr): that is how the linker tells
                    std::memcpy(made.initial.data(), reinterpret_cast<const void*>(info->dlpi_addr + part.p_vaddr),
                                part.p_filesz);
                }
                return 1; // the first is the program itself
            },
            &block);
        return block;
    }();
    return found;
}

std::vector<void*> free_stacks;

void* take_stack() {
    if (!free_stacks.empty()) {
        void* const stack = free_stacks.back();
        free_stacks.pop_back();
        return stack;
    }
    void* const stack = mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, guard_size, PROT_NONE) != 0)
        throw std::bad_alloc();
    return stack;
}

fiber* beginning = nullptr;

} // namespace

fiber::fiber() { locals_.resize(locals().size); }

fiber::fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()), locals_(locals().initial) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = stack_size;
    context_.uc_link = nullptr;
    makecontext(&context_, &fiber::begin, 0);
}

fiber::~fiber() {
    if (stack_ != nullptr)
        free_stacks.push_back(stack_);
}

void fiber::begin() {
    const auto body = std::move(beginning->body_);
    body();
}

void fiber::switch_to(fiber& to) noexcept {
    void* const in_flight = abi::__cxa_get_globals();
    std::memcpy(&exceptions_, in_flight, sizeof(exceptions));
    std::memcpy(in_flight, &to.exceptions_, sizeof(exceptions));
    std::memcpy(locals_.data(), locals().at, locals_.size());
    std::memcpy(locals().at, to.locals_.data(), to.locals_.size());
    beginning = &to; // if it does
    swapcontext(&context_, &to.context_);
}

} // namespace taskpool::model
