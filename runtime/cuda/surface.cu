// The part's surface as a picture for the colour network (asperity.runtime.vision.surface_grid, surface_picture): the window's points,
// averaged in boxes, normals, heights above the surroundings, 8-bit levels. S: the grid's side; window.cu makes its points
// (cloud_means) and resizes the levels as Pillow does.
#include "faults.cuh"
#include "frame.cuh"
#include "geometry.cuh"
#include "surface.cuh"

namespace surface {

constexpr int TANGENT_STEP = 2;

struct Moments { double n, r, rr, s, rs; };  // of a column: 1, row, row^2, height, row x height, each over present cells

// The tangent at a cell from the cells `step` places before and behind it in memory, where they are there and level with it.
__device__ inline bool tangent(const float4* means, int at, int step, bool before, bool behind, float limit, float3& out) {
    const float4 here = means[at];
    bool any = false;
    out = make_float3(0.0f, 0.0f, 0.0f);
    for (int side = 1; side >= 0; --side) {
        if (!(side ? behind : before)) continue;
        const float4 other = means[side ? at + step : at - step];
        if (here.w == 0.0f || other.w == 0.0f || !(fabsf(here.z - other.z) <= limit)) continue;
        const float sign = side ? 1.0f : -1.0f;
        out.x += sign * (other.x - here.x), out.y += sign * (other.y - here.y), out.z += sign * (other.z - here.z);
        any = true;
    }
    return any;
}

}  // namespace surface

// The mean of the grid's points, which all sums are taken relative to.
//   cells        S x S x 3 f4 mm, (0, 0, 0) where empty; centre: 4 f4, the last 0
// Launch: one block of whole warps. Sums in float64 in a fixed tree. Bound: one multiprocessor's reads of 12 S^2 bytes.
extern "C" __global__ void __launch_bounds__(1024) surface_centre(const float* cells, int size, float4* centre) {
    __shared__ double slots[32];
    double sums[4] = {};
    for (int at = threadIdx.x; at < size * size; at += blockDim.x) {
        const float3 p = geometry::at(cells, at);
        if (!geometry::is_point(p)) continue;
        sums[0] += p.x, sums[1] += p.y, sums[2] += p.z, sums[3] += 1.0;
    }
    for (int i = 0; i < 4; ++i) sums[i] = reduce::block_sum(sums[i], slots);
    const double count = sums[3] > 0.0 ? sums[3] : 1.0;
    if (threadIdx.x == 0)
        *centre = make_float4(static_cast<float>(sums[0] / count), static_cast<float>(sums[1] / count), static_cast<float>(sums[2] / count), 0.0f);
}
SIMT_KERNEL(surface_centre)

// Sums of each column's `width` cells around every cell, relative to the centre, in the CPU's order.
//   sums         S x S x 4 f4: x, y, z, number of points; ends: S x S x 2 f4: least and largest z
// Launch: one thread a cell. Bound: 12 width bytes a cell from L1.
extern "C" __global__ void __launch_bounds__(256) surface_columns(const float* cells, const float4* centre, int size, int width, float4* sums, float2* ends) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const int row = at / size, column = at % size, half = width / 2;
    const float4 middle = *centre;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float low = INFINITY, high = -INFINITY;
    for (int r = max(row - half, 0); r <= min(row + half, size - 1); ++r) {
        const float3 p = geometry::at(cells, r * size + column);
        if (!geometry::is_point(p)) continue;
        const float z = p.z - middle.z;
        sum.x += p.x - middle.x, sum.y += p.y - middle.y, sum.z += z, sum.w += 1.0f;
        low = fminf(low, z), high = fmaxf(high, z);
    }
    sums[at] = sum;
    ends[at] = make_float2(low, high);
}
SIMT_KERNEL(surface_columns)

