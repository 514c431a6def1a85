// The other way: queries x rows products from the vendor's matrix product, a chunk of the bank at a time, and this
// reduction over each chunk while it is still in the L2 cache.
#include "nearest.cuh"

// products: count x chunk float, q b for bank rows first..first + chunk (those from n on are padding). Keeps the best
// KEPT keys of every query over all chunks so far in best[row * KEPT], which nearest_settle reads with blocks = 1.
// One warp a query; the first chunk (first == 0) starts the lists.
extern "C" __global__ void __launch_bounds__(256) nearest_product(
    const float* products, const float* half_norms, const int* count, int first, int chunk, int n, unsigned long long* best) {
    using namespace nearest;
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= *count) return;
    const float* own = products + static_cast<size_t>(row) * chunk;
    Key list[KEPT] = {EMPTY, EMPTY, EMPTY, EMPTY}, found[KEPT];
    Key limit = EMPTY;
    if (first > 0) {
        if (lane < KEPT) list[0] = best[static_cast<size_t>(row) * KEPT + lane];
        limit = __shfl_sync(FULL_WARP, list[0], KEPT - 1);
    }
    for (int i = lane; i < chunk && first + i < n; i += 32) {
        Key key = key_of(half_norms[first + i] - own[i], first + i);
        if (key < limit) {
            add_own(list, key);
            limit = list[KEPT - 1] < limit ? list[KEPT - 1] : limit;
        }
    }
    warp_best(list, found);
    if (lane < KEPT) best[static_cast<size_t>(row) * KEPT + lane] = lane == 0 ? found[0] : lane == 1 ? found[1] : lane == 2 ? found[2] : found[3];
}
SIMT_KERNEL(nearest_product)
