// A window's picture tile by tile through a network, and its tokens back onto the window's grid (asperity.runtime.vision.tiles).
#include "common.cuh"

// One tile of a picture.
//   picture      3 x window x window f4; out: 3 x size x size f4, from row, column of the window on
// Launch: one thread a value. Bound: reads and writes 4 bytes a value (1.2 MB at 224).
extern "C" __global__ void __launch_bounds__(256) cut_tile(const float* picture, int window, int size, int row, int column, float* out) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= 3 * size * size) return;
    const int channel = at / (size * size), y = at / size % size, x = at % size;
    out[at] = picture[(channel * window + row + y) * window + column + x];
}
SIMT_KERNEL(cut_tile)

// The tokens of a tile that are its own, on the window's grid.
//   tokens       grid^2 x channels f4; owner: window^2 u1, the tile whose features a patch has; tile: this one
//   out          window^2 x channels f4; tokens of other tiles stay as they are
// Launch: one thread a value. Bound: reads and writes 4 bytes a value of the tile.
extern "C" __global__ void __launch_bounds__(256) place_tile(const float* tokens, int grid, int channels, const unsigned char* owner, int tile, int window, int row, int column, float* out) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= grid * grid * channels) return;
    const int token = at / channels, patch = (row + token / grid) * window + column + token % grid;
    if (owner[patch] == tile) out[static_cast<size_t>(patch) * channels + at % channels] = tokens[at];
}
SIMT_KERNEL(place_tile)
