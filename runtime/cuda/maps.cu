// Distances to the fused map, its worst spot and the re-weighted image distances (asperity.runtime.vision.maps, distances, scoring).
// The published 8-bit step is left out as on the CPU, so upsampling and blur are one matrix a side.
#include "faults.cuh"
#include "keys.cuh"
#include "labels.cuh"
#include "reduce.cuh"

namespace maps {

using keys::Key;

constexpr int DIGITS = 2048;

enum Laid { BY_TOKEN, BY_SLOT, BY_PATCH };  // what a modality's distances are there for

struct Source {
    unsigned long long distances;  // f4 on the device
    int laid, unused;
    double weight, mean, std;
};

__device__ inline int token_of(int patch, int grid, int rgb_grid) {
    const int repeat = grid / rgb_grid;
    return patch / grid / repeat * rgb_grid + patch % grid / repeat;
}

__device__ inline double value(float v) { return v; }
__device__ inline double value(half v) { return __half2float(v); }

// The worst scored row's distance, re-weighted; see image_distance_f32.
template <class Row>
__device__ void image_distance(const float* distances, const int* nearest, const unsigned char* scored, const int* count, int most, const Row* queries, const Row* bank, const int* neighbours, int bank_rows, int dimension, double* out, int* worst, unsigned* fault) {
    __shared__ Key slots[32];
    __shared__ double sums[32];
    const int rows = *count;
    unsigned bad = rows < 0 || rows > most ? FAULT_COUNT : 0;
    Key key = 0;
    for (int r = threadIdx.x; !bad && r < rows; r += blockDim.x) {
        if (scored && !scored[r]) continue;
        const float d = distances[r];
        if (!(d >= 0.0f) || !isfinite(d)) report(fault, FAULT_NOT_FINITE);
        const Key mine = keys::largest_first(keys::ordered(d), r);
        if (mine > key) key = mine;
    }
    key = keys::block_max(key, slots);
    const int row = key ? static_cast<int>(keys::index_of(key)) : -1;
    const int match = row < 0 ? -1 : nearest[row];
    int other[2] = {-1, -1};
    if (!bad && row < 0) bad = FAULT_EMPTY;
    if (!bad && (match < 0 || match >= bank_rows)) bad = FAULT_INDEX;
    for (int k = 0; !bad && k < 2; ++k) {
        other[k] = neighbours[2 * match + k];
        if (other[k] < 0 || other[k] >= bank_rows) bad = FAULT_INDEX;
    }
    if (bad) {
        if (threadIdx.x == 0) {
            report(fault, bad);
            *out = NAN;
            *worst = -1;
        }
        return;
    }
    const double s = distances[row], root = sqrt(static_cast<double>(dimension));
    double total = 0.0;
    for (int k = 0; k < 2; ++k) {
        double sum = 0.0;
        for (int c = threadIdx.x; c < dimension; c += blockDim.x) {
            const double d = value(bank[static_cast<size_t>(other[k]) * dimension + c]) - value(queries[static_cast<size_t>(row) * dimension + c]);
            sum += d * d;
        }
        total += exp((sqrt(reduce::block_sum(sum, sums)) - s) / root);
    }
    if (threadIdx.x == 0) {
        const double result = (1.0 - 1.0 / total) * s;
        if (!isfinite(result)) report(fault, FAULT_NOT_FINITE);
        *out = result;
        *worst = row;
    }
}

// One modality's share of the fused map; with squares of weight (max(0, z)^2 + tie_slope z). NaN stays NaN.
__device__ inline double share(float distance, double weight, double mean, double std, bool squares, double tie_slope) {
    if (!squares) return weight * (distance - mean) / std;
    const double z = (distance - mean) / std, linear = tie_slope * z;
    return weight * (z > 0.0 ? z * z + linear : linear);
}

}  // namespace maps

// Clears what a frame's map accumulates. token_scored: tokens u1; peaks: one key of 8 bytes a plane. Launch: any shape.
extern "C" __global__ void begin_maps(int tokens, unsigned char* token_scored, int planes, unsigned long long* peaks) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    for (int t = thread; t < tokens; t += gridDim.x * blockDim.x) token_scored[t] = 0;
    for (int p = thread; p < planes; p += gridDim.x * blockDim.x) peaks[p] = 0;
}
SIMT_KERNEL(begin_maps)

