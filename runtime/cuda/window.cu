// The part's window to the networks' inputs: image, cloud and inspected patches (asperity.runtime.vision.preprocess). H x W is the source
// frame; the window follows the figures that preprocess.cu leaves.
#include "faults.cuh"
#include "frame.cuh"
#include "geometry.cuh"

namespace window {

using preprocess::Window;
using preprocess::window_of;

__device__ inline unsigned char clip8(int sum) {
    const int v = sum >> 22;
    return static_cast<unsigned char>(v < 0 ? 0 : v > 255 ? 255 : v);
}

// The first source row (or column) of cell `cell` of `size` along a window of `side`: r belongs to r * size / side.
__device__ inline int first_of(int cell, int size, int side) { return (cell * side + size - 1) / size; }

}  // namespace window

// The window's rows of colour, background black, resized along x as Pillow does it on 8 bits.
//   rgb          H x W x 3 u1; filled: H x W u1; side: the window's, fixed by the recipe; its place follows figures
//   first, weights   size i4 first source column and size x span i4 weights times 2^22 (asperity.runtime.cuda.tables.resize_table)
//   out          side x size x 3 u1
//   window       2 i4: x and y of the window's corner in the frame, for the host; may be negative
// Launch: one thread a pixel of out. Bound: reads 4 bytes a pixel of the window, writes 3 side size. Faults: EMPTY.
extern "C" __global__ void __launch_bounds__(256) resize_rows(const unsigned char* rgb, const unsigned char* filled, int height_px, int width_px, const int* figures, int side, int size, const int* first, const int* weights, int span, unsigned char* out, int* window, unsigned* fault) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    const window::Window corner = window::window_of(figures, side);
    if (at == 0) {
        window[0] = corner.x, window[1] = corner.y;
        if (figures[preprocess::PART] < 1) report(fault, FAULT_EMPTY);
    }
    if (at >= side * size) return;
    const int row = corner.y + at / size, start = first[at % size];
    int sums[3] = {1 << 21, 1 << 21, 1 << 21};
    for (int k = 0; k < span; ++k) {
        const int inside = start + k, column = corner.x + inside;
        if (inside >= side || row < 0 || row >= height_px || column < 0 || column >= width_px) continue;
        const int pixel = row * width_px + column;
        if (!filled[pixel]) continue;
        for (int c = 0; c < 3; ++c) sums[c] += rgb[3 * pixel + c] * weights[at % size * span + k];
    }
    for (int c = 0; c < 3; ++c) out[3 * at + c] = window::clip8(sums[c]);
}
SIMT_KERNEL(resize_rows)

// Those rows resized along y, and normalised for the network.
//   rows         side x size x 3 u1; image: size x size x 3 u1; scale, shift: 3 f4 each, 1 / (255 std) and mean / std
//   network      3 x size x size f4: value * scale - shift, each rounded, as asperity.runtime.vision.features.normalised_image
// Launch: one thread a pixel of image. Bound: reads span x 3 bytes a pixel, writes 15.
extern "C" __global__ void __launch_bounds__(256) resize_columns(const unsigned char* rows, int side, int size, const int* first, const int* weights, int span, const float* scale, const float* shift, unsigned char* image, float* network) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const int y = at / size, x = at % size;
    for (int c = 0; c < 3; ++c) {
        int sum = 1 << 21;
        for (int k = 0; k < span; ++k)
            if (first[y] + k < side) sum += rows[3 * ((first[y] + k) * size + x) + c] * weights[y * span + k];
        const unsigned char value = window::clip8(sum);
        image[3 * at + c] = value;
        network[c * size * size + at] = static_cast<float>(value) * scale[c] - shift[c];
    }
}
SIMT_KERNEL(resize_columns)

// The window's cloud by the nearest rule: row and column floor(i side / size) of the window.
//   cloud        size x size x 3 f4 mm; (0, 0, 0) off the part. Launch: one thread a pixel. Bound: 25 bytes a pixel.
extern "C" __global__ void __launch_bounds__(256) cloud_nearest(const float* points, const unsigned char* part, int height_px, int width_px, const int* figures, int side, int size, float* cloud) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const window::Window corner = window::window_of(figures, side);
    const int row = corner.y + at / size * side / size, column = corner.x + at % size * side / size;
    const bool here = row >= 0 && row < height_px && column >= 0 && column < width_px && part[row * width_px + column];
    for (int a = 0; a < 3; ++a) cloud[3 * at + a] = here ? points[3 * (row * width_px + column) + a] : 0.0f;
}
SIMT_KERNEL(cloud_nearest)

