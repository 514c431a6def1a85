// Queries of a frame, ready for the search: which rows, standardised, centred, rounded to half with their error.
#include "nearest.cuh"

// Which of `total` rows are searched: list[0..count) ascending where mask is not 0 (all rows where mask is null).
// Resets the counters, and the image distance of the frame before to NaN and its neighbours to -1, so that nothing of it can
// be taken for this frame's. One block of 1024 threads; total <= 2^31 - 1024.
extern "C" __global__ void __launch_bounds__(1024) nearest_select(
    const unsigned char* mask, int total, int* list, int* count, int* stats, int* neighbours, float* image_distance) {
    __shared__ int before[33];
    int t = threadIdx.x, warp = t / 32;
    int base = 0;
    for (int start = 0; start < total; start += 1024) {
        int i = start + t;
        bool chosen = i < total && (mask == nullptr || mask[i] != 0);
        unsigned votes = __ballot_sync(FULL_WARP, chosen);
        if (t % 32 == 0) before[warp + 1] = __popc(votes);
        __syncthreads();
        if (t == 0) {
            before[0] = 0;
            for (int w = 1; w <= 32; ++w) before[w] += before[w - 1];
        }
        __syncthreads();
        if (chosen) list[base + before[warp] + __popc(votes & ((1u << (t % 32)) - 1))] = i;
        base += before[32];
        __syncthreads();
    }
    if (t == 0) {
        *count = base;
        *image_distance = NAN;
    }
    if (t < 3) neighbours[t] = -1;
    if (t < nearest::STATS) stats[t] = 0;
}
SIMT_KERNEL(nearest_select)

// One warp a row r < max_rows: features[list[r]] (total x d float) -> queries[r] = (x - mean) * inverse_std (d floats),
// halves[r] = half((query - centre) * scale) (stride halfs, zero padded; in nearest::packed_place where `packed`), size[r] = |halves[r]|^2 and error[r] >= the
// length of what rounding took away. Rows from count on become zero rows. error is NaN where an input is not finite: such
// a row is never settled and never searched. Sets distance[r] = NaN and index[r] = -1: a result is born unknown.
extern "C" __global__ void __launch_bounds__(256) nearest_prepare(
    const float* features, const int* list, const int* count, const float* centre, float mean, float inverse_std, float scale,
    int d, int stride, int packed, int max_rows, float* queries, half* halves, float* size, float* error, float* distance, int* index) {
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= max_rows) return;
    bool real = row < *count;
    const float* from = features + static_cast<size_t>(real ? list[row] : 0) * d;
    float* query = queries + static_cast<size_t>(row) * d;
    bool finite = true;
    for (int i = lane; i < d && real; i += 32) finite &= isfinite(from[i]) && isfinite((from[i] - mean) * inverse_std);
    finite = __all_sync(FULL_WARP, finite);
    float squares = 0.0f, lost = 0.0f, before = 0.0f;
    for (int i = lane; i < stride; i += 32) {
        float x = i < d && real && finite ? (from[i] - mean) * inverse_std : 0.0f;
        float moved = i < d && real && finite ? (x - centre[i]) * scale : 0.0f;
        half h = __float2half_rn(moved);
        float rounded = __half2float(h);
        float rest = moved - rounded;
        if (i < d) query[i] = x;
        if (!isfinite(rounded)) h = __float2half_rn(0.0f);  // `rest` is infinite: the row goes to the float32 pass
        halves[packed ? nearest::packed_place(row, i, stride) : static_cast<size_t>(row) * stride + i] = h;
        squares = fmaf(rounded, rounded, squares);
        lost = fmaf(rest, rest, lost);
        before = fmaf(moved, moved, before);
    }
    for (int s = 16; s; s /= 2) {
        squares += __shfl_xor_sync(FULL_WARP, squares, s);
        lost += __shfl_xor_sync(FULL_WARP, lost, s);
        before += __shfl_xor_sync(FULL_WARP, before, s);
    }
    if (lane) return;
    size[row] = squares;
    // Sums of squares in float32 are right to about d 2^-24; the second term is the rounding of query - centre.
    error[row] = finite ? sqrtf(lost) * 1.001f + sqrtf(before) * 2.4e-7f : NAN;
    distance[row] = NAN;
    index[row] = -1;
}
SIMT_KERNEL(nearest_prepare)
