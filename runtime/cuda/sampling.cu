// Points of an organised cloud as a list, and farthest point sampling (asperity.runtime.vision.points.valid_points, farthest_points).
#include "faults.cuh"
#include "geometry.cuh"
#include "keys.cuh"

namespace sampling {

using geometry::Box;
using keys::Key;

constexpr int CHUNK = 128;  // consecutive points that share a bounding box: four a lane
constexpr int MAX_WARPS = 32;
constexpr int MAX_CLUSTER = 8;  // what every chip with clusters can place

__device__ inline double warp_sum(double v) {
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL_WARP, v, d);
    return v;
}

__device__ inline float4 from_lane(float4 v, int lane) {
    return make_float4(__shfl_sync(FULL_WARP, v.x, lane), __shfl_sync(FULL_WARP, v.y, lane), __shfl_sync(FULL_WARP, v.z, lane),
                       __shfl_sync(FULL_WARP, v.w, lane));
}

enum class Where { SHARED, GLOBAL };

// See farthest_points. A warp owns the chunks gw, gw + all, gw + 2 all, ... (gw: its number in the cluster, all: warps
// of the cluster), and its lane j knows box and farthest point of the j-th of them.
template <bool CLUSTER, Where WHERE>
__device__ void sample(const float4* points, const int* count, int capacity, int groups, int* chosen, float4* centres,
                       float* scratch, unsigned* fault) {
    // Each warp's farthest point with its place, so that nobody has to fetch the winner from memory.
    __shared__ Key slots[2][(CLUSTER ? MAX_CLUSTER : 1) * MAX_WARPS];
    __shared__ float4 places[2][(CLUSTER ? MAX_CLUSTER : 1) * MAX_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int blocks = CLUSTER ? static_cast<int>(cluster_size()) : 1;
    const int rank = CLUSTER ? static_cast<int>(cluster_rank()) : 0;
    const int all = blocks * warps, own = rank * warps + warp;
    const int rounds = (capacity + CHUNK * all - 1) / (CHUNK * all);
    const int n = *count;
    const bool unfit = rounds > 32 || blocks > MAX_CLUSTER;
    if (n < 1 || n > capacity || unfit) {
        if (own == 0 && lane == 0) report(fault, unfit ? FAULT_SHAPE : n == 0 ? FAULT_EMPTY : FAULT_COUNT);
        for (int g = threadIdx.x; rank == 0 && g < groups; g += blockDim.x) {
            chosen[g] = 0;
            centres[g] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        return;
    }
    const int chunks = (n + CHUNK - 1) / CHUNK;
    // Squared distance of each point to the nearest centre so far. Each lane meets only its own entries.
    float* nearest;
    if constexpr (WHERE == Where::SHARED) {
        DYNAMIC_SHARED(float, memory);
        nearest = memory + warp * rounds * CHUNK + lane;
    } else {
        nearest = scratch + own * rounds * CHUNK + lane;
    }

    Box box = geometry::empty_box();
    float best = 0.0f;  // of this lane's chunk: largest entry of `nearest`, and its lowest point
    unsigned best_point = 0;
    float4 best_place = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    bool damaged = false;
    const int owned = own < chunks ? (chunks - own + all - 1) / all : 0;
    for (int j = 0; j < owned; ++j) {
        const int base = (own + j * all) * CHUNK;
        Box seen = geometry::empty_box();
        for (int i = 0; i < CHUNK / 32; ++i) {
            const int p = base + 32 * i + lane;
            if (p >= n) continue;
            const float3 q = geometry::xyz(__ldg(points + p));
            damaged |= !is_coordinate(q);
            geometry::include(seen, q);
            nearest[j * CHUNK + 32 * i] = INFINITY;
        }
        seen = geometry::warp_union(seen);
        if (lane == j) box = seen, best = INFINITY, best_point = base;
    }
    if (damaged) report(fault, FAULT_NOT_FINITE);
    if (CLUSTER) cluster_sync();  // nobody writes into a block that has not begun

    unsigned index = 0;
    float4 winner = __ldg(points);
    for (int step = 0;; ++step) {
        if (own == 0 && lane == 0) {
            chosen[step] = static_cast<int>(index);
            centres[step] = winner;
        }
        if (step + 1 >= groups) break;
        const float3 centre = geometry::xyz(winner);
        unsigned hits = __ballot_sync(FULL_WARP, lane < owned && box.squared_to(centre) < best);
        while (hits) {
            const int j = __ffs(static_cast<int>(hits)) - 1;
            hits &= hits - 1;
            const int base = (own + j * all) * CHUNK;
            Key mine = 0;
            float4 place = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            for (int i = 0; i < CHUNK / 32; ++i) {
                const int p = base + 32 * i + lane;
                if (p >= n) continue;
                const float4 q = __ldg(points + p);
                float& entry = nearest[j * CHUNK + 32 * i];
                entry = fminf(entry, geometry::squared(geometry::xyz(q), centre));
                const Key key = keys::largest_first(__float_as_uint(entry), p);
                if (key > mine) mine = key, place = q;
            }
            const Key key = keys::warp_max_fast(mine);
            place = from_lane(place, __ffs(static_cast<int>(__ballot_sync(FULL_WARP, mine == key))) - 1);
            if (lane == j) best = __uint_as_float(keys::value_of(key)), best_point = keys::index_of(key), best_place = place;
        }
        const Key mine = lane < owned ? keys::largest_first(__float_as_uint(best), best_point) : 0;
        Key key = keys::warp_max_fast(mine);
        const float4 place = from_lane(best_place, __ffs(static_cast<int>(__ballot_sync(FULL_WARP, mine == key))) - 1);
        // Two sets of slots: one may still be read while the next step writes the other, so one barrier a step is enough.
        Key* to = &slots[step & 1][own];
        float4* at = &places[step & 1][own];
        if constexpr (CLUSTER) {
            if (lane < blocks) *of_rank(to, lane) = key, *of_rank(at, lane) = place;
            cluster_sync();
        } else {
            if (lane == 0) *to = key, *at = place;
            __syncthreads();
        }
        key = 0;
        int from = lane;
        for (int t = lane; t < all; t += 32) {
            const Key other = slots[step & 1][t];
            if (other > key) key = other, from = t;
        }
        const Key farthest = keys::warp_max_fast(key);
        index = keys::index_of(farthest);
        from = __shfl_sync(FULL_WARP, from, __ffs(static_cast<int>(__ballot_sync(FULL_WARP, key == farthest))) - 1);
        winner = places[step & 1][from];
    }
}

}  // namespace sampling

// How many points each stretch of the cloud has, and their sum.
//   cloud        pixels x 3 f4, mm, row-major; (0, 0, 0) is empty
//   counts       one i4 a block, sums 3 f8 a block: points and coordinate sums (mm) of its blockDim.x pixels
// Launch: ceil(pixels / blockDim.x) blocks of whole warps. Bound: reads 12 bytes a pixel once (0.6 MB at 224 x 224).
// Faults: NOT_FINITE. Deterministic: sums are taken in a fixed tree.
extern "C" __global__ void __launch_bounds__(1024) count_points(const float* cloud, int pixels, int* counts, double* sums, unsigned* fault) {
    __shared__ double parts[3][32];
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float3 p = pixel < pixels ? geometry::at(cloud, pixel) : make_float3(0.0f, 0.0f, 0.0f);
    const bool point = geometry::is_point(p);
    if (point && !is_coordinate(p)) report(fault, FAULT_NOT_FINITE);
    const double axes[3] = {p.x, p.y, p.z};
    for (int a = 0; a < 3; ++a) {
        const double sum = sampling::warp_sum(axes[a]);
        if (lane == 0) parts[a][warp] = sum;
    }
    const int points = __syncthreads_count(point);
    if (threadIdx.x == 0) counts[blockIdx.x] = points;
    if (threadIdx.x < 3) {
        double sum = 0.0;
        for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += parts[threadIdx.x][w];
        sums[3 * blockIdx.x + threadIdx.x] = sum;
    }
}
SIMT_KERNEL(count_points)

// The points of a cloud in row-major order, as valid_points has them; launched like count_points, after it.
//   points       capacity >= pixels of x, y, z (mm) and the flat pixel index as an f4 (exact below 2^24)
//   count        i4, how many there are: 0 is an answer here and a fault to whoever needs a point
//   centroid     3 f8, mm: their mean; NaN without points
// Bound: reads 12 bytes a pixel, writes 16 a point.
extern "C" __global__ void __launch_bounds__(1024) list_points(const float* cloud, int pixels, const int* counts, const double* sums, float4* points, int* count, double* centroid) {
    __shared__ int before_warp[32], total;
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float3 p = pixel < pixels ? geometry::at(cloud, pixel) : make_float3(0.0f, 0.0f, 0.0f);
    const bool point = geometry::is_point(p);
    const unsigned ballot = __ballot_sync(FULL_WARP, point);
    if (lane == 0) before_warp[warp] = __popc(ballot);
    __syncthreads();
    if (threadIdx.x == 0) {
        int sum = 0;
        for (unsigned b = 0; b < blockIdx.x; ++b) sum += counts[b];
        for (unsigned w = 0; w < blockDim.x / 32; ++w) {
            const int here = before_warp[w];
            before_warp[w] = sum;
            sum += here;
        }
        total = sum;
        if (blockIdx.x == gridDim.x - 1) *count = sum;
    }
    __syncthreads();
    if (point) points[before_warp[warp] + __popc(ballot & ((1u << lane) - 1))] = make_float4(p.x, p.y, p.z, static_cast<float>(pixel));
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x < 3) {
        double sum = 0.0;
        for (unsigned b = 0; b < gridDim.x; ++b) sum += sums[3 * b + threadIdx.x];
        centroid[threadIdx.x] = sum / total;
    }
}
SIMT_KERNEL(list_points)

