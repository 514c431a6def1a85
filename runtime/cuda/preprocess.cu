// A frame to its part: points, background, largest component, outline, figures of the silhouette (asperity.runtime.vision.units,
// preprocess, regions); window.cu goes on from there. H x W is the source frame; all of it is deterministic: what is
// accumulated across threads is counted in integers.
#include "faults.cuh"
#include "frame.cuh"
#include "geometry.cuh"
#include "keys.cuh"
#include "labels.cuh"

namespace preprocess {

using keys::Key;

constexpr int BORDER_PX = 10;
constexpr float FARTHEST_MM = 1e5f;
constexpr int DIGITS = 2048, PASSES = 3, RANKS = 4;
__device__ inline int shift_of(int pass) { return pass == 0 ? 21 : pass == 1 ? 10 : 0; }
__device__ inline unsigned digit_of(unsigned bits, int pass) { return bits >> shift_of(pass) & (pass == 2 ? 1023u : 2047u); }

// Plane through normal . p + offset = 0 in mm, products and sums rounded one by one.
__device__ inline float height(float3 p, float4 plane) { return p.x * plane.x + p.y * plane.y + p.z * plane.z + plane.w; }

struct Cut {
    float4 plane;
    float above_mm, moved_mm;
    int by_plane;
};

// What both kinds of frames share once a pixel is a point in mm.
__device__ void keep_point(int pixel, int height_px, int width_px, float3 p, bool valid, const Cut& cut, float* points, unsigned char* valid_out, unsigned char* foreground, int* figures, unsigned* fault) {
    const bool inside = pixel < height_px * width_px;
    float h = 0.0f;
    if (inside) {
        points[3 * pixel] = p.x, points[3 * pixel + 1] = p.y, points[3 * pixel + 2] = p.z;
        h = height(p, cut.plane);
        valid_out[pixel] = valid;
        foreground[pixel] = valid && (!cut.by_plane || h > cut.above_mm);
        if (valid && (!isfinite(p.x) || !isfinite(p.y) || !isfinite(p.z))) report(fault, FAULT_NOT_FINITE);
    }
    const int row = pixel / width_px, column = pixel % width_px;
    const bool edge = inside && valid && (row < BORDER_PX || row >= height_px - BORDER_PX || column < BORDER_PX || column >= width_px - BORDER_PX);
    const int seen = __syncthreads_count(edge), off = __syncthreads_count(edge && fabsf(h) > cut.moved_mm);
    const int all = __syncthreads_count(inside && valid);
    if (threadIdx.x == 0 && seen) atomicAdd(figures + BORDER_SEEN, seen);
    if (threadIdx.x == 0 && off) atomicAdd(figures + BORDER_OFF, off);
    if (threadIdx.x == 0 && all) atomicAdd(figures + VALID, all);
}

template <class Depth>
__device__ void from_depth(const Depth* depth, const float* rays, int height_px, int width_px, float scale, float offset, float invalid, int has_invalid, const Cut& cut, float* points, unsigned char* valid_out, unsigned char* foreground, int* figures, unsigned* fault) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    float3 p = make_float3(0.0f, 0.0f, 0.0f);
    bool valid = false;
    if (pixel < height_px * width_px) {
        const float stored = static_cast<float>(depth[pixel]);
        const float length = stored * scale + offset;
        const bool usable = length < FARTHEST_MM;  // false for NaN
        valid = stored != 0.0f && length > 0.0f && usable && !(has_invalid && stored == invalid);
        const float along = usable && length > -FARTHEST_MM ? length : 0.0f;
        p = make_float3(rays[3 * pixel] * along, rays[3 * pixel + 1] * along, rays[3 * pixel + 2] * along);
    }
    keep_point(pixel, height_px, width_px, p, valid, cut, points, valid_out, foreground, figures, fault);
}

// Sum of a count over the block, added by one thread. Every thread calls.
__device__ inline void count_block(bool here, int* to) {
    const int sum = __syncthreads_count(here);
    if (threadIdx.x == 0 && sum) atomicAdd(to, sum);
}

}  // namespace preprocess