// Distances counted by how unusual they are for the row they are nearest to (asperity.runtime.vision.distances.Usual).
//   distances    most f4, in place: max(0, usual + (distance - mean[row]) / std[row]) for the first *count of them
//   nearest      most i4 bank rows; mean, std: bank_rows f4, std above 0
// Launch: one thread a distance. Bound: latency (16 bytes each). Faults: NOT_FINITE (NaN stays NaN), COUNT, INDEX.
extern "C" __global__ void __launch_bounds__(256) local_distances(float* distances, const int* nearest, const int* count, int most, const float* mean, const float* std, int bank_rows, double usual, unsigned* fault) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x, rows = *count;
    if (rows < 0 || rows > most) {
        if (at == 0) report(fault, FAULT_COUNT);
        return;
    }
    if (at >= rows) return;
    const int row = nearest[at];
    float local = NAN;
    if (row < 0 || row >= bank_rows) {
        report(fault, FAULT_INDEX);
    } else {
        const double deviation = usual + (double{distances[at]} - mean[row]) / std[row];
        local = static_cast<float>(deviation < 0.0 ? 0.0 : deviation);
        if (!isfinite(local) || !(std[row] > 0.0f)) {
            report(fault, FAULT_NOT_FINITE);
            local = NAN;
        }
    }
    distances[at] = local;
}
SIMT_KERNEL(local_distances)

// What is scored: patches that hold points and are inspected.
//   slot_of_patch    grid^2 i4, -1 where empty; slots: how many there are; inspect: grid^2 u1
//   scored           grid^2 u1; token_scored: rgb_grid^2 u1, tokens with a scored patch, cleared by begin_maps; grid is a
//                    multiple of rgb_grid
//   slot_scored      one u1 a slot; of slots that have no patch now it keeps what it held
// Launch: one thread a patch. Bound: latency (7 bytes a patch). Faults: INDEX.
extern "C" __global__ void __launch_bounds__(256) mark_scored(const int* slot_of_patch, int slots, const unsigned char* inspect, int grid, int rgb_grid, unsigned char* scored, unsigned char* token_scored, unsigned char* slot_scored, unsigned* fault) {
    const int patch = blockIdx.x * blockDim.x + threadIdx.x;
    if (patch >= grid * grid) return;
    const int slot = slot_of_patch[patch];
    if (slot >= slots) report(fault, FAULT_INDEX);
    const bool here = slot >= 0 && slot < slots && inspect[patch];
    scored[patch] = here;
    if (slot >= 0 && slot < slots) slot_scored[slot] = here;
    if (here) token_scored[maps::token_of(patch, grid, rgb_grid)] = 1;
}
SIMT_KERNEL(mark_scored)

// All modalities' distances laid on the grid and fused: weight z, z = (distance - mean) / std, summed in float64, rounded
// once; where `squares` is not 0: weight (max(0, z)^2 + tie_slope z).
//   sources      `count` modalities (maps::Source); distances: f4, one a token, a slot or a patch
//   scored, slot_of_patch, slots   as mark_scored leaves them
//   planes       (2 + count) x grid^2 f4: the fused map, `scored` as 0 or 1, each modality's distances, 0 where not
//                scored; spread_rows and spread_columns take them together
// Launch: one thread a patch. Bound: latency (13 bytes a patch and 8 a modality). Faults: NOT_FINITE (negative too), INDEX.
extern "C" __global__ void __launch_bounds__(256) fuse_distances(const maps::Source* sources, int count, const unsigned char* scored, const int* slot_of_patch, int slots, int grid, int rgb_grid, int squares, double tie_slope, float* planes, unsigned* fault) {
    using namespace maps;
    const int patch = blockIdx.x * blockDim.x + threadIdx.x, patches = grid * grid;
    if (patch >= patches) return;
    const bool here = scored[patch];
    const int slot = slot_of_patch[patch], token = token_of(patch, grid, rgb_grid);
    double sum = 0.0;
    for (int m = 0; m < count; ++m) {
        const Source source = sources[m];
        const float* distances = reinterpret_cast<const float*>(source.distances);
        const int at = source.laid == BY_SLOT ? slot : source.laid == BY_TOKEN ? token : patch;
        float distance = 0.0f;
        if (here && at >= 0 && (source.laid != BY_SLOT || at < slots)) {
            distance = distances[at];
        } else if (here) {
            report(fault, FAULT_INDEX);
            distance = NAN;
        }
        if (!(distance >= 0.0f && isfinite(distance))) report(fault, FAULT_NOT_FINITE);
        sum += share(distance, source.weight, source.mean, source.std, squares, tie_slope);
        planes[(2 + m) * patches + patch] = distance;
    }
    const float fused = static_cast<float>(sum);
    if (!isfinite(fused)) report(fault, FAULT_NOT_FINITE);
    planes[patch] = fused;
    planes[patches + patch] = here ? 1.0f : 0.0f;
}
SIMT_KERNEL(fuse_distances)

