// The half-precision search for Hopper (sm_90a): the same answer as nearest_tensor, by warpgroup matrix products.
//
// One block a multiprocessor, tiles of 128 queries x 256 bank rows, 64 channels a stage, 4 stages in flight. One warpgroup
// only copies (bulk copies of packed blocks, see nearest::packed_place), two multiply, 64 queries each. mma.sync reaches
// about 62 % of this chip's rate; without clusters sharing their copies this form is bound by the L2 cache next.
#include "nearest.cuh"
#include "wgmma.cuh"

namespace nearest {

#ifdef ASPERITY_WGMMA

constexpr int WIDE_STAGES = 4;
constexpr int WIDE_CHANNELS = 64;
constexpr int MULTIPLYING_WARPS = 8;  // each gives a stage back when it has read it: no warp may miss a round
constexpr int BLOCK_BYTES = 128 * WIDE_CHANNELS * 2;
constexpr int WIDE_STAGE_BYTES = 3 * BLOCK_BYTES;  // 128 queries, 256 bank rows

struct WideShared {
    unsigned char* stages;
    Key* lists;
    Barrier* full;
    Barrier* empty;
};

__device__ inline void copy_tiles(const WideShared& s, const half* queries, const half* bank, const Split& work, int channel_blocks) {
    int round = 0;
    for (int unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
        int tile = unit % work.tiles, split = unit / work.tiles;
        int from = work.first(split), steps = (work.first(split + 1) - from) * channel_blocks;
        for (int step = 0; step < steps; ++step, ++round) {
            int stage = round % WIDE_STAGES;
            barrier::wait(s.empty + stage, (round / WIDE_STAGES + 1) % 2);
            barrier::expect(s.full + stage, WIDE_STAGE_BYTES);
            unsigned char* to = s.stages + stage * WIDE_STAGE_BYTES;
            size_t block = step % channel_blocks, bank_block = static_cast<size_t>(from + step / channel_blocks) * 2;
            auto bytes = [&](const half* all, size_t row_block) {
                return reinterpret_cast<const unsigned char*>(all) + (row_block * channel_blocks + block) * BLOCK_BYTES;
            };
            copy_bulk(to, bytes(queries, tile), BLOCK_BYTES, s.full + stage);
            copy_bulk(to + BLOCK_BYTES, bytes(bank, bank_block), BLOCK_BYTES, s.full + stage);
            copy_bulk(to + 2 * BLOCK_BYTES, bytes(bank, bank_block + 1), BLOCK_BYTES, s.full + stage);
        }
    }
}

__device__ inline void start_wide(float (&sums)[WGMMA_SUMS], const float* half_norms, int column) {
#pragma unroll
    for (int j = 0; j < WGMMA_COLUMNS / 8; ++j) {
        float2 norm = *reinterpret_cast<const float2*>(half_norms + column + j * 8);
        sums[4 * j] = sums[4 * j + 2] = -norm.x;
        sums[4 * j + 1] = sums[4 * j + 3] = -norm.y;
    }
}

__device__ inline void keep_wide(const float (&sums)[WGMMA_SUMS], Key* lists, int row, int column, int n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        Key* list = lists + (row + 8 * i) * KEPT;
        float least = -value_of(*static_cast<volatile Key*>(list + KEPT - 1));
        float best = sums[2 * i];
#pragma unroll
        for (int j = 0; j < WGMMA_COLUMNS / 8; ++j) best = fmaxf(best, fmaxf(sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]));
        if (best < least) continue;
#pragma unroll
        for (int j = 0; j < WGMMA_COLUMNS / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float value = sums[4 * j + 2 * i + e];
                int at = column + j * 8 + e;
                if (value >= least && at < n) add_shared(list, key_of(-value, at));
            }
    }
}