// Clears what a frame accumulates. figures: 16 i4; best: one key of 8 bytes; digits: 3 x 4 x 2048 u4 of height_digits.
// Launch: any shape. Bound: latency (100 KB written).
extern "C" __global__ void begin_frame(int height_px, int width_px, int* figures, unsigned long long* best, unsigned* digits) {
    using namespace preprocess;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int i = thread; i < PASSES * RANKS * DIGITS; i += threads) digits[i] = 0;
    for (int i = thread; i < FIGURES; i += threads)
        figures[i] = i == ROW_FIRST ? height_px : i == COLUMN_FIRST ? width_px : i == ROW_LAST || i == COLUMN_LAST ? -1 : 0;
    if (thread == 0) *best = 0;
}
SIMT_KERNEL(begin_frame)

// A frame of points: mm, which are valid, which stand above the plane, and the border's count for CAMERA_MOVED.
//   xyz          H x W x 3 f4 as stored; farthest: 1e5 mm in stored units; scale, offset to mm; invalid: stored z
//   plane        unit normal and offset_mm; by_plane 0: everything valid is foreground
//   points       H x W x 3 f4 mm, finite; valid, foreground: H x W u1; figures: BORDER_SEEN, BORDER_OFF, VALID
// Launch: one thread a pixel, whole warps. Bound: reads 12, writes 14 bytes a pixel (8 MB at 640 x 480).
extern "C" __global__ void __launch_bounds__(256) points_from_xyz(const float* xyz, int height_px, int width_px, float farthest, float scale, float offset, float invalid, int has_invalid, float normal_x, float normal_y, float normal_z, float plane_mm, int by_plane, float above_mm, float moved_mm, float* points, unsigned char* valid, unsigned char* foreground, int* figures, unsigned* fault) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    float3 p = make_float3(0.0f, 0.0f, 0.0f);
    bool good = false;
    if (pixel < height_px * width_px) {
        const float3 stored = geometry::at(xyz, pixel);
        // 0 only where all are 0, NaN or infinite where any is.
        const float size = fabsf(stored.x) + fabsf(stored.y) + fabsf(stored.z);
        const bool usable = size < farthest;
        good = size > 0.0f && usable && !(has_invalid && stored.z == invalid);
        if (usable) p = stored;
        p = make_float3(p.x * scale + offset, p.y * scale + offset, p.z * scale + offset);
    }
    const preprocess::Cut cut{make_float4(normal_x, normal_y, normal_z, plane_mm), above_mm, moved_mm, by_plane};
    preprocess::keep_point(pixel, height_px, width_px, p, good, cut, points, valid, foreground, figures, fault);
}
SIMT_KERNEL(points_from_xyz)

// The same from depth along the optical axis. rays: H x W x 3 f4, z = 1 (asperity.runtime.vision.units.pixel_rays, uploaded once).
// Bound: reads 14 (u2) or 16 (f4) bytes a pixel, writes 14.
extern "C" __global__ void __launch_bounds__(256) points_from_depth_u16(const unsigned short* depth, const float* rays, int height_px, int width_px, float scale, float offset, float invalid, int has_invalid, float normal_x, float normal_y, float normal_z, float plane_mm, int by_plane, float above_mm, float moved_mm, float* points, unsigned char* valid, unsigned char* foreground, int* figures, unsigned* fault) {
    const preprocess::Cut cut{make_float4(normal_x, normal_y, normal_z, plane_mm), above_mm, moved_mm, by_plane};
    preprocess::from_depth(depth, rays, height_px, width_px, scale, offset, invalid, has_invalid, cut, points, valid, foreground, figures, fault);
}
SIMT_KERNEL(points_from_depth_u16)

extern "C" __global__ void __launch_bounds__(256) points_from_depth_f32(const float* depth, const float* rays, int height_px, int width_px, float scale, float offset, float invalid, int has_invalid, float normal_x, float normal_y, float normal_z, float plane_mm, int by_plane, float above_mm, float moved_mm, float* points, unsigned char* valid, unsigned char* foreground, int* figures, unsigned* fault) {
    const preprocess::Cut cut{make_float4(normal_x, normal_y, normal_z, plane_mm), above_mm, moved_mm, by_plane};
    preprocess::from_depth(depth, rays, height_px, width_px, scale, offset, invalid, has_invalid, cut, points, valid, foreground, figures, fault);
}
SIMT_KERNEL(points_from_depth_f32)

