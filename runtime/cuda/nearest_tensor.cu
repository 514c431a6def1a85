// Half-precision search on tensor cores: for every query the 4 bank rows of smallest |b|^2 / 2 - q b, q and b centred,
// scaled and rounded to half, without ever writing the queries x rows matrix.
//
// A block of 8 warps takes tiles of 128 queries x 128 bank rows, 32 channels a stage, 3 stages in flight (cp.async).
// Accumulators start at -|b|^2 / 2, so the largest one is the nearest row and a tile's end is one comparison a value.
// Values that beat the row's 4th best are rare (about 4 ln(N / 4) a row) and go to lists in shared memory.
#include "mma.cuh"
#include "nearest.cuh"

namespace nearest {

constexpr int STAGES = 3;
constexpr int STAGE_CHANNELS = 32;
constexpr int STAGE_BYTES = 2 * TILE_ROWS * STAGE_CHANNELS * 2;
constexpr int CHUNKS = STAGE_CHANNELS * 2 / 16;  // 16-byte pieces of a row's 64 bytes in a stage

// Where a row's piece lies in a stage: pieces change places from row pair to row pair, so that the 8 rows of an ldmatrix
// lie in 8 different groups of banks.
__device__ inline int place(int row, int chunk) { return row * 64 + ((chunk ^ (row / 2 % CHUNKS)) * 16); }

__device__ inline void fetch(unsigned char* stage, const half* queries, const half* bank, int stride, int channel) {
    for (int i = threadIdx.x; i < 2 * TILE_ROWS * CHUNKS; i += 256) {
        int row = i / CHUNKS % TILE_ROWS, chunk = i % CHUNKS;
        bool of_bank = i >= TILE_ROWS * CHUNKS;
        const half* from = (of_bank ? bank : queries) + static_cast<size_t>(row) * stride + channel + chunk * 8;
        copy_async16(stage + (of_bank ? STAGE_BYTES / 2 : 0) + place(row, chunk), from);
    }
}

__device__ inline void multiply_stage(float (&acc)[4][4][4], const unsigned char* stage, int warp_row, int warp_column) {
    int lane = threadIdx.x % 32;
    const unsigned char* right = stage + STAGE_BYTES / 2;
#pragma unroll
    for (int k = 0; k < STAGE_CHANNELS / 16; ++k) {
        unsigned a[4][4], b[4][2];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            mma::load4(a[i], stage + place(warp_row + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned pair[4];
            mma::load4(pair, right + place(warp_column + j * 8 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
            b[j][0] = pair[0];
            b[j][1] = pair[1];
            b[j + 1][0] = pair[2];
            b[j + 1][1] = pair[3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) mma::multiply(acc[i][j], a[i], b[j]);
    }
}

// Starts the accumulators at -|b|^2 / 2 of each one's bank row.
__device__ inline void start(float (&acc)[4][4][4], const float* half_norms, int column) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float2 norm = *reinterpret_cast<const float2*>(half_norms + column + j * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            acc[i][j][0] = acc[i][j][2] = -norm.x;
            acc[i][j][1] = acc[i][j][3] = -norm.y;
        }
    }
}

__device__ inline void keep(const float (&acc)[4][4][4], Key* lists, int row, int column, int n) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            Key* list = lists + (row + i * 16 + h * 8) * KEPT;
            float least = -value_of(*static_cast<volatile Key*>(list + KEPT - 1));
            float best = acc[i][0][2 * h];
#pragma unroll
            for (int j = 0; j < 4; ++j) best = fmaxf(best, fmaxf(acc[i][j][2 * h], acc[i][j][2 * h + 1]));
            if (best < least) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    int at = column + j * 8 + e;
                    float value = acc[i][j][2 * h + e];
                    if (value >= least && at < n) add_shared(list, key_of(-value, at));
                }
        }
}

}  // namespace nearest

// queries: (rows padded to 128) x stride half; bank: (n padded to 128) x stride half; half_norms: |b|^2 / 2 of the padded
// bank; stride: channels padded to 32. best: KEPT keys for every query of a tile and split, at
// (((tile * splits + split) * 128 + row) * KEPT; see Split. count: how many queries there are, on the device.
extern "C" __global__ void __launch_bounds__(256, 2) nearest_tensor(
    const half* queries, const half* bank, const float* half_norms, const int* count, int n, int stride, unsigned long long* best) {
    using namespace nearest;
    DYNAMIC_SHARED(unsigned char, shared);
    Key* lists = reinterpret_cast<Key*>(shared + STAGES * STAGE_BYTES);
    Split work(*count, n, TILE_ROWS, TILE_ROWS, gridDim.x);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
    int channel_steps = stride / STAGE_CHANNELS;
    for (int unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
        int tile = unit % work.tiles, split = unit / work.tiles;
        int from = work.first(split), steps = (work.first(split + 1) - from) * channel_steps;
        const half* own_queries = queries + static_cast<size_t>(tile) * TILE_ROWS * stride;
        for (int i = threadIdx.x; i < TILE_ROWS * KEPT; i += 256) lists[i] = EMPTY;
        auto load = [&](int step) {
            if (step < steps) {
                const half* rows = bank + static_cast<size_t>(from + step / channel_steps) * TILE_ROWS * stride;
                fetch(shared + step % STAGES * STAGE_BYTES, own_queries, rows, stride, step % channel_steps * STAGE_CHANNELS);
            }
            copy_commit();  // an empty group too, so that the count of groups is the count of steps
        };
        for (int s = 0; s < STAGES - 1; ++s) load(s);
        float acc[4][4][4];
        for (int step = 0; step < steps; ++step) {
            int bank_row = (from + step / channel_steps) * TILE_ROWS + warp_column + lane % 4 * 2;
            if (step % channel_steps == 0) start(acc, half_norms, bank_row);
            copy_wait<STAGES - 2>();
            __syncthreads();  // the stage has landed for all, and all are done with the one that is overwritten next
            load(step + STAGES - 1);
            multiply_stage(acc, shared + step % STAGES * STAGE_BYTES, warp_row, warp_column);
            if (step % channel_steps == channel_steps - 1) keep(acc, lists, warp_row + lane / 4, bank_row, n);
        }
        copy_wait<0>();
        __syncthreads();
        Key* out = best + static_cast<size_t>(tile * work.splits + split) * TILE_ROWS * KEPT;
        for (int i = threadIdx.x; i < TILE_ROWS * KEPT; i += 256) out[i] = lists[i];
        __syncthreads();
    }
}
SIMT_KERNEL(nearest_tensor)
