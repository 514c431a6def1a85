// The posed part's height residual (asperity.runtime.vision.height_residual): the part is turned and shifted onto the good frames'
// mean by Gauss-Newton on 48 x 48 cells, the plane in which it lies otherwise is taken out, and what is left is divided by
// the good frames' spread at that place. S: the surface grid's side. The model's own figures are made once, on the host.
#include "faults.cuh"
#include "geometry.cuh"
#include "keys.cuh"
#include "surface.cuh"

namespace heights {

constexpr int COARSE = 48, CELLS = COARSE * COARSE, LAYERS = 2;  // layers: share of the part, and its heights
constexpr int MOST_BLUR = 16;                                    // radius of a blur, cells; below COARSE
constexpr int DIGITS = 2048, PASSES = 3, RANKS = 2;
constexpr double MIDDLE = 0.5 * (COARSE - 1);

struct Pose { double turn, down, right; };  // radians, cells

// What the plane's kernels leave for each other. terms: of 1, row and column, relative to the mean row and column.
struct Plane {
    double terms[3], limit;
    int count, rows, columns;  // over all cells where the residual is known; cleared by height_level
    int done;                  // blocks of plane_fit and plane_median so far
    unsigned prefix[RANKS], rank[RANKS];
    __device__ double at(int row, int column) const {
        const double n = count > 1 ? count : 1;
        return terms[0] + terms[1] * (row - rows / n) + terms[2] * (column - columns / n);
    }
};

// A value between four cells, as scipy's map_coordinates of order 1 has it.
template <class T>
__device__ inline double between(const T* values, int size, double row, double column) {
    const int r = static_cast<int>(row), c = static_cast<int>(column);  // both within 0..size - 1
    const int below = min(r + 1, size - 1), next = min(c + 1, size - 1);
    const double y = row - r, x = column - c;
    double sum = values[r * size + c] * (1.0 - y) * (1.0 - x);
    sum += values[r * size + next] * (1.0 - y) * x;
    sum += values[below * size + c] * y * (1.0 - x);
    sum += values[below * size + next] * y * x;
    return sum;
}

__device__ inline bool inside(int size, double row, double column) { return row >= 0.0 && row <= size - 1 && column >= 0.0 && column <= size - 1; }

// The nearest cell's edge where it lies outside; NaN is taken to 0, and stays NaN in the pose it came from.
template <class T>
__device__ inline double clamped(const T* values, int size, double row, double column) {
    return between(values, size, fmin(fmax(row, 0.0), size - 1.0), fmin(fmax(column, 0.0), size - 1.0));
}

// The frame's cell of a coarse cell of the model (row and column from the middle).
__device__ inline double2 into_frame(Pose pose, double sine, double cosine, double row, double column) {
    return {cosine * row + sine * column + MIDDLE + pose.down, -sine * row + cosine * column + MIDDLE + pose.right};
}

// The model's cell of a cell of the frame.
__device__ inline double2 into_model(const Pose& pose, double sine, double cosine, int size, int row, int column) {
    const double middle = 0.5 * (size - 1), r = row - middle - pose.down, c = column - middle - pose.right;
    return {cosine * r - sine * c + middle, sine * r + cosine * c + middle};
}

// One pass of a blur along rows (step COARSE) or columns (step 1), mirrored at the edges, in scipy's order.
__device__ inline double blurred(const double* values, int at, bool down, const double* weights, int radius) {
    const int row = at / COARSE, column = at % COARSE, along = down ? row : column;
    const auto value = [&](int k) {
        k = k < 0 ? -1 - k : k >= COARSE ? 2 * COARSE - 1 - k : k;
        return values[down ? k * COARSE + column : row * COARSE + k];
    };
    double sum = value(along) * weights[radius];
    for (int d = radius; d > 0; --d) sum += (value(along - d) + value(along + d)) * weights[radius - d];
    return sum;
}

// Half the difference of a cell's two neighbours, of one and itself at an edge.
__device__ inline double slope(const double* values, int at, bool down) {
    const int along = down ? at / COARSE : at % COARSE, step = down ? COARSE : 1;
    const bool first = along == 0, last = along == COARSE - 1;
    const double difference = values[last ? at : at + step] - values[first ? at : at - step];
    return first || last ? difference : 0.5 * difference;
}

__device__ inline float height(const float4* means, int at, float ux, float uy, float uz, float level) {
    return means[at].w == 0.0f ? 0.0f : surface::height_of(means[at], ux, uy, uz) - level;
}

__device__ inline Pose plus(Pose pose, reduce::Three step) { return {pose.turn + step.a, pose.down + step.b, pose.right + step.c}; }

// Whether this block is the last of `blocks` so far; what the others wrote before is then to be seen.
__device__ inline bool is_last(int* done, int blocks, int* shared) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *shared = atomicAdd(done, 1) == blocks - 1;
    __syncthreads();
    __threadfence();
    return *shared;
}

}  // namespace heights