// One pass of a square window filter: out(y, x) = any (or all) of in over 2 radius + 1 pixels along one axis.
//   in           in_height x in_width u1; out: out_height x out_width u1; out(y, x) looks around in(y + shift_y, x + shift_x)
//   What lies outside of `in` counts as 0 for any. Passes over a frame with room around it make a closing
//   (asperity.runtime.vision.regions.closed): the room keeps the erosion from eating what touches the edge.
// Launch: one thread a pixel of out. Bound: 2 bytes a pixel, 2 radius + 1 reads from L1.
extern "C" __global__ void __launch_bounds__(256) window_filter(const unsigned char* in, int in_height, int in_width, unsigned char* out, int out_height, int out_width, int shift_y, int shift_x, int radius, int vertical, int all) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= out_height * out_width) return;
    const int y = pixel / out_width + shift_y, x = pixel % out_width + shift_x;
    bool result = all;
    for (int d = -radius; d <= radius; ++d) {
        const int row = vertical ? y + d : y, column = vertical ? x : x + d;
        const bool inside = row >= 0 && row < in_height && column >= 0 && column < in_width;
        const bool set = inside && in[row * in_width + column];
        result = all ? result && set : result || set;
    }
    out[pixel] = result;
}
SIMT_KERNEL(window_filter)

// Connected components in three launches of one thread a pixel, whole warps: start, join, settle (labels.cuh).
//   mask         H x W u1, taken as it is, or where it is 0 with inverted = 1
//   parent       H x W i4: in the end the lowest flat pixel of the component, -1 off the mask
//   sizes        H x W i4, cleared by label_start; diagonal 1: 8-connected
// Bound: about 10 bytes a pixel and pass; a join walks up short trees in L2.
extern "C" __global__ void __launch_bounds__(256) label_start(const unsigned char* mask, int inverted, int pixels, int width_px, int* parent, int* sizes) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    const bool here = pixel < pixels && (mask[pixel] != 0) != (inverted != 0);
    const int start = labels::run_start(here, pixel, width_px);
    if (pixel >= pixels) return;
    parent[pixel] = start;
    sizes[pixel] = 0;
}
SIMT_KERNEL(label_start)

extern "C" __global__ void __launch_bounds__(256) label_join(int pixels, int width_px, int diagonal, int* parent) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels || parent[pixel] < 0) return;
    labels::join_neighbours([parent](int at) { return parent[at] >= 0; }, parent, pixel, width_px, diagonal);
}
SIMT_KERNEL(label_join)

// Settles the labels and counts, in sizes[label], the pixels of `counted` (H x W u1); 0 counts none.
extern "C" __global__ void __launch_bounds__(256) label_settle(const unsigned char* counted, int pixels, int* parent, int* sizes) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    int label = -1;
    if (pixel < pixels && parent[pixel] >= 0) {
        label = labels::root(parent, pixel);
        parent[pixel] = label;
    }
    if (!counted) return;
    const bool counts = label >= 0 && counted[pixel];
    // Most warps lie within one component: one addition for all its lanes.
    const unsigned ballot = __ballot_sync(FULL_WARP, counts);
    if (!ballot) return;
    const int leader = __ffs(static_cast<int>(ballot)) - 1;
    const int common = __shfl_sync(FULL_WARP, label, leader);
    const bool alike = __all_sync(FULL_WARP, !counts || label == common);
    if (alike && static_cast<int>(threadIdx.x % 32) == leader) atomicAdd(sizes + common, __popc(ballot));
    if (!alike && counts) atomicAdd(sizes + label, 1);
}
SIMT_KERNEL(label_settle)

// The component with most counted pixels, ties to the one whose first pixel comes first: its key in *best.
// Launch: whole warps, any number of blocks. Bound: reads 4 bytes a pixel.
extern "C" __global__ void __launch_bounds__(256) largest_label(const int* sizes, int pixels, unsigned long long* best) {
    __shared__ keys::Key slots[32];
    keys::Key key = 0;
    for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
        const keys::Key mine = keys::largest_first(static_cast<unsigned>(sizes[pixel]), pixel);
        if (sizes[pixel] > 0 && mine > key) key = mine;
    }
    key = keys::block_max(key, slots);
    if (threadIdx.x == 0) atomicMax(best, key);
}
SIMT_KERNEL(largest_label)

