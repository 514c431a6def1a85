// Sums whose order depends on nothing but the launch, so that every run gives the same bits.
#pragma once
#include "common.cuh"

namespace reduce {

// Sum over a block of whole warps in a fixed tree, known to every thread. slots: 32 of shared memory; ends with a barrier.
__device__ inline double block_sum(double v, double* slots) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL_WARP, v, d);
    if (lane == 0) slots[warp] = v;
    __syncthreads();
    v = lane < warps ? slots[lane] : 0.0;
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL_WARP, v, d);
    __syncthreads();
    return v;
}

// x with A x = b for a symmetric positive definite A of 3 x 3 (rows' upper halves aa ab ac bb bc cc), by L D L^T; NaN and
// infinity go through.
struct Three { double a, b, c; };
__device__ inline Three solve(double aa, double ab, double ac, double bb, double bc, double cc, Three of) {
    const double l1 = ab / aa, l2 = ac / aa, d1 = bb - l1 * ab, e = bc - l1 * ac, l3 = e / d1, d2 = cc - l2 * ac - l3 * e;
    const double y = of.b - l1 * of.a, z = (of.c - l2 * of.a - l3 * y) / d2, second = y / d1 - l3 * z;
    return {of.a / aa - l1 * second - l2 * z, second, z};
}

}  // namespace reduce