// The surface's mean height, which all heights are taken relative to; and what later kernels count is cleared.
//   means        S x S x 4 f4 as surface_means leaves them; level: f4 mm; plane: heights::Plane
// Launch: one block of whole warps. Sums in float64 in a fixed tree. Bound: one multiprocessor's reads of 16 S^2 bytes.
extern "C" __global__ void __launch_bounds__(1024) height_level(const float4* means, int size, float ux, float uy, float uz, float* level, heights::Plane* plane) {
    __shared__ double slots[32];
    double sum = 0.0, count = 0.0;
    for (int at = threadIdx.x; at < size * size; at += blockDim.x)
        if (means[at].w != 0.0f) sum += surface::height_of(means[at], ux, uy, uz), count += 1.0;
    sum = reduce::block_sum(sum, slots), count = reduce::block_sum(count, slots);
    if (threadIdx.x) return;
    *level = static_cast<float>(sum / (count > 1.0 ? count : 1.0));
    *plane = {};
}
SIMT_KERNEL(height_level)

// The part on 48 x 48 cells: share of each that it fills, and its mean height by `scale`, 0 where that is 0.
//   coarse       2 x 48 x 48 f8. Launch: one warp a coarse cell, whole warps. Bound: 16 S^2 bytes.
extern "C" __global__ void __launch_bounds__(256) height_coarse(const float4* means, const float* level, int size, float ux, float uy, float uz, float scale, double* coarse) {
    using namespace heights;
    const int lane = threadIdx.x % 32, cell = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (cell >= CELLS) return;
    const int row0 = surface::first_of(cell / COARSE, COARSE, size), column0 = surface::first_of(cell % COARSE, COARSE, size);
    const int wide = surface::first_of(cell % COARSE + 1, COARSE, size) - column0;
    const int pixels = (surface::first_of(cell / COARSE + 1, COARSE, size) - row0) * wide;
    double count = 0.0, sum = 0.0;
    for (int i = lane; i < pixels; i += 32) {
        const int at = (row0 + i / wide) * size + column0 + i % wide;
        count += means[at].w != 0.0f;
        sum += height(means, at, ux, uy, uz, *level);
    }
    for (int d = 16; d; d /= 2) {
        count += __shfl_xor_sync(FULL_WARP, count, d);
        sum += __shfl_xor_sync(FULL_WARP, sum, d);
    }
    if (lane) return;
    const float area = max(pixels, 1);
    coarse[cell] = static_cast<float>(count) / area;
    coarse[CELLS + cell] = scale > 0.0f ? static_cast<float>(sum) / area / scale : 0.0f;
}
SIMT_KERNEL(height_coarse)

