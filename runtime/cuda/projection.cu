// Features projected before they are searched (asperity.runtime.vision.distances.ModalityBank.standardised).
#include "faults.cuh"

namespace projection {

constexpr int TILE = 32, ROWS = 4;  // a block makes 32 x 32 values; a thread those of 4 tokens in one column

}  // namespace projection

// Standardised features times a matrix: out = ((features - mean) * inverse_std) projection, float32.
//   features     tokens x channels f4; mask: tokens u1, 0 where a token is not searched
//   projection   channels x columns f4
//   out          tokens x columns f4; NaN where the mask is 0, so that nothing can rest on such a row
// Sums run over ascending channels with one rounding each, so equal tokens have equal rows on every chip.
// Launch: 256 threads a block, blockIdx.x 32 tokens, blockIdx.y 32 columns. Bound: 2 tokens channels columns flops (0.23
// Gflop at 784 x 384 x 384), from shared memory. Faults: NOT_FINITE (a feature that is not finite gives no finite row).
extern "C" __global__ void __launch_bounds__(256) project_features(const float* features, const unsigned char* mask, int tokens, float mean, float inverse_std, const float* projection, int channels, int columns, float* out, unsigned* fault) {
    using namespace projection;
    __shared__ float left[TILE][TILE], right[TILE][TILE];
    const int x = threadIdx.x % TILE, y = threadIdx.x / TILE, first = blockIdx.x * TILE, column = blockIdx.y * TILE + x;
    float sum[ROWS] = {};
    for (int channel = 0; channel < channels; channel += TILE) {
        __syncthreads();
        for (int i = 0; i < ROWS; ++i) {
            const int row = ROWS * y + i, token = first + row, from = channel + row;
            const bool wanted = token < tokens && channel + x < channels && mask[token];
            left[row][x] = wanted ? (features[static_cast<size_t>(token) * channels + channel + x] - mean) * inverse_std : 0.0f;
            right[row][x] = from < channels && column < columns ? projection[static_cast<size_t>(from) * columns + column] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < TILE; ++k)
            for (int i = 0; i < ROWS; ++i) sum[i] = fmaf(left[ROWS * y + i][k], right[k][x], sum[i]);
    }
    for (int i = 0; i < ROWS; ++i) {
        const int token = first + ROWS * y + i;
        if (token >= tokens || column >= columns) continue;
        const bool wanted = mask[token];
        if (wanted && !isfinite(sum[i])) report(fault, FAULT_NOT_FINITE);
        out[static_cast<size_t>(token) * columns + column] = wanted ? sum[i] : NAN;
    }
}
SIMT_KERNEL(project_features)
