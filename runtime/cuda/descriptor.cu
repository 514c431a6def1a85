// Histograms of how the part's surface bends around each patch (asperity.runtime.vision.grid_descriptor): pairs of cells some way
// apart, and what the normals do between them. Neighbours are cells, so there is no search.
#include "faults.cuh"
#include "surface.cuh"

namespace descriptor {

constexpr int RADII = 3, DIRECTIONS = 4, FIGURES = 3, BINS = 11, DIMENSION = RADII * FIGURES * BINS;

struct Pair { float slope, back, bend, twist; };

__device__ inline float dot(float3 a, float3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

// The pair that begins at row, column, where both its cells have a normal; of the larger radii every second one.
__device__ inline bool pair_at(const float4* means, const float4* normals, int size, float sign, int radius, int2 step, int row, int column, Pair& pair) {
    if (row < 0 || row + step.x >= size || column < 0 || column >= size || column + step.y < 0 || column + step.y >= size) return false;
    if (radius > 0 && (row + column) % 2) return false;
    const int first = row * size + column, other = first + step.x * size + step.y;
    const float4 n = normals[first], f = normals[other], p = means[first], q = means[other];
    if (n.w == 0.0f || f.w == 0.0f) return false;
    float3 line = make_float3(q.x - p.x, q.y - p.y, q.z - p.z);
    const float scale = 1.0f / fmaxf(sqrtf(dot(line, line)), 1e-12f);
    line = make_float3(line.x * scale, line.y * scale, line.z * scale);
    const float3 near = make_float3(sign * n.x, sign * n.y, sign * n.z), far = make_float3(sign * f.x, sign * f.y, sign * f.z);
    const float slope = dot(line, near), ahead = dot(line, far);
    const float3 turn = make_float3(near.y * far.z - near.z * far.y, near.z * far.x - near.x * far.z, near.x * far.y - near.y * far.x);
    pair = {slope, -ahead, ahead - slope, dot(line, turn)};
    return true;
}

// Counts a figure; one that is not finite is a fault and counts nowhere.
__device__ inline void count_in(int* histogram, float figure, float usual, unsigned* fault) {
    const float bin = (figure / (fabsf(figure) + usual) * 0.4999f + 0.5f) * BINS;
    if (bin >= 0.0f && bin < BINS) atomicAdd(histogram + static_cast<int>(bin), 1);
    else report(fault, FAULT_NOT_FINITE);
}

}  // namespace descriptor

// Square roots of each patch's histograms, rows of zeros where there is no pair.
//   means, normals, towards   as surface_means and surface_normals leave them; blocks: of `towards`
//   steps        3 radii x 4 directions x 2 i4: rows (not below 0) and columns from one cell of a pair to the other
//   usual        3 radii x 3 figures f4, above 0: half of a histogram's range lies within it
//   features     grid^2 x 99 f4: by radius and figure (slope, bend, twist) 11 bins even in x / (|x| + usual)
// A slope belongs to the patch of its own end, bend and twist to that of the cell between both. Each patch gathers its own:
// a pair is computed three times and no count leaves the block.
// Launch: one block of whole warps a patch. Bound: 24 pairs a cell (3.8 M at 400 x 400), each some 60 flops and 64 bytes from
// L1, and as many counts in shared memory: integers, so that their order is of no consequence. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) surface_histograms(const float4* means, const float4* normals, const double* towards, int blocks, int size, int grid, const int2* steps, const float* usual, float* features, unsigned* fault) {
    using namespace descriptor;
    __shared__ int counts[DIMENSION];
    __shared__ double slots[32];
    for (int i = threadIdx.x; i < DIMENSION; i += blockDim.x) counts[i] = 0;
    const float sign = surface::sign_of(towards, blocks, slots);  // a barrier
    const int patch = blockIdx.x;
    const int row0 = surface::first_of(patch / grid, grid, size), column0 = surface::first_of(patch % grid, grid, size);
    const int high = surface::first_of(patch / grid + 1, grid, size) - row0, wide = surface::first_of(patch % grid + 1, grid, size) - column0;
    for (int i = threadIdx.x; i < high * wide * RADII * DIRECTIONS; i += blockDim.x) {
        const int which = i / (high * wide), cell = i % (high * wide), radius = which / DIRECTIONS;
        const int row = row0 + cell / wide, column = column0 + cell % wide;
        const int2 step = steps[which];
        int* slopes = counts + radius * FIGURES * BINS;
        const float* by = usual + radius * FIGURES;
        Pair pair;
        if (pair_at(means, normals, size, sign, radius, step, row, column, pair)) count_in(slopes, pair.slope, by[0], fault);
        if (pair_at(means, normals, size, sign, radius, step, row - step.x, column - step.y, pair)) count_in(slopes, pair.back, by[0], fault);
        if (pair_at(means, normals, size, sign, radius, step, row - step.x / 2, column - step.y / 2, pair)) {
            count_in(slopes + BINS, pair.bend, by[1], fault);
            count_in(slopes + 2 * BINS, pair.twist, by[2], fault);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < DIMENSION; i += blockDim.x) {
        int total = 0;
        for (int bin = 0; bin < BINS; ++bin) total += counts[i / BINS * BINS + bin];
        features[patch * DIMENSION + i] = static_cast<float>(sqrt(static_cast<double>(counts[i]) / max(total, 1)));
    }
}
SIMT_KERNEL(surface_histograms)
