// What the kernels of the part's surface share: its cells as surface.cu leaves them.
#pragma once
#include "reduce.cuh"

namespace surface {

__device__ inline float height_of(float4 p, float ux, float uy, float uz) { return p.x * ux + p.y * uy + p.z * uz; }

// The sign of all normals, known to every thread of a block of whole warps: towards the sensor. slots: 32 of shared memory.
__device__ inline float sign_of(const double* towards, int blocks, double* slots) {
    double total = 0.0;
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) total += towards[i];
    return reduce::block_sum(total, slots) >= 0.0 ? 1.0f : -1.0f;
}

// The first row (or column) of patch `patch` of `grid` along a side of `size` cells: r belongs to r * grid / size.
__device__ inline int first_of(int patch, int grid, int size) { return (patch * size + grid - 1) / grid; }

}  // namespace surface
