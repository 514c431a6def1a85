// The k nearest points of each centre, found on the organised grid (asperity.runtime.vision.points.nearest_neighbours, group).
#include "faults.cuh"
#include "geometry.cuh"
#include "keys.cuh"

namespace grouping {

using geometry::Box;
using keys::Key;

constexpr int MOST = 128;  // members a group can have, and candidates kept before they are sorted in
constexpr Key NONE = ~Key{0};

// Ascending by squared distance, then by pixel: float bits of numbers >= 0 have their order.
__device__ inline Key nearest_first(float squared, int pixel) { return Key{__float_as_uint(squared)} << 32 | static_cast<unsigned>(pixel); }

// One comparator of a sorting network on `count` keys in shared memory, by one warp.
__device__ inline void compare_all(Key* keys, int apart, int run) {
    const int lane = threadIdx.x % 32;
    for (int t = lane; t < MOST / 2; t += 32) {
        const int low = 2 * t - (t & (apart - 1)), high = low + apart;
        const bool descending = low & run;
        const Key a = keys[low], b = keys[high];
        if ((a > b) != descending) keys[low] = b, keys[high] = a;
    }
    __syncwarp();
}

__device__ inline void sort(Key* keys) {
    for (int run = 2; run <= MOST; run *= 2)
        for (int apart = run / 2; apart; apart /= 2) compare_all(keys, apart, run);
}

// best (ascending) and candidates (any order) -> the MOST smallest of both, ascending, in best.
__device__ inline void take_in(Key* best, Key* candidates) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
    sort(candidates);
    for (int t = lane; t < MOST; t += 32) {
        const Key other = candidates[MOST - 1 - t];
        if (other < best[t]) best[t] = other;
    }
    __syncwarp();
    for (int apart = MOST / 2; apart; apart /= 2) compare_all(best, apart, 2 * MOST);
    for (int t = lane; t < MOST; t += 32) candidates[t] = NONE;
    __syncwarp();
}

// One warp's search for one centre.
struct Search {
    const float* cloud;
    int size, tile, wide;
    float3 centre;
    int wanted;
    Key *best, *candidates;
    int waiting;
    Key limit;  // the last of the wanted so far: only smaller keys matter

    __device__ void settle() {
        take_in(best, candidates);
        waiting = 0;
        limit = best[wanted - 1];
    }

    __device__ void visit(int number) {
        const int lane = threadIdx.x % 32, row0 = number / wide * tile, column0 = number % wide * tile;
        for (int start = 0; start < tile * tile; start += 32) {
            const int i = start + lane, row = row0 + i / tile, column = column0 + i % tile;
            Key key = NONE;
            if (i < tile * tile && row < size && column < size) {
                const int pixel = row * size + column;
                const float3 p = geometry::at(cloud, pixel);
                if (geometry::is_point(p)) key = nearest_first(geometry::squared(p, centre), pixel);
            }
            const bool accepted = key < limit;
            const unsigned ballot = __ballot_sync(FULL_WARP, accepted);
            if (!ballot) continue;
            if (accepted) candidates[waiting + __popc(ballot & ((1u << lane) - 1))] = key;
            waiting += __popc(ballot);
            if (waiting > MOST - 32) settle();
        }
    }
};

}  // namespace grouping

// Bounding box of the points of each square tile of the cloud.
//   cloud        size x size x 3 f4, mm; (0, 0, 0) is empty
//   boxes        one a tile, row-major: low x y z, high x y z as f4; low > high where the tile has no point
// Launch: one warp a tile, ceil(tiles x 32 / blockDim.x) blocks. Bound: reads 12 bytes a pixel. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) tile_boxes(const float* cloud, int size, int tile, float* boxes, unsigned* fault) {
    const int lane = threadIdx.x % 32, number = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int wide = (size + tile - 1) / tile;
    if (number >= wide * wide) return;
    geometry::Box box = geometry::empty_box();
    for (int i = lane; i < tile * tile; i += 32) {
        const int row = number / wide * tile + i / tile, column = number % wide * tile + i % tile;
        if (row >= size || column >= size) continue;
        const float3 p = geometry::at(cloud, row * size + column);
        if (!geometry::is_point(p)) continue;
        if (!is_coordinate(p)) report(fault, FAULT_NOT_FINITE);
        geometry::include(box, p);
    }
    box = geometry::warp_union(box);
    const float sides[6] = {box.low.x, box.low.y, box.low.z, box.high.x, box.high.y, box.high.z};
    if (lane == 0)
        for (int s = 0; s < 6; ++s) boxes[6 * number + s] = sides[s];
}
SIMT_KERNEL(tile_boxes)

