// Point tokens to patches as one sparse map, built from geometry alone and applied (asperity.runtime.vision.points.patch_map;
// asperity.runtime.vision.features.merged_tokens).
#include "faults.cuh"
#include "geometry.cuh"

namespace interpolation {

constexpr int NEIGHBOURS = 3;
constexpr double EPS_MM2 = 1e-2;
// Two squared distances farther apart than this share of themselves have the same order in float64.
constexpr float MARGIN = 1e-6f;

__device__ inline float token(const float* tokens, size_t i) { return tokens[i]; }
__device__ inline float token(const half* tokens, size_t i) { return __half2float(tokens[i]); }

struct Nearest {
    int index[NEIGHBOURS] = {-1, -1, -1};  // -1: none
    double squared[NEIGHBOURS] = {0.0, 0.0, 0.0};

    __device__ void swap(int k) {
        const int i = index[k];
        const double d = squared[k];
        index[k] = index[k + 1], squared[k] = squared[k + 1];
        index[k + 1] = i, squared[k + 1] = d;
    }
};

// The three nearest centres of p, nearest first, ties to the lowest, by float64. Indices are constants, so that
// nothing of it is kept in local memory.
__device__ inline Nearest nearest_exact(float3 p, const float4* centres, int groups) {
    Nearest found;
    for (int c = 0; c < groups; ++c) {
        const double d = geometry::squared_exact(p, geometry::xyz(centres[c]));
        if (found.index[2] >= 0 && !(d < found.squared[2])) continue;
        found.index[2] = c, found.squared[2] = d;
        if (found.index[1] < 0 || d < found.squared[1]) found.swap(1);
        if (found.index[0] < 0 || d < found.squared[0]) found.swap(0);
    }
    return found;
}

// tokens (G x C) -> patches: one block a slot, its channels side by side. See pool_tokens_f32.
template <class Token>
__device__ void pool(const Token* tokens, int groups, int channels, const int* row_count, const int* columns, const float* values, int stride, const int* patch_of_slot, const int* count, int slots, float* out, unsigned* fault) {
    const int slot = blockIdx.x, filled = *count;
    if (filled < 0 || filled > slots) {
        if (slot == 0 && threadIdx.x == 0) report(fault, FAULT_COUNT);
        return;
    }
    const int patch = slot < filled ? patch_of_slot[slot] : -1;
    const int entries = patch < 0 ? 0 : row_count[patch];
    bool finite = true;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        float sum = 0.0f;
        for (int e = 0; e < entries; ++e) {
            const size_t at = static_cast<size_t>(patch) * stride + e;
            const int group = columns[at];
            if (group < 0 || group >= groups) {
                report(fault, FAULT_INDEX);
                sum = NAN;
                break;
            }
            sum = fmaf(values[at], token(tokens, static_cast<size_t>(group) * channels + c), sum);
        }
        finite &= isfinite(sum);
        out[static_cast<size_t>(slot) * channels + c] = sum;
    }
    if (!finite) report(fault, FAULT_NOT_FINITE);
}

}  // namespace interpolation

