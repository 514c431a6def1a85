// Shared by the nearest-neighbour kernels: keys that order (value, index), lists of the 4 best, and the split of work.
#pragma once

#include "common.cuh"

namespace nearest {

constexpr int KEPT = 4;             // candidates a row
constexpr int TILE_ROWS = 128;      // queries and bank rows a tile; buffers of half rows are padded to it with zeros
constexpr int EXACT_ROWS = 64;      // the same for the float32 pass, whose buffers need no padding

// Counters of one search, reset by nearest_select.
enum Stat { NOT_FINITE = 0, UNSETTLED = 1, WITHIN_MARGIN = 2, NO_CANDIDATE = 3, STATS = 4 };

// A key orders by value, then by index: the smaller key is the nearer row, ties to the lowest index.
using Key = unsigned long long;
constexpr Key EMPTY = 0xff800000ffffffffull;  // +infinity at no row

__device__ inline Key key_of(float value, int index) {
    unsigned u = __float_as_uint(value + 0.0f);  // -0 becomes +0
    u = u & 0x80000000u ? ~u : u | 0x80000000u;
    return static_cast<Key>(u) << 32 | static_cast<unsigned>(index);
}
__device__ inline float value_of(Key key) {
    unsigned u = static_cast<unsigned>(key >> 32);
    return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u);
}
__device__ inline int index_of(Key key) { return static_cast<int>(static_cast<unsigned>(key)); }

// Into a list in shared memory that many threads add to: each place keeps the smaller key and passes the larger one on,
// so place i ends with the i-th smallest of all keys whatever the order of arrival.
__device__ inline void add_shared(Key* list, Key key) {
    if (key >= *static_cast<volatile Key*>(list + KEPT - 1)) return;
    for (int i = 0; i < KEPT; ++i) {
        Key before = atomicMin(list + i, key);
        key = before > key ? before : key;
    }
}

// Into a thread's own ascending list.
__device__ inline void add_own(Key (&list)[KEPT], Key key) {
    for (int i = 0; i < KEPT; ++i) {
        Key before = list[i];
        list[i] = before < key ? before : key;
        key = before < key ? key : before;
    }
}

__device__ inline Key warp_min(Key key) {
    for (int d = 16; d; d /= 2) {
        Key other = __shfl_xor_sync(FULL_WARP, key, d);
        key = other < key ? other : key;
    }
    return key;
}

// The 4 smallest of all lanes' ascending lists, in every lane. Destroys the lists.
__device__ inline void warp_best(Key (&list)[KEPT], Key (&best)[KEPT]) {
    for (int i = 0; i < KEPT; ++i) {
        best[i] = warp_min(list[0]);
        if (list[0] == best[i]) {  // one lane only: keys are unique, except EMPTY, where it does not matter
            list[0] = list[1];
            list[1] = list[2];
            list[2] = list[3];
            list[3] = EMPTY;
        }
    }
}

// How `blocks` blocks share the tiles: every tile of queries is searched in `splits` parts of the bank, so that few
// queries still fill the GPU, and blocks that run together read the same part of the bank.
struct Split {
    int tiles, splits, bank_tiles;
    __device__ Split(int rows, int n, int tile_rows, int tile_bank, int blocks) {
        tiles = (rows + tile_rows - 1) / tile_rows;
        bank_tiles = (n + tile_bank - 1) / tile_bank;
        int each = tiles ? blocks / tiles : 1;
        splits = each < 1 ? 1 : each > bank_tiles ? bank_tiles : each;
    }
    __device__ int units() const { return tiles * splits; }
    __device__ int first(int split) const {
        return static_cast<int>(static_cast<long long>(split) * bank_tiles / splits);
    }
};

// Where element (row, channel) lies in the packed layout that one bulk copy brings into shared memory just as wgmma reads
// it: blocks of 128 rows x 64 channels (16 KiB), channel blocks of one row block behind each other; a row of a block is 8
// pieces of 16 bytes, piece c of row r in place c ^ (r % 8) (the 128-byte swizzle). `stride`: channels padded to 64.
__host__ __device__ inline size_t packed_place(int row, int channel, int stride) {
    size_t block = static_cast<size_t>(row / 128) * (stride / 64) + channel / 64;
    return block * (128 * 64) + row % 128 * 64 + ((channel % 64 / 8) ^ (row % 8)) * 8 + channel % 8;
}

// Squared distance in float64 of one query and one bank row, by a whole warp, in every lane.
__device__ inline double warp_squared(const float* query, const float* row, int d) {
    double sum = 0.0;
    for (int i = threadIdx.x % 32; i < d; i += 32) {
        double x = static_cast<double>(query[i]) - static_cast<double>(row[i]);
        sum += x * x;
    }
    for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, s);
    return sum;
}

}  // namespace nearest
