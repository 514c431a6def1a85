// The float32 search: direct differences, for chips or banks where half does not serve and for rows it cannot settle.
//
// A block of 256 threads takes tiles of 64 queries x 64 bank rows, 16 channels at a time; each thread has 4 x 4 sums.
// Sums run over channels in one order, so equal rows have equal sums and ties are exact.
#include "nearest.cuh"

namespace nearest {

constexpr int EXACT_CHANNELS = 16;
constexpr int EXACT_PAD = 4;

__device__ inline void stage_rows(float (*to)[EXACT_ROWS + EXACT_PAD], const float* from, const int* rows, int first, int limit,
                                  int d, int channel) {
    for (int i = threadIdx.x; i < EXACT_ROWS * EXACT_CHANNELS; i += 256) {
        int row = i / EXACT_CHANNELS, k = i % EXACT_CHANNELS, item = first + row;
        float value = 0.0f;
        if (item < limit && channel + k < d)
            value = from[static_cast<size_t>(rows == nullptr ? item : rows[item]) * d + channel + k];
        to[k][row] = value;
    }
}

}  // namespace nearest

// queries, bank: rows of d floats. Searches rows[0..*count) of the queries (0..*count where rows is null) and writes, for
// each and each split, the KEPT best keys of (squared distance, bank row), laid out as nearest_tensor's with 64 a tile.
extern "C" __global__ void __launch_bounds__(256) nearest_exact(
    const float* queries, const float* bank, const int* rows, const int* count, int n, int d, unsigned long long* best) {
    using namespace nearest;
    __shared__ float left[EXACT_CHANNELS][EXACT_ROWS + EXACT_PAD], right[EXACT_CHANNELS][EXACT_ROWS + EXACT_PAD];
    __shared__ Key lists[EXACT_ROWS * KEPT];
    Split work(*count, n, EXACT_ROWS, EXACT_ROWS, gridDim.x);
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
        int tile = unit % work.tiles, split = unit / work.tiles;
        for (int i = threadIdx.x; i < EXACT_ROWS * KEPT; i += 256) lists[i] = EMPTY;
        for (int part = work.first(split); part < work.first(split + 1); ++part) {
            float sum[4][4] = {};
            for (int channel = 0; channel < d; channel += EXACT_CHANNELS) {
                __syncthreads();
                stage_rows(left, queries, rows, tile * EXACT_ROWS, *count, d, channel);
                stage_rows(right, bank, nullptr, part * EXACT_ROWS, n, d, channel);
                __syncthreads();
#pragma unroll
                for (int k = 0; k < EXACT_CHANNELS; ++k) {
                    float q[4], b[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        q[i] = left[k][y + 16 * i];
                        b[i] = right[k][x + 16 * i];
                    }
#pragma unroll
                    for (int i = 0; i < 4; ++i)
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            float apart = q[i] - b[j];
                            sum[i][j] = fmaf(apart, apart, sum[i][j]);
                        }
                }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    int at = part * EXACT_ROWS + x + 16 * j;
                    if (at < n) add_shared(lists + (y + 16 * i) * KEPT, key_of(sum[i][j], at));
                }
        }
        __syncthreads();
        Key* out = best + static_cast<size_t>(tile * work.splits + split) * EXACT_ROWS * KEPT;
        for (int i = threadIdx.x; i < EXACT_ROWS * KEPT; i += 256) out[i] = lists[i];
        __syncthreads();
    }
}
SIMT_KERNEL(nearest_exact)
