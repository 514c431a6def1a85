// Connected components by union-find: a pixel's label is the lowest flat index of its component, -1 off the mask.
// Parents only ever get lower and joins retry until the roots meet, so the result is the same in any order of threads.
#pragma once
#include "common.cuh"

namespace labels {

// Past the first cache: another multiprocessor may have lowered a parent since.
__device__ inline int root(const int* parent, int i) {
    for (int up = __ldcg(parent + i); up != i; up = __ldcg(parent + i)) i = up;
    return i;
}

__device__ inline void join(int* parent, int a, int b) {
    for (;;) {
        a = root(parent, a);
        b = root(parent, b);
        if (a == b) return;
        const int low = min(a, b), high = max(a, b);
        const int was = atomicMin(parent + high, low);
        if (was == high) return;
        a = low, b = was;  // somebody else has joined `high` to `was`: those two belong together as well
    }
}

// A run of mask pixels within a warp begins with the run's first pixel as their parent. Every lane of the warp calls.
__device__ inline int run_start(bool here, int pixel, int width) {
    const int lane = threadIdx.x % 32;
    const unsigned present = __ballot_sync(FULL_WARP, here);
    const unsigned starts = __ballot_sync(FULL_WARP, here && pixel % width == 0);
    if (!here) return -1;
    const unsigned upto = lane == 31 ? 0xffffffffu : (2u << lane) - 1;
    const unsigned gaps = ~present & upto, breaks = starts & upto;
    const int after_gap = gaps ? 32 - __clz(static_cast<int>(gaps)) : 0;
    const int row_begin = breaks ? 31 - __clz(static_cast<int>(breaks)) : 0;
    return pixel - lane + max(after_gap, row_begin);
}

// Joins a mask pixel to its neighbours above and, at a warp's first lane, to its left one.
template <class Mask>
__device__ void join_neighbours(const Mask& mask, int* parent, int pixel, int width, bool diagonal) {
    const int column = pixel % width;
    const bool left = column > 0, right = column + 1 < width, up = pixel >= width;
    const bool w = left && mask(pixel - 1), n = up && mask(pixel - width);
    const bool nw = up && left && mask(pixel - width - 1);
    if (w && threadIdx.x % 32 == 0) join(parent, pixel, pixel - 1);
    if (n) {
        // Where left and upper left belong too, the left one joins the row above for both.
        if (!(w && nw)) join(parent, pixel, pixel - width);
    } else if (diagonal) {
        if (nw && !w) join(parent, pixel, pixel - width - 1);
        const bool ne = up && right && mask(pixel - width + 1), e = right && mask(pixel + 1);
        if (ne && !e) join(parent, pixel, pixel - width + 1);
    }
}

}  // namespace labels