// The group_size nearest points of each centre, nearest first, ties to the lowest pixel; the encoder's two inputs.
//   cloud        size x size x 3 f4, mm; boxes as tile_boxes leaves them, for the same tile
//   centres      groups x f4: x, y, z (mm) and the flat pixel, as farthest_points leaves them
//   centroid     3 f8, mm: taken off the centres' positions; 0 takes nothing off
//   members      groups x group_size i4 flat pixels; with fewer points than that the list is repeated from its start
//   relative     groups x group_size x 3 f4: (point - centre) / group_scale_mm, one rounding each
//   positions    groups x 3 f4: (centre - centroid) / position_scale_mm, rounded once
// Launch: one warp a centre, blocks of up to 4 warps, 2048 bytes of dynamic shared memory a warp. group_size <= 128.
// Exact up to float32: as a float64 search does it, except among points whose squared distances differ by < 1e-6 of
// themselves. The search begins in the centre's tile and the eight around it and goes on to every tile whose box is not
// farther away than the last member so far; a tile is passed over only when that is proven. Worst case: every tile.
//
// Bound: at 20k points a warp looks at some 3000 of them (8 flops and 12 bytes from L1 each) and sorts in 128 at a time
// (35 comparator steps of 2 a lane); 1024 warps fill the chip twice over. Deterministic: keys are unique.
// Faults: EMPTY, INDEX, NOT_FINITE, SHAPE.
extern "C" __global__ void __launch_bounds__(128) group_points(const float* cloud, int size, int tile, const float* boxes, const float4* centres, int groups, int group_size, float group_scale_mm, double position_scale_mm, const double* centroid, int* members, float* relative, float* positions, unsigned* fault) {
    DYNAMIC_SHARED(keys::Key, memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int group = blockIdx.x * (blockDim.x / 32) + warp;
    if (group >= groups) return;
    if (group_size < 1 || group_size > grouping::MOST) {
        if (lane == 0) report(fault, FAULT_SHAPE);
        return;
    }
    const float4 at = centres[group];
    grouping::Search search{cloud, size, tile, (size + tile - 1) / tile, geometry::xyz(at), group_size, memory + warp * 2 * grouping::MOST, nullptr, 0, grouping::NONE};
    search.candidates = search.best + grouping::MOST;
    for (int t = lane; t < 2 * grouping::MOST; t += 32) search.best[t] = grouping::NONE;
    __syncwarp();
    if (!is_coordinate(search.centre) && lane == 0) report(fault, FAULT_NOT_FINITE);
    int pixel = at.w >= 0.0f && at.w < static_cast<float>(size) * size ? static_cast<int>(at.w) : -1;
    if (pixel < 0) {
        if (lane == 0) report(fault, FAULT_INDEX);
        pixel = 0;  // where the search starts changes nothing but its length
    }
    const int row = pixel / size / tile, column = pixel % size / tile;
    const int tiles = search.wide * search.wide;
    for (int start = -32; start < tiles; start += 32) {
        int number = start + lane;
        bool open = false;
        if (start < 0) {  // the centre's own tile first, then the eight around it
            const int place = lane == 0 ? 4 : lane <= 4 ? lane - 1 : lane;
            const int r = row + place / 3 - 1, c = column + place % 3 - 1;
            open = lane < 9 && r >= 0 && r < search.wide && c >= 0 && c < search.wide;
            number = r * search.wide + c;
        } else if (number < tiles && (abs(number / search.wide - row) > 1 || abs(number % search.wide - column) > 1)) {
            const float* b = boxes + 6 * number;
            const geometry::Box box{make_float3(b[0], b[1], b[2]), make_float3(b[3], b[4], b[5])};
            // A point of the box has at least this distance, in the same rounding; at an equal one its pixel may be lower.
            open = box.low.x <= box.high.x && __float_as_uint(box.squared_to(search.centre)) <= search.limit >> 32;
        }
        unsigned ballot = __ballot_sync(FULL_WARP, open);
        for (; ballot; ballot &= ballot - 1) search.visit(__shfl_sync(FULL_WARP, number, __ffs(static_cast<int>(ballot)) - 1));
        if (start < 0 || start + 32 >= tiles) search.settle();
    }

    int found = 0;
    for (int t = lane; t < group_size; t += 32) found += search.best[t] != grouping::NONE;
    for (int d = 16; d; d /= 2) found += __shfl_xor_sync(FULL_WARP, found, d);
    if (found == 0 && lane == 0) report(fault, FAULT_EMPTY);
    for (int t = lane; t < group_size; t += 32) {
        const int member = found ? static_cast<int>(static_cast<unsigned>(search.best[t % found])) : 0;
        const float3 p = geometry::at(cloud, member);
        float* to = relative + 3 * (static_cast<size_t>(group) * group_size + t);
        members[static_cast<size_t>(group) * group_size + t] = member;
        to[0] = (p.x - search.centre.x) / group_scale_mm;
        to[1] = (p.y - search.centre.y) / group_scale_mm;
        to[2] = (p.z - search.centre.z) / group_scale_mm;
    }
    if (lane < 3) {
        const float axis = lane == 0 ? at.x : lane == 1 ? at.y : at.z;
        positions[3 * group + lane] = static_cast<float>((axis - (centroid ? centroid[lane] : 0.0)) / position_scale_mm);
    }
}
SIMT_KERNEL(group_points)