// The window's cloud by cell means, never across a depth edge (asperity.runtime.vision.preprocess.cell_means): in a cell whose depths
// spread over more than level_mm only points within half of that of the upper median depth count.
//   stretch      pixels that the cells share out: the window's side, or more where it is cut into whole squares
//   cloud        size x size x 3 f4 mm: sums and mean in float64, row-major as the CPU adds; (0, 0, 0) where empty
// Launch: one thread a cell. Bound: reads 13 bytes a pixel of the window; a mixed cell of n points costs n^2 compares.
extern "C" __global__ void __launch_bounds__(128) cloud_means(const float* points, const unsigned char* part, int height_px, int width_px, const int* figures, int side, int size, int stretch, double level_mm, float* cloud) {
    using namespace window;
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const Window corner = window_of(figures, side);
    const auto begin = [&](int cell) { return min(first_of(cell, size, stretch), side); };
    const int row0 = max(corner.y + begin(at / size), 0), row1 = min(corner.y + begin(at / size + 1), height_px);
    const int column0 = max(corner.x + begin(at % size), 0), column1 = min(corner.x + begin(at % size + 1), width_px);
    const int wide = max(column1 - column0, 0), cells = max(row1 - row0, 0) * wide;
    const auto pixel_of = [&](int i) { return (row0 + i / wide) * width_px + column0 + i % wide; };
    double sums[3] = {0.0, 0.0, 0.0}, lowest = INFINITY, highest = -INFINITY;
    int members = 0;
    for (int i = 0; i < cells; ++i) {
        const int pixel = pixel_of(i);
        if (!part[pixel]) continue;
        ++members;
        for (int a = 0; a < 3; ++a) sums[a] += points[3 * pixel + a];
        const double z = points[3 * pixel + 2];
        lowest = z < lowest ? z : lowest;
        highest = z > highest ? z : highest;
    }
    if (members && highest - lowest > level_mm) {
        float median = 0.0f;
        for (int i = 0; i < cells; ++i) {
            const int pixel = pixel_of(i);
            if (!part[pixel]) continue;
            const float z = points[3 * pixel + 2];
            int below = 0, upto = 0;
            for (int j = 0; j < cells; ++j) {
                const int other = pixel_of(j);
                if (!part[other]) continue;
                below += points[3 * other + 2] < z;
                upto += points[3 * other + 2] <= z;
            }
            if (below <= members / 2 && members / 2 < upto) {
                median = z;
                break;
            }
        }
        members = 0;
        sums[0] = sums[1] = sums[2] = 0.0;
        for (int i = 0; i < cells; ++i) {
            const int pixel = pixel_of(i);
            if (!part[pixel] || fabs(double{points[3 * pixel + 2]} - median) > 0.5 * level_mm) continue;
            ++members;
            for (int a = 0; a < 3; ++a) sums[a] += points[3 * pixel + a];
        }
    }
    for (int a = 0; a < 3; ++a) cloud[3 * at + a] = static_cast<float>(sums[a] / max(members, 1));
}
SIMT_KERNEL(cloud_means)

// Patches left to be judged: all but those more than half covered by the recipe's mask.
//   covered      H x W u1, 0: none. inspect: grid^2 u1. Launch: one warp a patch. Bound: 1 byte a pixel of the window.
extern "C" __global__ void __launch_bounds__(256) inspect_patches(const unsigned char* covered, int height_px, int width_px, const int* figures, int side, int grid, unsigned char* inspect) {
    using namespace window;
    const int lane = threadIdx.x % 32, patch = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (patch >= grid * grid) return;
    const Window corner = window_of(figures, side);
    const int row0 = first_of(patch / grid, grid, side), row1 = first_of(patch / grid + 1, grid, side);
    const int column0 = first_of(patch % grid, grid, side), column1 = first_of(patch % grid + 1, grid, side);
    const int wide = column1 - column0, cells = (row1 - row0) * wide;
    int hidden = 0;
    for (int i = lane; covered && i < cells; i += 32) {
        const int row = corner.y + row0 + i / wide, column = corner.x + column0 + i % wide;
        if (row >= 0 && row < height_px && column >= 0 && column < width_px) hidden += covered[row * width_px + column] != 0;
    }
    for (int d = 16; d; d /= 2) hidden += __shfl_xor_sync(FULL_WARP, hidden, d);
    if (lane == 0) inspect[patch] = 2 * hidden <= cells;
}
SIMT_KERNEL(inspect_patches)