// The part: foreground pixels of the largest component, with their number and box in figures. labels 0: all of them.
// Launch: one thread a pixel, whole warps. Bound: reads 5, writes 1 byte a pixel.
extern "C" __global__ void __launch_bounds__(256) keep_part(const unsigned char* foreground, const int* labels, const unsigned long long* best, int height_px, int width_px, unsigned char* part, int* figures) {
    using namespace preprocess;
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    bool here = pixel < height_px * width_px && foreground[pixel];
    if (here && labels) here = labels[pixel] == static_cast<int>(keys::index_of(*best));
    if (pixel < height_px * width_px) part[pixel] = here;
    const int row = pixel / width_px, column = pixel % width_px;
    int edges[4] = {here ? row : height_px, here ? -row : 1, here ? column : width_px, here ? -column : 1};
    for (int& edge : edges)
        for (int d = 16; d; d /= 2) edge = min(edge, __shfl_xor_sync(FULL_WARP, edge, d));
    if (threadIdx.x % 32 == 0 && edges[0] < height_px) {
        // The box only ever grows: whoever does not widen what is there already has nothing to add.
        if (edges[0] < __ldcg(figures + ROW_FIRST)) atomicMin(figures + ROW_FIRST, edges[0]);
        if (-edges[1] > __ldcg(figures + ROW_LAST)) atomicMax(figures + ROW_LAST, -edges[1]);
        if (edges[2] < __ldcg(figures + COLUMN_FIRST)) atomicMin(figures + COLUMN_FIRST, edges[2]);
        if (-edges[3] > __ldcg(figures + COLUMN_LAST)) atomicMax(figures + COLUMN_LAST, -edges[3]);
    }
    count_block(here, figures + PART);
}
SIMT_KERNEL(keep_part)

// Components of what is not inside that touch the frame's edge are open: sizes[label] = 1 (after label_settle with 0).
// Launch: one thread for each of 2 (H + W) edge pixels.
extern "C" __global__ void __launch_bounds__(256) mark_open(const int* labels, int height_px, int width_px, int* sizes) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    int row, column;
    if (i < 2 * width_px) {
        row = i < width_px ? 0 : height_px - 1, column = i % width_px;
    } else if (i < 2 * (width_px + height_px)) {
        const int j = i - 2 * width_px;
        row = j % height_px, column = j < height_px ? 0 : width_px - 1;
    } else {
        return;
    }
    const int label = labels[row * width_px + column];
    if (label >= 0) atomicOr(sizes + label, 1);
}
SIMT_KERNEL(mark_open)

// The part with its missing points: closed gaps and enclosed holes, except where a valid point shows background.
//   inside       H x W u1, the closed part; labels, open: components of what is not inside, as mark_open leaves them
// Launch: one thread a pixel, whole warps. Bound: 8 bytes a pixel.
extern "C" __global__ void __launch_bounds__(256) fill_outline(const unsigned char* part, const unsigned char* valid, const unsigned char* inside, const int* labels, const int* open, int pixels, unsigned char* filled, int* figures) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    bool here = false;
    if (pixel < pixels) {
        const bool enclosed = inside[pixel] || !open[labels[pixel]];
        here = part[pixel] || (enclosed && !valid[pixel]);
        filled[pixel] = here;
    }
    preprocess::count_block(here, figures + preprocess::FILLED);
}
SIMT_KERNEL(fill_outline)

// First and last pixel of the part in every row and every column: all that can lie on its convex hull.
//   ends         (2 H + 2 W) x 3 f4 mm: first of each row, last of each row, first of each column, last of each column;
//                NaN where a row or column has none. The host takes the smallest rectangle of these few thousand points.
// Launch: one warp a row or column. Bound: reads the mask twice, once across rows.
extern "C" __global__ void __launch_bounds__(256) part_ends(const unsigned char* part, const float* points, int height_px, int width_px, float* ends) {
    const int lane = threadIdx.x % 32, line = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (line >= height_px + width_px) return;
    const bool row = line < height_px;
    const int length = row ? width_px : height_px, step = row ? 1 : width_px, start = row ? line * width_px : line - height_px;
    int first = length, last = -1;
    for (int i = lane; i < length; i += 32)
        if (part[start + i * step]) first = min(first, i), last = i;
    for (int d = 16; d; d /= 2) {
        first = min(first, __shfl_xor_sync(FULL_WARP, first, d));
        last = max(last, __shfl_xor_sync(FULL_WARP, last, d));
    }
    if (lane >= 6) return;
    const int which = lane / 3, axis = lane % 3, at = start + (which ? last : first) * step;
    const int place = row ? which * height_px + line : 2 * height_px + which * width_px + line - height_px;
    ends[3 * place + axis] = last < 0 ? NAN : points[3 * at + axis];
}
SIMT_KERNEL(part_ends)

