// Hopper's warpgroup matrix product, its barriers in shared memory and bulk copies (sm_90a), and their CPU versions.
//
//   barrier::*     mbarrier: initialise(count), expect(bytes) (arrives and adds bytes to come), arrive(), wait(parity)
//   copy_bulk()    one contiguous piece global -> shared; its bytes count for the barrier
//   wgmma::*       d (64 x 256 float over a warpgroup's 128 threads) += a (64 x 16) b (256 x 16) transposed, both half in
//                  shared memory, 128-byte swizzle (nearest::packed_place). Asynchronous: commit(), wait<LEFT>(),
//                  finished(d) before d is read.
//                  Thread t of the group, w = t / 32, g = t % 32 / 4, c = t % 4: d[4 j + 2 i + e] is row 16 w + g + 8 i,
//                  column 8 j + 2 c + e.
#pragma once

#include "common.cuh"

#if defined(ASPERITY_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ASPERITY_WGMMA 1
#endif

constexpr int WGMMA_COLUMNS = 256;
constexpr int WGMMA_SUMS = 128;

#ifdef ASPERITY_SIMT

// One 64-bit word as on the device: 16 bits how many arrive, 15 bits how many are still to come, phase, bytes to come.
struct Barrier {
    unsigned short count;
    unsigned short to_come : 15, phase : 1;
    int bytes;
};

namespace barrier {
inline void finish(Barrier* b) {
    if (b->to_come || b->bytes) return;
    b->phase ^= 1;
    b->to_come = b->count & 0x7fff;
}
inline void initialise(Barrier* b, int count) { *b = {static_cast<unsigned short>(count), static_cast<unsigned short>(count & 0x7fff), 0, 0}; }
inline void publish() {}
inline void arrive(Barrier* b) {
    if (!b->to_come) simt::fail("more threads arrive at a barrier than it was made for");
    --b->to_come;
    finish(b);
}
inline void expect(Barrier* b, int bytes) {
    b->bytes += bytes;
    arrive(b);
}
inline void wait(Barrier* b, unsigned parity) { while (b->phase == parity) simt::pause(); }
}  // namespace barrier

inline void copy_bulk(void* to, const void* from, int bytes, Barrier* b) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | static_cast<unsigned>(bytes)) % 16) simt::fail("a bulk copy that is not aligned to 16 bytes");
    std::memcpy(to, from, static_cast<size_t>(bytes));
    b->bytes -= bytes;
    barrier::finish(b);
}

namespace wgmma {
using Matrix = const char*;
inline Matrix matrix(const void* shared) { return static_cast<Matrix>(shared); }
inline Matrix advance(Matrix m, int bytes) { return m + bytes; }
inline float element(const char* start, int row, int k) {
    auto at = reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(row * 128 + k * 2);
    at ^= (at >> 7 & 7) << 4;  // the swizzle works on address bits
    return simt::half_values()[*reinterpret_cast<const unsigned short*>(at)];
}
inline void multiply_now(void* to, const void* left, const void* right) {
    auto* d = static_cast<float*>(to);
    int thread = static_cast<int>(threadIdx.x) % 128, row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
    float a[2][16], b[16];
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < 16; ++k) a[i][k] = element(static_cast<const char*>(left), row + 8 * i, k);
    for (int j = 0; j < WGMMA_COLUMNS / 8; ++j)
        for (int e = 0; e < 2; ++e) {
            for (int k = 0; k < 16; ++k) b[k] = element(static_cast<const char*>(right), 8 * j + column + e, k);
            for (int i = 0; i < 2; ++i) {
                double sum = d[4 * j + 2 * i + e];
                for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[i][k] * b[k]);
                auto f = static_cast<float>(sum);
                d[4 * j + 2 * i + e] = std::fabs(static_cast<double>(f)) > std::fabs(sum) ? std::nextafterf(f, 0.0f) : f;
            }
        }
}
inline void fence() {}
inline void multiply(float (&d)[WGMMA_SUMS], Matrix a, Matrix b) { simt::defer({multiply_now, d, a, b}); }
inline void commit() { simt::commit_deferred(); }
template <int LEFT> void wait() {
    __syncwarp();  // .sync.aligned
    simt::land_deferred(LEFT);
    __syncwarp();
}
inline void finished(float (&)[WGMMA_SUMS]) {}
inline void keep_few_registers() {}
inline void take_many_registers() {}
}  // namespace wgmma

#elif defined(ASPERITY_WGMMA)

using Barrier = unsigned long long;

namespace barrier {
__device__ inline unsigned at(const void* shared) { return static_cast<unsigned>(__cvta_generic_to_shared(shared)); }
__device__ inline void initialise(Barrier* b, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(b)), "r"(count) : "memory"); }
// Makes initialised barriers known to the copy engine.
__device__ inline void publish() { asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void arrive(Barrier* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(b)) : "memory"); }
__device__ inline void expect(Barrier* b, int bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at(b)), "r"(bytes) : "memory"); }
__device__ inline void wait(Barrier* b, unsigned parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra AGAIN;\nDONE:\n}"
        ::"r"(at(b)), "r"(parity) : "memory");
}
}  // namespace barrier

__device__ inline void copy_bulk(void* to, const void* from, int bytes, Barrier* b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(barrier::at(to)), "l"(from), "r"(bytes), "r"(barrier::at(b)) : "memory");
}

namespace wgmma {
using Matrix = unsigned long long;
// Rows along K, 128-byte swizzle: 1024 bytes from one group of 8 rows to the next.
__device__ inline Matrix matrix(const void* shared) {
    return static_cast<Matrix>((barrier::at(shared) & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
__device__ inline Matrix advance(Matrix m, int bytes) { return m + (bytes >> 4); }
__device__ inline void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
#define ASPERITY_D8(n) "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3]), "+f"(d[n + 4]), "+f"(d[n + 5]), "+f"(d[n + 6]), "+f"(d[n + 7])
#define ASPERITY_D32(n) ASPERITY_D8(n), ASPERITY_D8(n + 8), ASPERITY_D8(n + 16), ASPERITY_D8(n + 24)
#define ASPERITY_D128 ASPERITY_D32(0), ASPERITY_D32(32), ASPERITY_D32(64), ASPERITY_D32(96)
template <int LEFT>
__device__ inline void wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
// After wait<0>: names the sums as changed, so that nothing reads them before.
__device__ inline void finished(float (&d)[WGMMA_SUMS]) { asm volatile("" : ASPERITY_D128 : : "memory"); }
__device__ inline void multiply(float (&d)[WGMMA_SUMS], Matrix a, Matrix b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, 1, 1, 1, 0, 0;"
        : ASPERITY_D128 : "l"(a), "l"(b) : "memory");
}
__device__ inline void keep_few_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }
__device__ inline void take_many_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); }
}  // namespace wgmma

#endif