// The turn and shift by which the part agrees best with the mean part: from the better of two starts, Gauss-Newton, first
// under a wide blur, then under a narrow one.
//   coarse       as height_coarse leaves it; work: 8 x 48 x 48 f8 of scratch memory
//   theirs       2 blurs x 2 layers x 48 x 48 f8, the model so blurred; weights: 2 x 33 f8, the blurs' halves and middles
//                from 16 - radius on; radii: 2 cells
//   axis, row, column   the model's longer axis, and its middle from the grid's
//   cell         cells of the surface's grid in a coarse one
//   pose         heights::Pose in cells of the surface's grid; one that is not a number is none (height_residual)
// Launch: one block of whole warps. Bound: latency of up to 16 steps, each 4608 samples of three fields and nine sums in
// float64 in a fixed tree (0.3 MFLOP).
extern "C" __global__ void __launch_bounds__(768) height_pose(const double* coarse, double* work, const double* theirs, const double* weights, int radius0, int radius1, double axis, double row, double column, double most_turn, int steps, double cell, heights::Pose* pose) {
    using namespace heights;
    __shared__ double slots[32];
    const auto sum_of = [&](auto term) {
        double sum = 0.0;
        for (int at = threadIdx.x; at < CELLS; at += blockDim.x) sum += term(at, at / COARSE, at % COARSE);
        return reduce::block_sum(sum, slots);
    };
    const double total = sum_of([&](int at, int, int) { return coarse[at]; });
    const double rows = sum_of([&](int at, int r, int) { return coarse[at] * r; });
    const double columns = sum_of([&](int at, int, int c) { return coarse[at] * c; });
    double turn = 0.0;
    if (total > 0.0) {
        const double mr = rows / total, mc = columns / total;
        const double rr = sum_of([&](int at, int r, int) { return coarse[at] * (r - mr) * (r - mr); });
        const double cc = sum_of([&](int at, int, int c) { return coarse[at] * (c - mc) * (c - mc); });
        const double rc = sum_of([&](int at, int r, int c) { return coarse[at] * (r - mr) * (c - mc); });
        turn = 0.5 * atan2(2.0 * rc, rr - cc);
    }
    const double half = 0.5 * 3.14159265358979323846;
    turn = fmod(turn - axis + half, 2.0 * half);
    turn += (turn < 0.0 ? 2.0 * half : 0.0) - half;
    const double weight = total > 1e-9 ? total : 1e-9, middle_row = rows / weight - MIDDLE, middle_column = columns / weight - MIDDLE;
    const auto start_at = [&](double angle) {
        const double sine = sin(angle), cosine = cos(angle);
        return Pose{angle, middle_row - (cosine * row + sine * column), middle_column - (-sine * row + cosine * column)};
    };
    double *between_passes = work, *near = work + LAYERS * CELLS, *down = near + LAYERS * CELLS, *right = down + LAYERS * CELLS;
    Pose now = start_at(0.0);
    for (int blur = 0; blur < 2; ++blur) {
        const int radius = blur ? radius1 : radius0;
        const double *half_weights = weights + blur * (2 * MOST_BLUR + 1) + MOST_BLUR - radius, *wanted = theirs + blur * LAYERS * CELLS;
        __syncthreads();
        for (int i = threadIdx.x; i < LAYERS * CELLS; i += blockDim.x) between_passes[i] = blurred(coarse + i / CELLS * CELLS, i % CELLS, true, half_weights, radius);
        __syncthreads();
        for (int i = threadIdx.x; i < LAYERS * CELLS; i += blockDim.x) near[i] = blurred(between_passes + i / CELLS * CELLS, i % CELLS, false, half_weights, radius);
        __syncthreads();
        for (int i = threadIdx.x; i < LAYERS * CELLS; i += blockDim.x) {
            down[i] = slope(near + i / CELLS * CELLS, i % CELLS, true);
            right[i] = slope(near + i / CELLS * CELLS, i % CELLS, false);
        }
        __syncthreads();
        if (blur == 0 && fabs(turn) < most_turn) {
            const auto left_at = [&](Pose start) {
                const double sine = sin(start.turn), cosine = cos(start.turn);
                return sum_of([&](int at, int r, int c) {
                    const double2 to = into_frame(start, sine, cosine, r - MIDDLE, c - MIDDLE);
                    double sum = 0.0;
                    for (int layer = 0; layer < LAYERS; ++layer) {
                        const double seen = inside(COARSE, to.x, to.y) ? between(near + layer * CELLS, COARSE, to.x, to.y) : 0.0;
                        sum += (seen - wanted[layer * CELLS + at]) * (seen - wanted[layer * CELLS + at]);
                    }
                    return sum;
                });
            };
            const Pose other = start_at(turn);
            const double straight = left_at(now), turned = left_at(other);
            if (turned < straight) now = other;
        }
        for (int step = 0; step < steps; ++step) {
            const double sine = sin(now.turn), cosine = cos(now.turn);
            double sums[9] = {};
            for (int i = threadIdx.x; i < LAYERS * CELLS; i += blockDim.x) {
                const int layer = i / CELLS * CELLS, at = i % CELLS;
                const double r = at / COARSE - MIDDLE, c = at % COARSE - MIDDLE;
                const double2 to = into_frame(now, sine, cosine, r, c);
                const double by_row = clamped(down + layer, COARSE, to.x, to.y), by_column = clamped(right + layer, COARSE, to.x, to.y);
                const double by_turn = by_row * (-sine * r + cosine * c) + by_column * (-cosine * r - sine * c);
                const double off = wanted[i] - clamped(near + layer, COARSE, to.x, to.y);
                sums[0] += by_turn * by_turn, sums[1] += by_turn * by_row, sums[2] += by_turn * by_column;
                sums[3] += by_row * by_row, sums[4] += by_row * by_column, sums[5] += by_column * by_column;
                sums[6] += by_turn * off, sums[7] += by_row * off, sums[8] += by_column * off;
            }
            for (int k = 0; k < 9; ++k) sums[k] = reduce::block_sum(sums[k], slots);
            const double ridge = 1e-6;
            const reduce::Three by = reduce::solve(sums[0] + ridge, sums[1], sums[2], sums[3] + ridge, sums[4], sums[5] + ridge, {sums[6], sums[7], sums[8]});
            now = plus(now, by);
            if (fabs(by.a) * COARSE < 1e-3 && fabs(by.b) < 1e-3 && fabs(by.c) < 1e-3) break;  // every thread, or none
        }
    }
    if (threadIdx.x == 0) *pose = {now.turn, now.down * cell, now.right * cell};
}
SIMT_KERNEL(height_pose)

