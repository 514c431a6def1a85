// A CPU stand-in for one GPU, so that the logic of every kernel runs where there is no device.
//
// The same .cu sources are compiled by the host compiler with ASPERITY_SIMT defined. Each CUDA thread is a fiber; the
// threads of a block take turns in a fixed order and switch only where they wait (__syncthreads, warp operations,
// cluster_sync), so every run is repeatable. Blocks run one after the other; the blocks of a cluster run side by side,
// one at a time. Nothing here is fast, and nothing of it goes to a station.
//
// Stricter than a GPU where that finds errors: a warp operation whose mask names a lane that has left, a barrier that
// some threads never reach and lanes at different warp operations end the launch with a message; asynchronous copies
// land when they are waited for and not before; dynamic shared memory starts as NaN.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static thread_local
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct float3 { float x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct uchar3 { unsigned char x, y, z; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

namespace simt {

constexpr int WARP = 32;
constexpr int MAX_THREADS = 1024;
constexpr int MAX_CLUSTER = 16;

using Combine = void (*)(void** lanes, unsigned mask);

// What a running thread sees of itself; the scheduler (simt.cpp) keeps the rest.
struct Self {
    uint3 thread, block;
    dim3 threads, blocks;
    int lane;
    unsigned cluster_rank, cluster_size;
    void* dynamic_shared;
};
extern Self* self;  // of the one thread that runs

// Waits for the lanes of `mask`; the last to come runs `combine` over all lanes' data while they stand still.
void warp_collective(unsigned mask, Combine combine, void* data);
// Waits for every thread of the block that has not returned; sum and bits of what they brought come back.
struct Votes { int count; int all; int any; };
Votes block_vote(int predicate);
void cluster_wait();
void* of_rank(void* own, unsigned rank);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Lets the other threads of the block go on; for waiting on something that one of them will do.
void pause();
// An asynchronous operation that takes effect when its group is waited for, as late as a GPU may do it.
struct Deferred { void (*run)(void* to, const void* left, const void* right); void* to; const void* left; const void* right; };
void defer(const Deferred& operation);
void commit_deferred();
void land_deferred(int groups_left);
void copy_later(void* to, const void* from, size_t bytes, size_t filled);
void commit_copies();
void land_copies(int groups_left);

using Stub = void (*)(void**);

template <class... Args, size_t... I>
void call(void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<Args>>*>(args[I])...);
}
template <class... Args>
void call(void (*kernel)(Args...), void** args) {
    call(kernel, args, std::index_sequence_for<Args...>{});
}

template <class T>
struct Exchange { T value; T found; int source; };

template <class T>
T exchange(unsigned mask, T value, int source) {
    Exchange<T> own{value, value, source};
    warp_collective(mask, [](void** lanes, unsigned m) {
        for (int l = 0; l < WARP; ++l) {
            if (!(m >> l & 1)) continue;
            auto* mine = static_cast<Exchange<T>*>(lanes[l]);
            if (m >> mine->source & 1) mine->found = static_cast<Exchange<T>*>(lanes[mine->source])->value;
            else std::memset(&mine->found, 0xff, sizeof(T));  // undefined on a GPU
        }
    }, &own);
    return own.found;
}

template <class T, class Fold>
T fold(unsigned mask, T value, Fold) {
    Exchange<T> own{value, value, 0};
    warp_collective(mask, [](void** lanes, unsigned m) {
        bool first = true;
        T sum{};
        for (int l = 0; l < WARP; ++l) {
            if (!(m >> l & 1)) continue;
            T v = static_cast<Exchange<T>*>(lanes[l])->value;
            sum = first ? v : Fold{}(sum, v);
            first = false;
        }
        for (int l = 0; l < WARP; ++l) if (m >> l & 1) static_cast<Exchange<T>*>(lanes[l])->found = sum;
    }, &own);
    return own.found;
}
struct Add { template <class T> T operator()(T a, T b) const { return a + b; } };
struct Min { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Max { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct Or { template <class T> T operator()(T a, T b) const { return a | b; } };

}  // namespace simt

#define threadIdx (simt::self->thread)
#define blockIdx (simt::self->block)
#define blockDim (simt::self->threads)
#define gridDim (simt::self->blocks)
constexpr int warpSize = simt::WARP;

// extern __shared__: see DYNAMIC_SHARED in common.cuh.
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(simt::self->dynamic_shared)
#define SIMT_KERNEL(name) \
    extern "C" __attribute__((visibility("default"))) void simt_stub_##name(void** args) { simt::call(&name, args); }

inline void __syncthreads() { simt::block_vote(0); }
inline int __syncthreads_or(int p) { return simt::block_vote(p != 0).any; }
inline int __syncthreads_and(int p) { return simt::block_vote(p != 0).all; }
inline int __syncthreads_count(int p) { return simt::block_vote(p != 0).count; }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    int nothing = 0;
    simt::warp_collective(mask, [](void**, unsigned) {}, &nothing);
}
template <class T> T __shfl_sync(unsigned m, T v, int src, int width = 32) {
    int l = simt::self->lane;
    return simt::exchange(m, v, (l & ~(width - 1)) + (src & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int bits, int width = 32) {
    int l = simt::self->lane, s = l ^ bits;
    return simt::exchange(m, v, (s & ~(width - 1)) <= (l & ~(width - 1)) ? s : l);
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32) {
    int l = simt::self->lane, s = l + static_cast<int>(d);
    return simt::exchange(m, v, (l & (width - 1)) + static_cast<int>(d) < width ? s : l);
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32) {
    int l = simt::self->lane, s = l - static_cast<int>(d);
    return simt::exchange(m, v, (l & (width - 1)) - static_cast<int>(d) >= 0 ? s : l);
}
inline unsigned __ballot_sync(unsigned m, int p) { return simt::fold(m, p ? 1u << simt::self->lane : 0u, simt::Or{}); }
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == m; }
inline unsigned __reduce_add_sync(unsigned m, unsigned v) { return simt::fold(m, v, simt::Add{}); }
inline unsigned __reduce_min_sync(unsigned m, unsigned v) { return simt::fold(m, v, simt::Min{}); }
inline unsigned __reduce_max_sync(unsigned m, unsigned v) { return simt::fold(m, v, simt::Max{}); }
inline int __reduce_add_sync(unsigned m, int v) { return simt::fold(m, v, simt::Add{}); }
inline int __reduce_min_sync(unsigned m, int v) { return simt::fold(m, v, simt::Min{}); }
inline int __reduce_max_sync(unsigned m, int v) { return simt::fold(m, v, simt::Max{}); }

// Only one thread runs at a time, so plain reads and writes are atomic.
template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) { T old = *p; *p = static_cast<T>(old + v); return old; }
template <class T> T atomicMin(T* p, std::type_identity_t<T> v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) { T old = *p; if (old < v) *p = v; return old; }
template <class T> T atomicOr(T* p, std::type_identity_t<T> v) { T old = *p; *p = old | v; return old; }
template <class T> T atomicAnd(T* p, std::type_identity_t<T> v) { T old = *p; *p = old & v; return old; }
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) { T old = *p; *p = v; return old; }
template <class T> T atomicCAS(T* p, std::type_identity_t<T> was, std::type_identity_t<T> v) {
    T old = *p;
    if (old == was) *p = v;
    return old;
}

// Plain C++ gives these to nvcc's device code under the same names.
using std::isfinite;
using std::isinf;
using std::isnan;
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
namespace simt { template <class To, class From> To bits(From v) { To to; static_assert(sizeof to == sizeof v); std::memcpy(&to, &v, sizeof to); return to; } }
inline unsigned __float_as_uint(float v) { return simt::bits<unsigned>(v); }
inline int __float_as_int(float v) { return simt::bits<int>(v); }
inline float __uint_as_float(unsigned v) { return simt::bits<float>(v); }
inline float __int_as_float(int v) { return simt::bits<float>(v); }
inline long long __double_as_longlong(double v) { return simt::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return simt::bits<double>(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __int2float_rn(int v) { return static_cast<float>(v); }
inline int __float2int_rd(float v) { return static_cast<int>(std::floor(v)); }
inline int __float2int_rn(float v) { return static_cast<int>(std::nearbyint(v)); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(static_cast<unsigned long long>(v)) : 64; }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcg(T* p, T v) { *p = v; }

// IEEE half as cuda_fp16.h has it: conversions round to nearest even; arithmetic is done in float.
struct __half { unsigned short bits; };
struct alignas(4) __half2 { __half x, y; };
using half = __half;
using half2 = __half2;
namespace simt { extern const float* half_values(); unsigned short to_half(float v); }
inline half __float2half_rn(float v) { return {simt::to_half(v)}; }
inline half __float2half(float v) { return {simt::to_half(v)}; }
inline float __half2float(half h) { return simt::half_values()[h.bits]; }
inline half2 __halves2half2(half a, half b) { return {a, b}; }
inline half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
inline float2 __half22float2(half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
