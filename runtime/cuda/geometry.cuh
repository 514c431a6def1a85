// Squared distances in float32, the same operations in the same order everywhere, so that equal points tie exactly and
// a box bounds its points exactly: every step rounds monotonically, so no point inside a box has a smaller result than
// the box itself.
#pragma once
#include "common.cuh"

namespace geometry {

// Differences are taken directly: |a|^2 + |b|^2 - 2ab would lose them. Relative error at most 5 x 2^-24.
__device__ inline float squared(float dx, float dy, float dz) { return fmaf(dz, dz, fmaf(dy, dy, dx * dx)); }
__device__ inline float squared(float3 a, float3 b) { return squared(a.x - b.x, a.y - b.y, a.z - b.z); }

// The CPU's number bit for bit: products and sums rounded one by one in float64.
__device__ inline double squared_exact(float3 a, float3 b) {
    const double dx = double{a.x} - b.x, dy = double{a.y} - b.y, dz = double{a.z} - b.z;
    return dx * dx + dy * dy + dz * dz;
}

__device__ inline float beyond(float v, float low, float high) { return fmaxf(fmaxf(low - v, v - high), 0.0f); }

// Axis-parallel box; empty while low > high.
struct Box {
    float3 low, high;
    __device__ float squared_to(float3 p) const {
        return squared(beyond(p.x, low.x, high.x), beyond(p.y, low.y, high.y), beyond(p.z, low.z, high.z));
    }
};
__device__ inline Box empty_box() {
    return {make_float3(INFINITY, INFINITY, INFINITY), make_float3(-INFINITY, -INFINITY, -INFINITY)};
}
__device__ inline void include(Box& box, float3 p) {
    box.low = make_float3(fminf(box.low.x, p.x), fminf(box.low.y, p.y), fminf(box.low.z, p.z));
    box.high = make_float3(fmaxf(box.high.x, p.x), fmaxf(box.high.y, p.y), fmaxf(box.high.z, p.z));
}
__device__ inline float warp_min(float v) {
    for (int d = 16; d; d /= 2) v = fminf(v, __shfl_xor_sync(FULL_WARP, v, d));
    return v;
}
__device__ inline float warp_max(float v) {
    for (int d = 16; d; d /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, d));
    return v;
}
__device__ inline Box warp_union(const Box& box) {
    return {make_float3(warp_min(box.low.x), warp_min(box.low.y), warp_min(box.low.z)),
            make_float3(warp_max(box.high.x), warp_max(box.high.y), warp_max(box.high.z))};
}

__device__ inline float3 at(const float* cloud, int pixel) {
    return make_float3(cloud[3 * pixel], cloud[3 * pixel + 1], cloud[3 * pixel + 2]);
}
__device__ inline float3 xyz(float4 p) { return make_float3(p.x, p.y, p.z); }
// (0, 0, 0) is an empty pixel; NaN counts as a point, so that somebody sees it.
__device__ inline bool is_point(float3 p) { return p.x != 0.0f || p.y != 0.0f || p.z != 0.0f; }

}  // namespace geometry