// For every pixel of the cloud its 3 nearest centres and their weights, inverse squared distance, summing to 1.
//   cloud        pixels x 3 f4, mm; (0, 0, 0) is empty
//   centres      groups x f4: x, y, z (mm), anything
//   nearest      pixels x 3 i4, ties to the lowest centre; -1 where the pixel is empty or there are fewer centres
//   weights      pixels x 3 f4; 0 beside a -1
// Launch: one thread a pixel, 16 bytes of dynamic shared memory a centre. The indices are the float64 ones always:
// where float32 cannot tell the third centre from the fourth, the point is measured again in float64; weights are
// float64 rounded once.
// Bound: 8 flops a point and centre: 0.2 Gflop at 20k x 1024; the centres stay in shared memory. Faults: NOT_FINITE, EMPTY.
extern "C" __global__ void __launch_bounds__(256) nearest_centres(const float* cloud, int pixels, const float4* centres, int groups, int* nearest, float* weights, unsigned* fault) {
    DYNAMIC_SHARED(float4, local);
    using namespace interpolation;
    bool damaged = false;
    for (int c = threadIdx.x; c < groups; c += blockDim.x) {
        local[c] = centres[c];
        damaged |= !is_coordinate(geometry::xyz(local[c]));
    }
    __syncthreads();
    if (groups < 1 && threadIdx.x == 0) report(fault, FAULT_EMPTY);
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    const float3 p = pixel < pixels ? geometry::at(cloud, pixel) : make_float3(0.0f, 0.0f, 0.0f);
    Nearest found;
    double share[NEIGHBOURS] = {0.0, 0.0, 0.0};
    if (geometry::is_point(p)) {
        damaged |= !is_coordinate(p);
        float d0 = INFINITY, d1 = INFINITY, d2 = INFINITY, d3 = INFINITY;
        int i0 = -1, i1 = -1, i2 = -1;
        for (int c = 0; c < groups; ++c) {
            const float d = geometry::squared(p, geometry::xyz(local[c]));
            if (!(d < d3)) continue;
            if (d < d2) {
                d3 = d2;
                if (d < d1) {
                    d2 = d1, i2 = i1;
                    if (d < d0) {
                        d1 = d0, i1 = i0;
                        d0 = d, i0 = c;
                    } else {
                        d1 = d, i1 = c;
                    }
                } else {
                    d2 = d, i2 = c;
                }
            } else {
                d3 = d;
            }
        }
        if (groups > NEIGHBOURS && !(d3 > fmaxf(d2 + d2 * MARGIN, 1e-30f))) {
            found = nearest_exact(p, local, groups);
        } else {
            found.index[0] = i0, found.index[1] = i1, found.index[2] = i2;
            for (int k = 0; k < NEIGHBOURS; ++k)
                if (found.index[k] >= 0) found.squared[k] = geometry::squared_exact(p, geometry::xyz(local[found.index[k]]));
            // Nearest first by float64 too; equal ones go by their index.
            for (int pass = 0; pass < 2; ++pass)
                for (int k = 0; k < NEIGHBOURS - 1; ++k) {
                    const bool tie = found.squared[k + 1] == found.squared[k] && found.index[k + 1] < found.index[k];
                    if (found.index[k + 1] >= 0 && (found.squared[k + 1] < found.squared[k] || tie)) found.swap(k);
                }
        }
        double sum = 0.0;
        for (int k = 0; k < NEIGHBOURS; ++k) {
            if (found.index[k] >= 0) share[k] = 1.0 / (found.squared[k] + EPS_MM2);
            sum += share[k];
        }
        for (int k = 0; k < NEIGHBOURS; ++k) share[k] /= sum;
        damaged |= !(sum > 0.0);
    }
    if (pixel < pixels)
        for (int k = 0; k < NEIGHBOURS; ++k) {
            nearest[NEIGHBOURS * pixel + k] = found.index[k];
            weights[NEIGHBOURS * pixel + k] = static_cast<float>(share[k]);
        }
    if (damaged) report(fault, FAULT_NOT_FINITE);
}
SIMT_KERNEL(nearest_centres)

