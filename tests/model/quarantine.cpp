// SPDX-License-Identifier: Apache-2.0
#include "quarantine.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include <malloc.h>

#include "explorer.hpp"

namespace {

// The list lies in the memory itself. Only who has the baton comes here (I-EXPLORER-1).
struct given_back {
    given_back* next;
};
given_back* kept = nullptr;

void* take(std::size_t size, std::size_t alignment) {
    void* memory = nullptr;
    if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__)
        memory = std::malloc(size < sizeof(given_back) ? sizeof(given_back) : size);
    else
        memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (memory == nullptr)
        throw std::bad_alloc();
    return memory;
}

void give_back(void* memory) noexcept {
    if (memory == nullptr || !taskpool::model::is_explored()) {
        std::free(memory);
        return;
    }
    std::memset(memory, 0xDD, malloc_usable_size(memory));
    kept = new (memory) given_back{kept};
}

} // namespace

void taskpool::model::release_quarantine() noexcept {
    while (kept != nullptr) {
        given_back* const first = kept;
        kept = first->next;
        std::free(first);
    }
}

void* operator new(std::size_t size) { return take(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return take(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
