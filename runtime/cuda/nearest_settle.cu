// From candidates to the answer: merge the splits' lists, measure candidates in float64, and prove or pass on.
#include "nearest.cuh"

namespace nearest {

// The best KEPT keys of one row over all splits, in every lane.
__device__ inline void merge(const Key* best, const Split& work, int row, int tile_rows, Key (&found)[KEPT]) {
    Key list[KEPT] = {EMPTY, EMPTY, EMPTY, EMPTY};
    int tile = row / tile_rows, within = row % tile_rows;
    for (int i = threadIdx.x % 32; i < work.splits * KEPT; i += 32) {
        size_t at = static_cast<size_t>(tile * work.splits + i / KEPT) * tile_rows + within;
        add_own(list, best[at * KEPT + i % KEPT]);
    }
    warp_best(list, found);
}

}  // namespace nearest

// One warp a query r < *count: distance[r] and index[r] of its nearest bank row.
//
// With q', b' the rounded vectors and d' = |q' - b'| (from the tensor cores' sums, themselves wrong by at most
// `sum_error` in the squared distance), | d' - scale |q - b| | <= error[r] + bank_error by the triangle inequality. Every
// row that is no candidate has d' >= that of the last candidate; if even less both errors that is farther than the best
// candidate's true distance, the best candidate is the nearest row. Else the row is listed in `unsettled` for the
// float32 pass. sum_error = sum_relative (|q'| bank_length + bank_length^2 / 2) bounds any order of the sums.
// A row that is not finite keeps NaN and -1 and is counted. `blocks` and `tile_bank` are the ranking kernel's own.
extern "C" __global__ void __launch_bounds__(256) nearest_settle(
    const unsigned long long* best, const int* count, int n, int blocks, int tile_bank, const float* queries, const float* bank, int d, float scale,
    const float* size, const float* error, float bank_error, float bank_length, float sum_relative, float* distance, int* index,
    int* unsettled, int* stats) {
    using namespace nearest;
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= *count) return;
    if (isnan(error[row])) {
        if (lane == 0) atomicAdd(stats + NOT_FINITE, 1);
        return;
    }
    Split work(*count, n, TILE_ROWS, tile_bank, blocks);
    Key found[KEPT];
    merge(best, work, row, TILE_ROWS, found);
    double length = sqrt(static_cast<double>(size[row]));
    double sum_error = sum_relative * (length * bank_length + 0.5 * bank_length * bank_length) + 1e-5 * length * length;
    double apart = static_cast<double>(error[row]) + bank_error;
    double nearest_squared = INFINITY;
    int nearest_index = -1;
    bool settled = true;
#pragma unroll
    for (int i = 0; i < KEPT; ++i) settled &= i >= n || found[i] != EMPTY;  // one is missing only where sums went wrong
    for (int i = 0; i < KEPT && found[i] != EMPTY; ++i) {
        double squared = 2.0 * value_of(found[i]) + size[row] - 2.0 * sum_error;
        double at_least = sqrt(squared > 0.0 ? squared : 0.0) - apart;  // of this and of all candidates behind it
        if (at_least > scale * sqrt(nearest_squared) * (1.0 + 1e-9)) break;
        double measured = warp_squared(queries + static_cast<size_t>(row) * d, bank + static_cast<size_t>(index_of(found[i])) * d, d);
        if (measured < nearest_squared || (measured == nearest_squared && index_of(found[i]) < nearest_index)) {
            nearest_squared = measured;
            nearest_index = index_of(found[i]);
        }
        // Behind the last candidate stand rows that were not kept, none nearer in d' than it.
        if (i == KEPT - 1 && n > KEPT) settled &= at_least > scale * sqrt(nearest_squared) * (1.0 + 1e-9);
    }
    if (lane) return;
    if (!settled) {
        unsettled[atomicAdd(stats + UNSETTLED, 1)] = row;
        return;
    }
    distance[row] = static_cast<float>(sqrt(nearest_squared));
    index[row] = nearest_index;
}
SIMT_KERNEL(nearest_settle)

// The same behind nearest_exact for the rows it searched (rows[0..*count), or 0..*count where rows is null). Its squared
// distances are right to `relative`; where more than KEPT rows lie within that of the nearest, the distance is right to
// `relative` and the index that of one of them: such rows are counted.
extern "C" __global__ void __launch_bounds__(256) nearest_exact_settle(
    const unsigned long long* best, const int* rows, const int* count, int n, int blocks, const float* queries, const float* bank,
    int d, const float* error, float relative, float* distance, int* index, int* stats) {
    using namespace nearest;
    int item = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= *count) return;
    int row = rows == nullptr ? item : rows[item];
    if (isnan(error[row])) {
        if (lane == 0) atomicAdd(stats + NOT_FINITE, 1);
        return;
    }
    Split work(*count, n, EXACT_ROWS, EXACT_ROWS, blocks);
    Key found[KEPT];
    merge(best, work, item, EXACT_ROWS, found);
    double nearest_squared = INFINITY;
    int nearest_index = -1;
    for (int i = 0; i < KEPT && found[i] != EMPTY; ++i) {
        double measured = warp_squared(queries + static_cast<size_t>(row) * d, bank + static_cast<size_t>(index_of(found[i])) * d, d);
        if (nearest_index < 0 || measured < nearest_squared || (measured == nearest_squared && index_of(found[i]) < nearest_index)) {
            nearest_squared = measured;
            nearest_index = index_of(found[i]);
        }
    }
    if (lane) return;
    if (nearest_index < 0) {
        atomicAdd(stats + NO_CANDIDATE, 1);
        return;
    }
    if (n > KEPT && value_of(found[KEPT - 1]) <= nearest_squared * (1.0 + 2.0 * relative)) atomicAdd(stats + WITHIN_MARGIN, 1);
    distance[row] = static_cast<float>(sqrt(nearest_squared));
    index[row] = nearest_index;
}
SIMT_KERNEL(nearest_exact_settle)