// Each patch's row of the map: pooled interpolation weights of the centres that its points use.
//   nearest, weights  as nearest_centres leaves them for a cloud of size x size pixels
//   first        grid i4: first row (and column: the two axes are alike) of a patch's window
//   axis         grid x span f4: weight of each row of the window, 0 beyond its end
//   mean         1: the mean over the window's points where count >= filled_min x pixels of the window (valid_mean);
//                0: sums weighted by both axes, non-empty with any point (published). Both rules as asperity.runtime.vision.points
//   row_count    grid^2 i4: entries of each row; columns, values: grid^2 x stride, ascending columns, beyond the
//                count undefined. CSR with rows at a fixed stride: the number of entries is known only here
//   nonempty     grid^2 u1
// Launch: one block of whole warps a patch, span^2 x 3 x 12 bytes of dynamic shared memory; stride = span^2 x 3 always
// suffices. Bound: reads 24 bytes a pixel of the window (0.4 to 1.2 MB in all), E^2 compares for E <= 3 span^2 entries.
// Deterministic: no atomics; sums run over the window row-major. Faults: INDEX, SHAPE.
extern "C" __global__ void __launch_bounds__(256) patch_rows(const int* nearest, const float* weights, int groups, int size, int grid, const int* first, const float* axis, int span, int mean, double filled_min, int* row_count, int* columns, float* values, int stride, unsigned char* nonempty, unsigned* fault) {
    using namespace interpolation;
    DYNAMIC_SHARED(int, memory);
    __shared__ int points, cells, distinct;
    const int patch = blockIdx.x, row0 = first[patch / grid], column0 = first[patch % grid];
    const float *rows = axis + patch / grid * span, *across = axis + patch % grid * span;
    const int entries = span * span * NEIGHBOURS;
    int *centre = memory, *rank = memory + entries;
    float* weight = reinterpret_cast<float*>(memory + 2 * entries);
    if (threadIdx.x == 0) points = cells = distinct = 0;
    __syncthreads();
    for (int e = threadIdx.x; e < entries; e += blockDim.x) {
        const int pixel = e / NEIGHBOURS, r = pixel / span, c = pixel % span;
        const float cell = rows[r] * across[c];
        int found = -1;
        float share = 0.0f;
        if (cell > 0.0f && row0 + r < size && column0 + c < size) {
            const int at = NEIGHBOURS * ((row0 + r) * size + column0 + c) + e % NEIGHBOURS;
            found = nearest[at];
            share = mean ? weights[at] : cell * weights[at];
            if (found >= groups) {
                report(fault, FAULT_INDEX);
                found = -1;
            }
            if (e % NEIGHBOURS == 0) {
                atomicAdd(&cells, 1);
                if (found >= 0) atomicAdd(&points, 1);
            }
        }
        centre[e] = found;
        weight[e] = share;
    }
    __syncthreads();
    const bool filled = points > 0 && (!mean || points >= filled_min * cells);
    // The first entry of each centre speaks for all of them.
    for (int e = threadIdx.x; e < entries; e += blockDim.x) {
        bool speaks = filled && centre[e] >= 0;
        for (int before = 0; speaks && before < e; ++before) speaks = centre[before] != centre[e];
        rank[e] = speaks ? 0 : -1;
        if (speaks) atomicAdd(&distinct, 1);
    }
    __syncthreads();
    if (distinct > stride) {
        if (threadIdx.x == 0) {
            report(fault, FAULT_SHAPE);
            row_count[patch] = 0;
            nonempty[patch] = 0;
        }
        return;
    }
    for (int e = threadIdx.x; e < entries; e += blockDim.x) {
        if (rank[e] < 0) continue;
        int place = 0;
        for (int other = 0; other < entries; ++other) place += rank[other] >= 0 && centre[other] < centre[e];
        float sum = 0.0f;
        for (int later = e; later < entries; ++later)
            if (centre[later] == centre[e]) sum += weight[later];
        columns[static_cast<size_t>(patch) * stride + place] = centre[e];
        values[static_cast<size_t>(patch) * stride + place] = mean ? sum / static_cast<float>(points) : sum;
    }
    if (threadIdx.x == 0) {
        row_count[patch] = distinct;
        nonempty[patch] = filled;
    }
}
SIMT_KERNEL(patch_rows)

// The rows of patch_rows as a dense grid^2 x groups f4 matrix, for an engine that multiplies.
// Launch: one block a patch. Bound: writes 4 grid^2 groups bytes (0.8 MB at 784 x 256).
extern "C" __global__ void __launch_bounds__(256) dense_rows(const int* row_count, const int* columns, const float* values, int stride, int groups, float* dense) {
    const size_t patch = blockIdx.x;
    for (int g = threadIdx.x; g < groups; g += blockDim.x) dense[patch * groups + g] = 0.0f;
    __syncthreads();
    for (int e = threadIdx.x; e < row_count[patch]; e += blockDim.x)
        dense[patch * groups + columns[patch * stride + e]] = values[patch * stride + e];
}
SIMT_KERNEL(dense_rows)

// Which patches hold points, where no map is needed (asperity.runtime.vision.points.filled_patches).
//   cloud        size x size x 3 f4, mm; (0, 0, 0) is empty; first, axis, span, mean, filled_min, nonempty as patch_rows
// Launch: one warp a patch. Bound: 12 bytes a pixel of the cloud (0.15 MB at 112 x 112); latency. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) filled_patches(const float* cloud, int size, int grid, const int* first, const float* axis, int span, int mean, double filled_min, unsigned char* nonempty, unsigned* fault) {
    const int lane = threadIdx.x % 32, patch = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (patch >= grid * grid) return;
    const int row0 = first[patch / grid], column0 = first[patch % grid];
    const float *rows = axis + patch / grid * span, *across = axis + patch % grid * span;
    int points = 0, cells = 0;
    for (int i = lane; i < span * span; i += 32) {
        const int row = row0 + i / span, column = column0 + i % span;
        if (!(rows[i / span] * across[i % span] > 0.0f) || row >= size || column >= size) continue;
        const float3 p = geometry::at(cloud, row * size + column);
        if (!is_coordinate(p)) report(fault, FAULT_NOT_FINITE);
        points += geometry::is_point(p);
        ++cells;
    }
    for (int d = 16; d; d /= 2) {
        points += __shfl_xor_sync(FULL_WARP, points, d);
        cells += __shfl_xor_sync(FULL_WARP, cells, d);
    }
    if (lane == 0) nonempty[patch] = points > 0 && (!mean || points >= filled_min * cells);
}
SIMT_KERNEL(filled_patches)