// Upsampling and blur along y: spread (pixels x grid) times each plane (grid x grid).
//   spread       pixels x grid f4 (asperity.runtime.cuda.tables.spread_table); planes: P x grid x grid; out: P x pixels x grid f4
// Launch: one thread a value, blockIdx.y the plane. Bound: 2 pixels grid^2 flops a plane (1.4 Mflop at 224 x 56); latency.
extern "C" __global__ void __launch_bounds__(256) spread_rows(const float* spread, const float* planes, int grid, int pixels, float* out) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= pixels * grid) return;
    const float *weights = spread + at / grid * grid, *plane = planes + static_cast<size_t>(blockIdx.y) * grid * grid + at % grid;
    float sum = 0.0f;
    for (int g = 0; g < grid; ++g) sum = fmaf(weights[g], plane[g * grid], sum);
    out[static_cast<size_t>(blockIdx.y) * pixels * grid + at] = sum;
}
SIMT_KERNEL(spread_rows)

// And along x: P x pixels x grid -> P x pixels x pixels f4; peaks gets each plane's maximum and its lowest pixel as a
// key (keys.cuh); cleared by begin_maps.
// Launch: one thread a pixel, whole warps, blockIdx.y the plane. Bound: 2 pixels^2 grid flops (5.6 Mflop). Faults:
// NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) spread_columns(const float* spread, const float* rows, int grid, int pixels, float* out, unsigned long long* peaks, unsigned* fault) {
    __shared__ keys::Key slots[32];
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t plane = blockIdx.y;
    keys::Key key = 0;
    if (at < pixels * pixels) {
        const float *weights = spread + at % pixels * grid, *row = rows + plane * pixels * grid + at / pixels * grid;
        float sum = 0.0f;
        for (int g = 0; g < grid; ++g) sum = fmaf(weights[g], row[g], sum);
        out[plane * pixels * pixels + at] = sum;
        if (!isfinite(sum)) report(fault, FAULT_NOT_FINITE);
        key = keys::largest_first(keys::ordered(sum), at);
    }
    key = keys::block_max(key, slots);
    if (threadIdx.x == 0) atomicMax(peaks + plane, key);
}
SIMT_KERNEL(spread_columns)

