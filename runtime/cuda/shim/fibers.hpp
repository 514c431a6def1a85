// Fibers for the scheduler of simt.cpp: a place of execution that is left and returned to.
#pragma once

#include "simt.hpp"

#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstring>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {
namespace {

constexpr size_t STACK_BYTES = 256 * 1024;
constexpr size_t GUARD_BYTES = 4096 * 16;  // also a whole page where pages have 64 KiB

// A saved place of execution. ucontext alone would do, but it enters the kernel at every switch.
#if defined(__x86_64__)
struct Place { void* sp = nullptr; };
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.text
.type simt_switch,@function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch,.-simt_switch
)");
void change(Place& from, Place& to) { simt_switch(&from.sp, to.sp); }
void prepare(Place& place, char* stack, size_t bytes, void (*entry)()) {
    auto* top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15}) - 16);
    *top = reinterpret_cast<void*>(entry);  // `ret` leaves the stack as a call would: 8 below a multiple of 16
    place.sp = top - 6;
    std::memset(place.sp, 0, 6 * sizeof(void*));
}
#else
struct Place { ucontext_t context; };
void change(Place& from, Place& to) { swapcontext(&from.context, &to.context); }
void prepare(Place& place, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&place.context);
    place.context.uc_stack.ss_sp = stack;
    place.context.uc_stack.ss_size = bytes;
    place.context.uc_link = nullptr;
    makecontext(&place.context, entry, 0);
}
#endif

// Stacks outlive launches: touching fresh pages is what costs.
char* stack_of(unsigned block, int thread) {
    static std::array<char*, MAX_CLUSTER> pools{};
    constexpr size_t each = STACK_BYTES + GUARD_BYTES;
    char*& pool = pools[block];
    if (!pool) {
        void* p = mmap(nullptr, each * MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return nullptr;
        pool = static_cast<char*>(p);
        for (int t = 0; t < MAX_THREADS; ++t) mprotect(pool + each * t, GUARD_BYTES, PROT_NONE);
    }
    return pool + each * thread + GUARD_BYTES;
}

}  // namespace
}  // namespace simt