// Non-empty patches first: which patch stands in which slot of the points adaptor, and what its keys count.
//   nonempty     patches u1
//   slot_of_patch  patches i4: -1 where empty; patch_of_slot: patches i4, ascending, -1 behind the last
//   count        i4: how many are not empty
//   multiplicity slots f4: 1 for a filled slot; the spare ones share the count of empty patches (their keys get log of it)
//   larger       i4: 1 when the frame needs the graph with slots = patches: more patches than slots, or no spare slot
//                for the empty ones, or spare slots and nothing empty (asperity.runtime.vision.features.merged_tokens)
// Launch: one block of whole warps. Bound: one pass over 784 to 3136 bytes; latency. Faults: EMPTY.
extern "C" __global__ void __launch_bounds__(1024) number_patches(const unsigned char* nonempty, int patches, int slots, int* slot_of_patch, int* patch_of_slot, int* count, float* multiplicity, int* larger, unsigned* fault) {
    __shared__ int before_warp[32], total;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int filled = 0;
    for (int start = 0; start < patches; start += blockDim.x) {
        const int patch = start + threadIdx.x;
        const bool here = patch < patches && nonempty[patch];
        const unsigned ballot = __ballot_sync(FULL_WARP, here);
        if (lane == 0) before_warp[warp] = __popc(ballot);
        __syncthreads();
        if (threadIdx.x == 0) {
            int sum = filled;
            for (int w = 0; w < warps; ++w) {
                const int more = before_warp[w];
                before_warp[w] = sum;
                sum += more;
            }
            total = sum;
        }
        __syncthreads();
        const int slot = before_warp[warp] + __popc(ballot & ((1u << lane) - 1));
        if (patch < patches) slot_of_patch[patch] = here ? slot : -1;
        if (here) patch_of_slot[slot] = patch;
        filled = total;
        __syncthreads();
    }
    const int empty = patches - filled;
    for (int s = filled + threadIdx.x; s < patches; s += blockDim.x) patch_of_slot[s] = -1;
    for (int s = threadIdx.x; s < slots; s += blockDim.x)
        multiplicity[s] = s < filled ? 1.0f : static_cast<float>(static_cast<double>(empty) / (slots - filled));
    if (threadIdx.x == 0) {
        *count = filled;
        *larger = filled > slots || (filled == slots) != (empty == 0);
        if (filled == 0) report(fault, FAULT_EMPTY);
    }
}
SIMT_KERNEL(number_patches)

// The map applied: features of the non-empty patches, packed into slots, zero rows behind them.
//   tokens       groups x channels, f4 or f2; row_count, columns, values, stride as patch_rows leaves them
//   patch_of_slot, count   as number_patches leaves them; a count above slots is a fault (the larger graph's turn)
//   out          slots x channels f4; sums run over ascending columns in float32, fused products
// Launch: one block a slot, threads over channels. Bound: reads entries x channels tokens from L2: 3136 rows of some 25
// entries and 1152 channels are 90 MFMA and 0.2 GB of half tokens. Deterministic. Faults: COUNT, INDEX, NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) pool_tokens_f32(const float* tokens, int groups, int channels, const int* row_count, const int* columns, const float* values, int stride, const int* patch_of_slot, const int* count, int slots, float* out, unsigned* fault) {
    interpolation::pool(tokens, groups, channels, row_count, columns, values, stride, patch_of_slot, count, slots, out, fault);
}
SIMT_KERNEL(pool_tokens_f32)

extern "C" __global__ void __launch_bounds__(256) pool_tokens_f16(const half* tokens, int groups, int channels, const int* row_count, const int* columns, const float* values, int stride, const int* patch_of_slot, const int* count, int slots, float* out, unsigned* fault) {
    interpolation::pool(tokens, groups, channels, row_count, columns, values, stride, patch_of_slot, count, slots, out, fault);
}
SIMT_KERNEL(pool_tokens_f16)