// Heights above the model's in this pose, where both are known; nowhere where the pose is beyond its limits or not a number.
//   model, known S x S f4 mm and u1; left: S x S f4 mm; both: S x S u1; plane: count, rows and columns are counted up
// Launch: one thread a cell, whole warps. Bound: 16 bytes a cell, four cells of the model, float64 for its place.
extern "C" __global__ void __launch_bounds__(256) height_residual(const float4* means, const float* level, int size, float ux, float uy, float uz, const heights::Pose* pose, double most_turn, double most_shift, const float* model, const unsigned char* known, float* left, unsigned char* both, heights::Plane* plane) {
    using namespace heights;
    const int at = blockIdx.x * blockDim.x + threadIdx.x, row = at / size, column = at % size, lane = threadIdx.x % 32;
    const Pose now = *pose;
    bool here = at < size * size && means[at].w != 0.0f && fabs(now.turn) <= most_turn && fabs(now.down) <= most_shift && fabs(now.right) <= most_shift;
    if (here) {
        const double2 to = into_model(now, sin(now.turn), cos(now.turn), size, row, column);
        here = inside(size, to.x, to.y) && static_cast<float>(between(known, size, to.x, to.y)) > 0.99f;
        if (here) left[at] = height(means, at, ux, uy, uz, *level) - static_cast<float>(between(model, size, to.x, to.y));
    }
    if (at < size * size) both[at] = here;
    if (at < size * size && !here) left[at] = 0.0f;
    int counts[3] = {here, here ? row : 0, here ? column : 0};
    for (int k = 0; k < 3; ++k)
        for (int d = 16; d; d /= 2) counts[k] += __shfl_xor_sync(FULL_WARP, counts[k], d);
    if (lane == 0 && counts[0]) atomicAdd(&plane->count, counts[0]), atomicAdd(&plane->rows, counts[1]), atomicAdd(&plane->columns, counts[2]);
}
SIMT_KERNEL(height_residual)