// Percentiles of the part's heights: one of three passes over 11, 11 and 10 bits of the heights as ordered integers.
//   digits       3 x 4 x 2048 u4, cleared by begin_frame; ranks: 2 x 4 u4 of prefixes and ranks left from pass to pass
//   low, high    quantiles, 0..1; the four ranks are those below and above each
//   heights      2 f8, after the third pass: both percentiles in mm, linear between neighbours
// Launch: three times, pass 0, 1, 2; whole warps, any number of blocks. Bound: 13 bytes a pixel and pass. Faults:
// NOT_FINITE, EMPTY.
extern "C" __global__ void __launch_bounds__(256) height_digits(const unsigned char* part, const float* points, int pixels, float normal_x, float normal_y, float normal_z, int pass, double low, double high, unsigned* digits, unsigned* ranks, int* figures, double* heights, unsigned* fault) {
    using namespace preprocess;
    __shared__ unsigned local[RANKS * DIGITS];
    __shared__ int last_block;
    const int count = figures[PART];
    if (count < 1) {
        if (threadIdx.x == 0 && blockIdx.x == 0) {
            report(fault, FAULT_EMPTY);
            heights[0] = heights[1] = NAN;
        }
        return;
    }
    for (unsigned i = threadIdx.x; i < RANKS * DIGITS; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const int above = pass == 0 ? 32 : shift_of(pass - 1);  // the bits that a prefix settles begin here
    for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
        if (!part[pixel]) continue;
        const float h = height(geometry::at(points, pixel), make_float4(normal_x, normal_y, normal_z, 0.0f));
        if (!isfinite(h)) report(fault, FAULT_NOT_FINITE);
        const unsigned bits = keys::ordered(h);
        for (int r = 0; r < RANKS; ++r)
            if (pass == 0 || bits >> above == ranks[r]) atomicAdd(local + r * DIGITS + digit_of(bits, pass), 1u);
    }
    __syncthreads();
    unsigned* whole = digits + pass * RANKS * DIGITS;
    for (unsigned i = threadIdx.x; i < RANKS * DIGITS; i += blockDim.x)
        if (local[i]) atomicAdd(whole + i, local[i]);
    // The block that comes last has everybody's counts.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last_block = atomicAdd(figures + BLOCKS_DONE, 1) == static_cast<int>(gridDim.x) * (pass + 1) - 1;
    __syncthreads();
    if (!last_block) return;
    __threadfence();
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (unsigned r = warp; r < RANKS; r += blockDim.x / 32) {
        const double at = (r < 2 ? low : high) * (count - 1);
        const unsigned rank = pass == 0 ? min(static_cast<unsigned>(at) + r % 2, static_cast<unsigned>(count - 1)) : ranks[RANKS + r];
        unsigned before = 0, digit = 0;
        for (unsigned start = 0; start < DIGITS; start += 32) {
            const unsigned here = __ldcg(whole + r * DIGITS + start + lane);
            unsigned upto = here;
            for (unsigned d = 1; d < 32; d *= 2) {
                const unsigned more = __shfl_up_sync(FULL_WARP, upto, d);
                if (lane >= d) upto += more;
            }
            const unsigned passed = __ballot_sync(FULL_WARP, before + upto > rank);
            if (passed) {
                const int found = __ffs(static_cast<int>(passed)) - 1;
                digit = start + found;
                before += __shfl_sync(FULL_WARP, upto - here, found);
                break;
            }
            before += __shfl_sync(FULL_WARP, upto, 31);
        }
        if (lane == 0) {
            ranks[r] = pass == 0 ? digit : ranks[r] << (pass == 2 ? 10 : 11) | digit;
            ranks[RANKS + r] = rank - before;
        }
    }
    __syncthreads();
    if (pass == PASSES - 1 && threadIdx.x < 2) {
        const double at = (threadIdx.x == 0 ? low : high) * (count - 1);
        const double under = keys::from_ordered(ranks[2 * threadIdx.x]), over = keys::from_ordered(ranks[2 * threadIdx.x + 1]);
        heights[threadIdx.x] = under + (over - under) * (at - static_cast<unsigned>(at));
    }
}
SIMT_KERNEL(height_digits)