// The spot around the map's maximum: the 8-connected area above half-way from the part's median to the peak.
//   maps_in      2 x pixels x pixels f4: the fused map, and the cover whose pixels above 0.5 are the part (all of them
//                where there is none)
//   peak         as spread_columns leaves it; parent: pixels^2 i4 scratch
//   spot         6 i4: 1 or 0 (flat, no spot), first and last row, first and last column, number of pixels
//   levels       2 f8: peak and median
// Launch: one block of whole warps. Bound: one multiprocessor's reads of some 2 MB from L2, and joins; off the path of
// an accepted part. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(1024) worst_region(const float* maps_in, int pixels, const unsigned long long* peak, int* parent, int* spot, double* levels, unsigned* fault) {
    using namespace maps;
    __shared__ unsigned digits[2][DIGITS];
    __shared__ unsigned prefix[2], rank[2];
    __shared__ int box[5];
    const int total = pixels * pixels, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float *map = maps_in, *cover = maps_in + total;
    int part = 0;
    for (int start = 0; start < total; start += blockDim.x) {
        const int at = start + threadIdx.x;
        if (at < total && !isfinite(map[at])) report(fault, FAULT_NOT_FINITE);
        part += __syncthreads_count(at < total && cover[at] > 0.5f);
    }
    const bool whole = part == 0;
    const int members = whole ? total : part;
    if (threadIdx.x < 2) {
        prefix[threadIdx.x] = 0;
        rank[threadIdx.x] = threadIdx.x == 0 ? (members - 1) / 2 : members / 2;  // the same one where the number is odd
    }
    for (int pass = 0; pass < 3; ++pass) {
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, width = pass == 2 ? 10 : 11;
        for (unsigned i = threadIdx.x; i < 2 * DIGITS; i += blockDim.x) digits[i / DIGITS][i % DIGITS] = 0;
        __syncthreads();
        for (int at = threadIdx.x; at < total; at += blockDim.x) {
            if (!whole && !(cover[at] > 0.5f)) continue;
            const unsigned bits = keys::ordered(map[at]);
            for (int r = 0; r < 2; ++r)
                if (pass == 0 || bits >> (shift + width) == prefix[r]) atomicAdd(&digits[r][bits >> shift & ((1u << width) - 1)], 1u);
        }
        __syncthreads();
        for (int r = warp; r < 2; r += blockDim.x / 32) {
            unsigned before = 0;
            for (int start = 0; start < DIGITS; start += 32) {
                const unsigned here = digits[r][start + lane];
                unsigned upto = here;
                for (int d = 1; d < 32; d *= 2) {
                    const unsigned more = __shfl_up_sync(FULL_WARP, upto, d);
                    if (lane >= d) upto += more;
                }
                const unsigned passed = __ballot_sync(FULL_WARP, before + upto > rank[r]);
                if (passed) {
                    const int found = __ffs(static_cast<int>(passed)) - 1;
                    before += __shfl_sync(FULL_WARP, upto - here, found);
                    __syncwarp();
                    if (lane == 0) {
                        prefix[r] = prefix[r] << width | (start + found);
                        rank[r] -= before;
                    }
                    break;
                }
                before += __shfl_sync(FULL_WARP, upto, 31);
            }
        }
        __syncthreads();
    }
    // float32 mean of the two middle ones, as numpy has it.
    const float median = (keys::from_ordered(prefix[0]) + keys::from_ordered(prefix[1])) / 2.0f;
    const double top = keys::from_ordered(keys::value_of(*peak)), level = 0.5 * (top + median);
    const int summit = static_cast<int>(keys::index_of(*peak));
    const bool stands = top > level && summit >= 0 && summit < total;
    if (threadIdx.x == 0) {
        levels[0] = top, levels[1] = median;
        box[0] = box[2] = pixels, box[1] = box[3] = -1, box[4] = 0;
    }
    if (!stands) {
        if (threadIdx.x < 6) spot[threadIdx.x] = 0;
        return;
    }
    const float limit = static_cast<float>(level);
    const auto above = [map, limit](int at) { return map[at] > limit; };
    for (int start = 0; start < total; start += blockDim.x) {
        const int at = start + threadIdx.x;
        const int begin = labels::run_start(at < total && above(at), at, pixels);
        if (at < total) parent[at] = begin;
    }
    __syncthreads();
    for (int at = threadIdx.x; at < total; at += blockDim.x)
        if (above(at)) labels::join_neighbours(above, parent, at, pixels, true);
    __syncthreads();
    const int wanted = labels::root(parent, summit);
    for (int start = 0; start < total; start += blockDim.x) {
        const int at = start + threadIdx.x;
        const bool here = at < total && above(at) && labels::root(parent, at) == wanted;
        if (here) {
            atomicMin(box, at / pixels), atomicMax(box + 1, at / pixels);
            atomicMin(box + 2, at % pixels), atomicMax(box + 3, at % pixels);
            atomicAdd(box + 4, 1);
        }
    }
    __syncthreads();
    if (threadIdx.x < 6) spot[threadIdx.x] = threadIdx.x == 0 ? 1 : box[threadIdx.x - 1];
}
SIMT_KERNEL(worst_region)

// A modality's image distance: the worst scored row, re-weighted by its match's two neighbours in the bank (lsfa 7.3).
//   distances    most f4, nearest: most i4 (bank rows); *count of them are there; scored: most u1, 0 takes all
//   queries      most x dimension, bank: bank_rows x dimension, f4 or f2, in one scale
//   neighbours   bank_rows x 2 i4: the two rows nearest to each bank row, itself dropped; a table of the bank, made once
//   out          f8: (1 - exp(s / sqrt(C)) / sum exp(d / sqrt(C))) s; NaN, never 0, where nothing is scored
//   worst        i4: its row, -1 where there is none
// Launch: one block of whole warps. Sums in float64 in a fixed tree. Bound: 3 rows and one pass over the distances;
// latency. Faults: NOT_FINITE (negative too), EMPTY, COUNT, INDEX.
extern "C" __global__ void __launch_bounds__(1024) image_distance_f32(const float* distances, const int* nearest, const unsigned char* scored, const int* count, int most, const float* queries, const float* bank, const int* neighbours, int bank_rows, int dimension, double* out, int* worst, unsigned* fault) {
    maps::image_distance(distances, nearest, scored, count, most, queries, bank, neighbours, bank_rows, dimension, out, worst, fault);
}
SIMT_KERNEL(image_distance_f32)

extern "C" __global__ void __launch_bounds__(1024) image_distance_f16(const float* distances, const int* nearest, const unsigned char* scored, const int* count, int most, const half* queries, const half* bank, const int* neighbours, int bank_rows, int dimension, double* out, int* worst, unsigned* fault) {
    maps::image_distance(distances, nearest, scored, count, most, queries, bank, neighbours, bank_rows, dimension, out, worst, fault);
}
SIMT_KERNEL(image_distance_f16)