__device__ inline void multiply_tiles(const WideShared& s, int group, const float* half_norms, const Split& work, int channel_blocks, int n, Key* best) {
    int thread = threadIdx.x % 128, lane = thread % 32, warp_row = group * 64 + thread / 32 * 16;
    float sums[WGMMA_SUMS];
    int round = 0;
    for (int unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
        int tile = unit % work.tiles, split = unit / work.tiles;
        // The 16 rows of a warp are its own, and so are their lists.
        for (int i = lane; i < 16 * KEPT; i += 32) s.lists[warp_row * KEPT + i] = EMPTY;
        __syncwarp();
        for (int part = work.first(split); part < work.first(split + 1); ++part) {
            int column = part * WGMMA_COLUMNS + lane % 4 * 2;
            start_wide(sums, half_norms, column);
            for (int step = 0; step < channel_blocks; ++step, ++round) {
                int stage = round % WIDE_STAGES;
                barrier::wait(s.full + stage, round / WIDE_STAGES % 2);
                const unsigned char* at = s.stages + stage * WIDE_STAGE_BYTES;
                wgmma::Matrix left = wgmma::matrix(at + group * 64 * 128), right = wgmma::matrix(at + BLOCK_BYTES);
                wgmma::fence();
#pragma unroll
                for (int k = 0; k < WIDE_CHANNELS / 16; ++k) wgmma::multiply(sums, wgmma::advance(left, k * 32), wgmma::advance(right, k * 32));
                wgmma::commit();
                // While this stage is multiplied the one before is given back; waiting brings the warp together.
                wgmma::wait<1>();
                if (step > 0 && lane == 0) barrier::arrive(s.empty + (round - 1) % WIDE_STAGES);
            }
            wgmma::wait<0>();
            wgmma::finished(sums);
            if (lane == 0) barrier::arrive(s.empty + (round - 1) % WIDE_STAGES);
            keep_wide(sums, s.lists, warp_row + lane / 4, column, n);
        }
        __syncwarp();
        Key* out = best + (static_cast<size_t>(tile * work.splits + split) * TILE_ROWS + warp_row) * KEPT;
        for (int i = lane; i < 16 * KEPT; i += 32) out[i] = s.lists[warp_row * KEPT + i];
        __syncwarp();
    }
}

#endif

}  // namespace nearest

// As nearest_tensor, but queries and bank packed (nearest::packed_place), stride a multiple of 64, the bank and half_norms
// padded to 256 rows, and splits of 256 bank rows. 384 threads. Stops with an error on any chip but compute capability 9.0.
extern "C" __global__ void __launch_bounds__(384, 1) nearest_wgmma(
    const half* queries, const half* bank, const float* half_norms, const int* count, int n, int stride, unsigned long long* best) {
#ifdef ASPERITY_WGMMA
    using namespace nearest;
    DYNAMIC_SHARED(unsigned char, shared);
    auto* barriers = reinterpret_cast<Barrier*>(shared + WIDE_STAGES * WIDE_STAGE_BYTES + TILE_ROWS * KEPT * sizeof(Key));
    WideShared s{shared, reinterpret_cast<Key*>(shared + WIDE_STAGES * WIDE_STAGE_BYTES), barriers, barriers + WIDE_STAGES};
    Split work(*count, n, TILE_ROWS, WGMMA_COLUMNS, gridDim.x);
    int channel_blocks = stride / WIDE_CHANNELS;
    if (threadIdx.x == 0) {
        for (int i = 0; i < WIDE_STAGES; ++i) {
            barrier::initialise(s.full + i, 1);
            barrier::initialise(s.empty + i, MULTIPLYING_WARPS);
        }
        barrier::publish();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        wgmma::keep_few_registers();
        if (threadIdx.x == 0) copy_tiles(s, queries, bank, work, channel_blocks);
    } else {
        wgmma::take_many_registers();
        multiply_tiles(s, static_cast<int>(threadIdx.x) / 128 - 1, half_norms, work, channel_blocks, n, best);
    }
#else
    __trap();
#endif
}
SIMT_KERNEL(nearest_wgmma)