// The plane through what is left: through all of it in round 0, then through what lies within the limit of the last round.
//   partial      9 f8 a block; digits: 3 x 2 x 2048 u4, cleared for plane_median
// Launch: `round` 0, 1, 2; whole warps, any number of blocks. Sums in float64, in fixed trees and then in the blocks' order.
// Bound: 5 bytes and some 20 flops in float64 a cell. A round that fewer than 3 cells are left for changes nothing.
extern "C" __global__ void __launch_bounds__(256) plane_fit(const float* left, const unsigned char* both, int size, int round, double* partial, unsigned* digits, int blocks_before, heights::Plane* plane) {
    using namespace heights;
    __shared__ double slots[32], total[9];
    __shared__ int last;
    const Plane from = *plane;
    const double n = from.count > 1 ? from.count : 1;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int i = thread; i < PASSES * RANKS * DIGITS; i += threads) digits[i] = 0;
    double sums[9] = {};
    for (int at = thread; at < size * size; at += threads) {
        if (!both[at]) continue;
        const int row = at / size, column = at % size;
        const double v = left[at], r = row - from.rows / n, c = column - from.columns / n;
        if (round && !(fabs(v - from.at(row, column)) <= from.limit)) continue;
        sums[0] += 1.0, sums[1] += r, sums[2] += c, sums[3] += r * r, sums[4] += r * c, sums[5] += c * c;
        sums[6] += v, sums[7] += v * r, sums[8] += v * c;
    }
    for (int k = 0; k < 9; ++k) sums[k] = reduce::block_sum(sums[k], slots);
    if (threadIdx.x == 0)
        for (int k = 0; k < 9; ++k) partial[9 * blockIdx.x + k] = sums[k];
    if (!is_last(&plane->done, blocks_before + gridDim.x, &last)) return;
    if (threadIdx.x < 9) {
        double sum = 0.0;
        for (unsigned b = 0; b < gridDim.x; ++b) sum += __ldcg(partial + 9 * b + threadIdx.x);
        total[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x || total[0] < 3.0) return;
    const double ridge = 1e-9;
    const reduce::Three terms = reduce::solve(total[0] + ridge, total[1], total[2], total[3] + ridge, total[4], total[5] + ridge, {total[6], total[7], total[8]});
    plane->terms[0] = terms.a, plane->terms[1] = terms.b, plane->terms[2] = terms.c;
}
SIMT_KERNEL(plane_fit)

// How far most cells lie off the plane: their median, by one of three passes over 11, 11 and 10 bits; then the limit, three
// standard deviations that it stands for.
//   digits       3 x 2 x 2048 u4, cleared by plane_fit
// Launch: `pass` 0, 1, 2; whole warps, any number of blocks. Distances are float64 rounded to float32 once, so the limit is
// the CPU's to 6e-8 of itself. Bound: 5 bytes and 6 flops in float64 a cell. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) plane_median(const float* left, const unsigned char* both, int size, int pass, unsigned* digits, int blocks_before, heights::Plane* plane, unsigned* fault) {
    using namespace heights;
    __shared__ unsigned local[RANKS * DIGITS];
    __shared__ int last;
    const Plane from = *plane;
    const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, width = pass == 2 ? 10 : 11;
    for (unsigned i = threadIdx.x; i < RANKS * DIGITS; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < size * size; at += gridDim.x * blockDim.x) {
        if (!both[at]) continue;
        const float off = static_cast<float>(fabs(left[at] - from.at(at / size, at % size)));
        if (!isfinite(off)) report(fault, FAULT_NOT_FINITE);
        const unsigned bits = keys::ordered(off);
        for (int r = 0; r < RANKS; ++r)
            if (pass == 0 || bits >> (shift + width) == from.prefix[r]) atomicAdd(local + r * DIGITS + (bits >> shift & ((1u << width) - 1)), 1u);
    }
    __syncthreads();
    unsigned* whole = digits + pass * RANKS * DIGITS;
    for (unsigned i = threadIdx.x; i < RANKS * DIGITS; i += blockDim.x)
        if (local[i]) atomicAdd(whole + i, local[i]);
    if (!is_last(&plane->done, blocks_before + gridDim.x, &last)) return;
    // A sum over ascending digits: one thread a rank, 2048 reads from L2.
    if (threadIdx.x < RANKS && from.count > 0) {
        const int r = threadIdx.x;
        unsigned rank = pass ? from.rank[r] : static_cast<unsigned>(r == 0 ? (from.count - 1) / 2 : from.count / 2), digit = 0;
        for (unsigned here; digit < DIGITS - 1 && (here = __ldcg(whole + r * DIGITS + digit)) <= rank; ++digit) rank -= here;
        plane->rank[r] = rank;
        plane->prefix[r] = (pass ? from.prefix[r] << width : 0) | digit;
    }
    __syncthreads();
    if (threadIdx.x || pass < PASSES - 1) return;
    const double median = 0.5 * (double{keys::from_ordered(plane->prefix[0])} + keys::from_ordered(plane->prefix[1]));
    const double limit = 3.0 * 1.4826 * median;
    plane->limit = limit > 1e-9 ? limit : 1e-9;
}
SIMT_KERNEL(plane_median)