// Means of boxes of `width`; where a box spans levels, of the middle's level alone.
//   filled       H x W u1, the part with its missing points; figures, side: the window; block: its pixels a cell
//   least        points that a box needs; level_mm: depths further apart are on different levels
//   means        S x S x 4 f4: x, y, z mm and 1 where there is a mean, else 0, 0, 0, 0
// Launch: one thread a cell. Bound: 24 width bytes a cell from L1; at an edge width^2 points. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) surface_means(const float* cells, const float4* centre, const float4* sums, const float2* ends, const unsigned char* filled, int height_px, int width_px, const int* figures, int side, int block, int size, int width, float least, float level_mm, float4* means, unsigned* fault) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const int row = at / size, column = at % size, half = width / 2;
    const float4 middle = *centre;
    const preprocess::Window corner = preprocess::window_of(figures, side);
    const float3 own = geometry::at(cells, at);
    const int y = corner.y + row * block, x = corner.x + column * block;
    const bool valid = geometry::is_point(own);
    if (!is_coordinate(own)) report(fault, FAULT_NOT_FINITE);
    const bool part = valid || (y >= 0 && y < height_px && x >= 0 && x < width_px && filled[y * width_px + x]);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float low = INFINITY, high = -INFINITY;
    for (int c = max(column - half, 0); c <= min(column + half, size - 1); ++c) {
        const float4 s = sums[row * size + c];
        const float2 e = ends[row * size + c];
        sum.x += s.x, sum.y += s.y, sum.z += s.z, sum.w += s.w;
        low = fminf(low, e.x), high = fmaxf(high, e.y);
    }
    bool present = part && sum.w >= least;
    if (present && high - low > level_mm) {
        sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float depth = own.z - middle.z;
        for (int r = max(row - half, 0); valid && r <= min(row + half, size - 1); ++r)
            for (int c = max(column - half, 0); c <= min(column + half, size - 1); ++c) {
                const float3 p = geometry::at(cells, r * size + c);
                if (!geometry::is_point(p) || !(fabsf(p.z - middle.z - depth) <= 0.5f * level_mm)) continue;
                sum.x += p.x - middle.x, sum.y += p.y - middle.y, sum.z += p.z - middle.z, sum.w += 1.0f;
            }
        present = sum.w > 0.0f;
    }
    const float count = fmaxf(sum.w, 1.0f);
    means[at] = present ? make_float4(sum.x / count + middle.x, sum.y / count + middle.y, sum.z / count + middle.z, 1.0f) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
SIMT_KERNEL(surface_means)

// Normals from tangents over two cells on either side, on one side where the other has no level point.
//   up           a unit vector towards the sensor; limit_mm: depths further apart are on different levels
//   normals      S x S x 4 f4: a unit vector of either sign and 1, or 0, 0, 0, 0 where there is none
//   towards      one f8 a block: sum of the normals' lengths along `up`; its total's sign is that of all normals
// Launch: 256 threads, one a cell. Bound: 80 bytes a cell.
extern "C" __global__ void __launch_bounds__(256) surface_normals(const float4* means, int size, float limit_mm, float ux, float uy, float uz, float4* normals, double* towards) {
    using namespace surface;
    __shared__ double slots[32];
    const int at = blockIdx.x * blockDim.x + threadIdx.x, row = at / size, column = at % size;
    double along = 0.0;
    if (at < size * size) {
        float3 a, d;
        const bool across = tangent(means, at, TANGENT_STEP, column >= TANGENT_STEP, column + TANGENT_STEP < size, limit_mm, a);
        const bool down = tangent(means, at, TANGENT_STEP * size, row >= TANGENT_STEP, row + TANGENT_STEP < size, limit_mm, d);
        const float x = a.y * d.z - a.z * d.y, y = a.z * d.x - a.x * d.z, z = a.x * d.y - a.y * d.x;
        const float length = sqrtf(x * x + y * y + z * z);
        const bool sloped = across && down && length > 0.0f;
        const float scale = sloped ? 1.0f / fmaxf(length, 1e-30f) : 0.0f;
        normals[at] = make_float4(x * scale, y * scale, z * scale, sloped ? 1.0f : 0.0f);
        if (sloped) along = x * ux + y * uy + z * uz;
    }
    along = reduce::block_sum(along, slots);
    if (threadIdx.x == 0) towards[blockIdx.x] = along;
}
SIMT_KERNEL(surface_normals)

