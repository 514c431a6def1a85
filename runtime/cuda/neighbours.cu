// The re-weighted image distance (lsfa 7.3): the worst patch, its bank row m*, and the rows nearest to m*.
#include "nearest.cuh"

// worst[0] = the query of largest distance (ties to the lowest), worst[1] = its bank row m*; both -1 where there is no
// query, or any distance is not a number or has no row: then no image distance is made. One block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024) neighbours_worst(const float* distance, const int* index, const int* count, int* worst) {
    __shared__ nearest::Key least[32];
    int rows = *count;
    nearest::Key own = nearest::EMPTY;
    bool damaged = false;
    for (int i = threadIdx.x; i < rows; i += 1024) {
        damaged |= !isfinite(distance[i]) || index[i] < 0;
        nearest::Key key = nearest::key_of(-distance[i], i);
        own = key < own ? key : own;
    }
    own = nearest::warp_min(own);
    if (threadIdx.x % 32 == 0) least[threadIdx.x / 32] = own;
    bool refused = __syncthreads_or(damaged) || rows < 1;
    if (threadIdx.x >= 32) return;
    own = nearest::warp_min(least[threadIdx.x]);
    if (threadIdx.x == 0) {
        worst[0] = refused ? -1 : nearest::index_of(own);
        worst[1] = refused ? -1 : index[nearest::index_of(own)];
    }
}
SIMT_KERNEL(neighbours_worst)

// The KEPT best keys of (squared distance to m*, row) over each block's rows: best[block * KEPT]. A warp a bank row.
extern "C" __global__ void __launch_bounds__(256) neighbours_scan(const float* bank, const int* worst, int n, int d, unsigned long long* best) {
    using namespace nearest;
    __shared__ Key list[KEPT];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < KEPT) list[threadIdx.x] = EMPTY;
    __syncthreads();
    if (worst[1] >= 0) {
        const float* centre = bank + static_cast<size_t>(worst[1]) * d;
        for (int row = blockIdx.x * 8 + threadIdx.x / 32; row < n; row += gridDim.x * 8) {
            const float* own = bank + static_cast<size_t>(row) * d;
            float sum = 0.0f;
            for (int i = lane; i < d; i += 32) {
                float apart = own[i] - centre[i];
                sum = fmaf(apart, apart, sum);
            }
            for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, s);
            if (lane == 0) add_shared(list, key_of(sum, row));
        }
    }
    __syncthreads();
    if (threadIdx.x < KEPT) best[blockIdx.x * KEPT + threadIdx.x] = list[threadIdx.x];
}
SIMT_KERNEL(neighbours_scan)

// rows[0..3) = the 3 rows nearest to m*, nearest first, ties to the lowest index (-1 where there are fewer), and the
// image distance s = (1 - exp(s*/sqrt(d)) / sum over rows[1], rows[2] of exp(|q - m|/sqrt(d))) s*, q the worst query.
// NaN where worst is -1 or the bank has fewer than 3 rows. One warp.
extern "C" __global__ void __launch_bounds__(32) neighbours_finish(
    const unsigned long long* best, int blocks, const float* queries, const float* bank, const int* worst, int d, int* rows, float* image_distance) {
    using namespace nearest;
    int lane = threadIdx.x, query = worst[0], centre = worst[1];
    Key list[KEPT] = {EMPTY, EMPTY, EMPTY, EMPTY}, found[KEPT];
    for (int i = lane; i < blocks * KEPT; i += 32) add_own(list, best[i]);
    warp_best(list, found);
    double squared[KEPT];
    int row[KEPT];
    bool enough = query >= 0;
    for (int i = 0; i < KEPT; ++i) {
        row[i] = found[i] == EMPTY || centre < 0 ? -1 : index_of(found[i]);
        squared[i] = INFINITY;
        if (row[i] >= 0) squared[i] = warp_squared(bank + static_cast<size_t>(centre) * d, bank + static_cast<size_t>(row[i]) * d, d);
    }
#pragma unroll
    for (int i = 0; i < KEPT - 1; ++i)
#pragma unroll
        for (int j = 0; j < KEPT - 1 - i; ++j) {
            bool wrong = squared[j + 1] < squared[j] || (squared[j + 1] == squared[j] && row[j + 1] >= 0 && row[j + 1] < row[j]);
            double far = wrong ? squared[j] : squared[j + 1];
            int behind = wrong ? row[j] : row[j + 1];
            squared[j] = wrong ? squared[j + 1] : squared[j];
            row[j] = wrong ? row[j + 1] : row[j];
            squared[j + 1] = far;
            row[j + 1] = behind;
        }
    enough = enough && row[0] >= 0 && row[1] >= 0 && row[2] >= 0;
    double result = NAN;
    if (enough) {
        const float* own = queries + static_cast<size_t>(query) * d;
        double star = sqrt(warp_squared(own, bank + static_cast<size_t>(centre) * d, d));
        double sum = 0.0;
        // exp(s*) / sum of exp(x) as 1 / sum of exp(x - s*): the same number without overflow.
        for (int i = 1; i < 3; ++i)
            sum += exp((sqrt(warp_squared(own, bank + static_cast<size_t>(row[i]) * d, d)) - star) / sqrt(static_cast<double>(d)));
        result = (1.0 - 1.0 / sum) * star;
    }
    if (lane == 0) {
        for (int i = 0; i < 3; ++i) rows[i] = row[i];
        *image_distance = static_cast<float>(result);
    }
}
SIMT_KERNEL(neighbours_finish)
