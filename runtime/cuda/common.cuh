// What every kernel file includes first: CUDA's names, from the toolkit or from the CPU stand-in (shim/simt.hpp).
//
//   DYNAMIC_SHARED(float, tile);   extern __shared__ memory, 128-byte aligned; its size is the launch's
//   SIMT_KERNEL(name)              one line after each extern "C" __global__ kernel: how the stand-in calls it
//   cluster_rank(), cluster_size(), cluster_sync(), of_rank(pointer, rank)
//                                  thread block clusters; on chips without them a cluster is one block
//   copy_async16(to, from, filled), copy_commit(), copy_wait<LEFT>()
//                                  16 bytes global -> shared (cp.async), `filled` of them real and the rest zero
//
// Sums are written as they are to be rounded: nvcc gets -fmad=false, and fmaf stands where a fused product is meant.
#pragma once

#ifdef ASPERITY_SIMT
#include "shim/simt.hpp"
#else
#include <cooperative_groups.h>
#include <cuda_fp16.h>
#include <cstdint>
#define DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(1024) unsigned char asperity_dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(asperity_dynamic_shared)
#define SIMT_KERNEL(name)
#endif

constexpr unsigned FULL_WARP = 0xffffffffu;

#ifdef ASPERITY_SIMT
inline unsigned cluster_rank() { return simt::self->cluster_rank; }
inline unsigned cluster_size() { return simt::self->cluster_size; }
inline void cluster_sync() { simt::cluster_wait(); }
template <class T> T* of_rank(T* own, unsigned rank) { return static_cast<T*>(simt::of_rank(own, rank)); }
inline void copy_async16(void* to, const void* from, int filled = 16) { simt::copy_later(to, from, 16, static_cast<size_t>(filled)); }
inline void copy_commit() { simt::commit_copies(); }
template <int LEFT> void copy_wait() { simt::land_copies(LEFT); }
#elif __CUDA_ARCH__ >= 900
__device__ inline unsigned cluster_rank() { return cooperative_groups::this_cluster().block_rank(); }
__device__ inline unsigned cluster_size() { return cooperative_groups::this_cluster().num_blocks(); }
__device__ inline void cluster_sync() { cooperative_groups::this_cluster().sync(); }
template <class T> __device__ T* of_rank(T* own, unsigned rank) { return cooperative_groups::this_cluster().map_shared_rank(own, rank); }
#else
__device__ inline unsigned cluster_rank() { return 0; }
__device__ inline unsigned cluster_size() { return 1; }
__device__ inline void cluster_sync() { __syncthreads(); }
template <class T> __device__ T* of_rank(T* own, unsigned) { return own; }
#endif

#ifndef ASPERITY_SIMT
__device__ inline void copy_async16(void* to, const void* from, int filled = 16) {
#if __CUDA_ARCH__ >= 800
    unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(filled) : "memory");
#else
    uint4 v = make_uint4(0, 0, 0, 0);
    if (filled == 16) {
        v = *static_cast<const uint4*>(from);
    } else {
        for (int i = 0; i < filled; ++i) reinterpret_cast<char*>(&v)[i] = static_cast<const char*>(from)[i];
    }
    *static_cast<uint4*>(to) = v;
#endif
}
__device__ inline void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int LEFT>
__device__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}
#endif