// What is left less the plane, in place; 0 where it is not known, and everywhere where fewer than 3 cells are.
// Launch: one thread a cell. Bound: 9 bytes a cell.
extern "C" __global__ void __launch_bounds__(256) height_flat(float* left, const unsigned char* both, int size, const heights::Plane* plane) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    left[at] = both[at] && plane->count >= 3 ? static_cast<float>(left[at] - plane->at(at / size, at % size)) : 0.0f;
}
SIMT_KERNEL(height_flat)

// Each patch's highest and lowest residual in three scales, in spreads of the good frames.
//   spread       3 x S x S f4 mm, above 0; width0..2: odd sides of the boxes that residuals are averaged in
//   features     grid^2 x 6 f4: by scale highest and lowest, within +-largest; a patch of the part where good frames have
//                none is as strange as can be
// Launch: one block of whole warps a patch. Bound: width^2 reads of 5 bytes from L1 and as many sums in float64 a cell (195
// in all). Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(128) height_features(const float4* means, const float* left, const unsigned char* both, int size, int grid, const heights::Pose* pose, const float* spread, int width0, int width1, int width2, float largest, float* features, unsigned* fault) {
    using namespace heights;
    constexpr int SCALES = 3;
    __shared__ unsigned high[SCALES], low[SCALES];
    __shared__ int parts, known;
    const int patch = blockIdx.x, widths[SCALES] = {width0, width1, width2};
    if (threadIdx.x < SCALES) high[threadIdx.x] = 0, low[threadIdx.x] = 0xffffffffu;
    if (threadIdx.x == 0) parts = known = 0;
    __syncthreads();
    const int row0 = surface::first_of(patch / grid, grid, size), column0 = surface::first_of(patch % grid, grid, size);
    const int row1 = surface::first_of(patch / grid + 1, grid, size), wide = surface::first_of(patch % grid + 1, grid, size) - column0;
    const Pose now = *pose;
    const double sine = sin(now.turn), cosine = cos(now.turn);
    for (int i = threadIdx.x; i < (row1 - row0) * wide; i += blockDim.x) {
        const int row = row0 + i / wide, column = column0 + i % wide, at = row * size + column;
        const bool here = both[at];
        if (here) known = 1;
        if (means[at].w != 0.0f) parts = 1;
        const double2 to = into_model(now, sine, cosine, size, row, column);
        for (int scale = 0; scale < SCALES; ++scale) {
            float ratio = 0.0f;
            if (here) {
                const int half = widths[scale] / 2;
                double sum = 0.0, count = 0.0;
                for (int c = max(column - half, 0); c <= min(column + half, size - 1); ++c) {
                    double down = 0.0, members = 0.0;
                    for (int r = max(row - half, 0); r <= min(row + half, size - 1); ++r)
                        if (both[r * size + c]) down += left[r * size + c], members += 1.0;
                    sum += down, count += members;
                }
                const float mean = half ? static_cast<float>(sum / (count > 1.0 ? count : 1.0)) : left[at];
                ratio = mean / static_cast<float>(clamped(spread + scale * size * size, size, to.x, to.y));
                if (!isfinite(ratio)) report(fault, FAULT_NOT_FINITE);
                ratio = fminf(fmaxf(ratio, -largest), largest);
            }
            atomicMax(high + scale, keys::ordered(ratio));
            atomicMin(low + scale, keys::ordered(ratio));
        }
    }
    __syncthreads();
    if (threadIdx.x >= 2 * SCALES) return;
    const bool lowest = threadIdx.x % 2, foreign = parts && !known;
    const float found = keys::from_ordered((lowest ? low : high)[threadIdx.x / 2]);
    features[patch * 2 * SCALES + threadIdx.x] = foreign ? (lowest ? -largest : largest) : found;
}
SIMT_KERNEL(height_features)