// Farthest point sampling: index 0, then again and again the point farthest from all chosen so far, ties to the lowest.
//   points       capacity of f4 (x, y, z in mm, anything), of which *count are there
//   chosen       groups x i4: indices into points; with fewer distinct points than groups index 0 is repeated
//   centres      groups x f4: the chosen points
//   scratch      farthest_points_large only: rounds x warps x 128 f4, see below; else unused, may be 0
// Launch, rounds = ceil(capacity / (128 x warps x blocks)) <= 32:
//   farthest_points          1 block of whole warps, rounds x warps x 512 bytes of dynamic shared memory
//   farthest_points_cluster  one cluster of up to 8 blocks, as much shared memory in each
//   farthest_points_large    1 block, no shared memory: for chips that have too little of it
// Exact up to float32: each choice is the float64 answer to the choices before it, unless two points' distances are
// within 1e-6 of each other (relative). Faults: EMPTY, COUNT, NOT_FINITE, SHAPE.
//
// Bound: one step depends on the one before it, so its latency counts and nothing else. A step tests one box a lane,
// measures 128 points in each chunk whose box the new centre can reach at all (no point of a box farther away than its
// own farthest point's distance can change; geometry.cuh says why that is exact), joins three warp maxima and passes
// one barrier. All the points would be 8 flops each, 160 kflop a step at 20k: 0.6 us on one multiprocessor at its full
// rate before any latency. docs/kernels.md counts what the boxes leave of it. Points come from L2/L1 (16 bytes each),
// distances from shared memory, and the winner's place from the shared memory of whoever found it.
extern "C" __global__ void __launch_bounds__(1024) farthest_points(const float4* points, const int* count, int capacity, int groups, int* chosen, float4* centres, float* scratch, unsigned* fault) {
    sampling::sample<false, sampling::Where::SHARED>(points, count, capacity, groups, chosen, centres, scratch, fault);
}
SIMT_KERNEL(farthest_points)

extern "C" __global__ void __launch_bounds__(1024) farthest_points_cluster(const float4* points, const int* count, int capacity, int groups, int* chosen, float4* centres, float* scratch, unsigned* fault) {
    sampling::sample<true, sampling::Where::SHARED>(points, count, capacity, groups, chosen, centres, scratch, fault);
}
SIMT_KERNEL(farthest_points_cluster)

extern "C" __global__ void __launch_bounds__(1024) farthest_points_large(const float4* points, const int* count, int capacity, int groups, int* chosen, float4* centres, float* scratch, unsigned* fault) {
    sampling::sample<false, sampling::Where::GLOBAL>(points, count, capacity, groups, chosen, centres, scratch, fault);
}
SIMT_KERNEL(farthest_points_large)