// For heights above the surroundings: moments of each column's `width` cells, in float64. Rows count from the middle.
//   moments      S x S x 5 f8. Launch: one thread a cell. Bound: 5 width float64 sums a cell.
extern "C" __global__ void __launch_bounds__(256) surface_moments(const float4* means, const float4* centre, int size, int width, float ux, float uy, float uz, surface::Moments* moments) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const int row = at / size, column = at % size, half = width / 2;
    const float level = surface::height_of(*centre, ux, uy, uz);
    surface::Moments sum = {};
    for (int r = max(row - half, 0); r <= min(row + half, size - 1); ++r) {
        const float4 p = means[r * size + column];
        if (p.w == 0.0f) continue;
        const double y = r - 0.5 * (size - 1), z = double{surface::height_of(p, ux, uy, uz)} - level;
        sum.n += 1.0, sum.r += y, sum.rr += y * y, sum.s += z, sum.rs += z * y;
    }
    moments[at] = sum;
}
SIMT_KERNEL(surface_moments)

// The picture's 8-bit levels, black where there is no normal.
//   towards      `blocks` f8 as surface_normals leaves them; relief: 1 for slopes and height above the plane that fits the
//                box of `width` best (moments), 0 for the normal's components (moments may be 0)
//   c, s         each channel's value in the middle of the range, and its scale
//   levels       S x S x 3 u1
// Launch: 256 threads, one a cell. Bound: with relief 5 width float64 values a cell from L2. Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) surface_levels(const float4* means, const float4* normals, const double* towards, int blocks, const surface::Moments* moments, const float4* centre, int size, int width, int relief, float ux, float uy, float uz, float c0, float c1, float c2, float s0, float s1, float s2, unsigned char* levels, unsigned* fault) {
    using namespace surface;
    __shared__ double slots[32];
    const float sign = sign_of(towards, blocks, slots);
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * size) return;
    const float4 normal = normals[at];
    float channels[3] = {normal.x * sign, normal.y * sign, normal.z * sign};
    const float middles[3] = {c0, c1, c2}, scales[3] = {s0, s1, s2};
    if (relief) {
        const int row = at / size, column = at % size, half = width / 2;
        const float4 own = means[at];
        double n = 0, r = 0, c = 0, rr = 0, cc = 0, rc = 0, s = 0, rs = 0, cs = 0;
        for (int k = max(column - half, 0); k <= min(column + half, size - 1); ++k) {
            const Moments m = moments[row * size + k];
            const double x = k - 0.5 * (size - 1);
            n += m.n, r += m.r, rr += m.rr, s += m.s, rs += m.rs;
            c += x * m.n, cc += x * x * m.n, rc += x * m.r, cs += x * m.s;
        }
        n = n > 1.0 ? n : 1.0;
        r /= n, c /= n, s /= n;
        rr = rr / n - r * r + 1.0, cc = cc / n - c * c + 1.0, rc = rc / n - r * c, rs = rs / n - r * s, cs = cs / n - c * s;
        const double by = rr * cc - rc * rc, down = (rs * cc - cs * rc) / by, across = (cs * rr - rs * rc) / by;
        const double plane = s + down * (row - 0.5 * (size - 1) - r) + across * (column - 0.5 * (size - 1) - c);
        const double height = double{height_of(own, ux, uy, uz)} - height_of(*centre, ux, uy, uz);
        channels[2] = own.w != 0.0f ? static_cast<float>(height - plane) : 0.0f;
    }
    for (int k = 0; k < 3; ++k) {
        float t = channels[k] - middles[k];
        t = relief ? t / (fabsf(t) + scales[k]) : fminf(fmaxf(t / scales[k], -1.0f), 1.0f);
        if (!isfinite(channels[k])) report(fault, FAULT_NOT_FINITE);
        const bool there = normal.w != 0.0f && isfinite(channels[k]);
        levels[3 * at + k] = there ? static_cast<unsigned char>(rintf(127.5f * (t + 1.0f))) : 0;
    }
}
SIMT_KERNEL(surface_levels)
