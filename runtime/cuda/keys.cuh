// Numbers as integers of the same order, so that a maximum, its lowest index and a rank need no float comparison.
#pragma once
#include "common.cuh"

namespace keys {

using Key = unsigned long long;

// Any float that is not NaN -> unsigned of the same order. Positive NaN is above infinity: as a maximum it stays in sight.
__device__ inline unsigned ordered(float v) {
    unsigned bits = __float_as_uint(v);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_ordered(unsigned bits) {
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

// The larger key is the larger value, or the lower index at equal values.
__device__ inline Key largest_first(unsigned value, unsigned index) { return Key{value} << 32 | ~index; }
__device__ inline unsigned value_of(Key key) { return static_cast<unsigned>(key >> 32); }
__device__ inline unsigned index_of(Key key) { return ~static_cast<unsigned>(key); }

__device__ inline Key warp_max(Key key) {
    for (int d = 16; d; d /= 2) {
        Key other = __shfl_xor_sync(FULL_WARP, key, d);
        if (other > key) key = other;
    }
    return key;
}

// The same in two instructions where the chip reduces integers over a warp (compute capability >= 8.0).
__device__ inline Key warp_max_fast(Key key) {
#if defined(ASPERITY_SIMT) || __CUDA_ARCH__ >= 800
    unsigned high = static_cast<unsigned>(key >> 32);
    unsigned top = __reduce_max_sync(FULL_WARP, high);
    unsigned low = __reduce_max_sync(FULL_WARP, high == top ? static_cast<unsigned>(key) : 0u);
    return Key{top} << 32 | low;
#else
    return warp_max(key);
#endif
}

// Maximum over a block of whole warps, known to every thread. `slots` is shared memory for 32 keys; ends with a barrier.
__device__ inline Key block_max(Key key, Key* slots) {
    int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    key = warp_max(key);
    if (lane == 0) slots[warp] = key;
    __syncthreads();
    key = warp_max(lane < warps ? slots[lane] : 0);
    __syncthreads();
    return key;
}

}  // namespace keys
