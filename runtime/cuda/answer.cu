// What a frame's chain needs between its stages: distances back to their tokens, networks' outputs looked at, and all that
// the host wants to know in one piece.
#include "faults.cuh"

namespace answer {

struct Piece {
    unsigned long long from;  // an address of the device
    int nbytes, to;           // to: offset in the packed answer, a multiple of 4
};

}  // namespace answer

// Distances of the tokens that were searched, laid back on all tokens; 0 where a token was not searched.
//   distance, list   most f4 and i4: the *count searched tokens' distances and numbers, numbers ascending (nearest_select)
//   placed           tokens f4; NaN everywhere where *count cannot be, so that nothing rests on it
// Launch: one thread a token. Bound: latency (a binary search in L1). Faults: COUNT. Distances are passed on as they are.
extern "C" __global__ void __launch_bounds__(256) place_distances(const float* distance, const int* list, const int* count, int most, int tokens, float* placed, unsigned* fault) {
    const int token = blockIdx.x * blockDim.x + threadIdx.x, rows = *count;
    if (token >= tokens) return;
    if (rows < 0 || rows > most) {
        if (token == 0) report(fault, FAULT_COUNT);
        placed[token] = NAN;
        return;
    }
    int low = 0, high = rows;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (list[middle] < token) low = middle + 1;
        else high = middle;
    }
    placed[token] = low < rows && list[low] == token ? distance[low] : 0.0f;
}
SIMT_KERNEL(place_distances)

// Whether every value is a finite number. values: count f4. Launch: any shape. Bound: reads 4 bytes a value.
// Faults: NOT_FINITE.
extern "C" __global__ void __launch_bounds__(256) check_finite(const float* values, int count, unsigned* fault) {
    bool damaged = false;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) damaged |= !isfinite(values[i]);
    if (damaged) report(fault, FAULT_NOT_FINITE);
}
SIMT_KERNEL(check_finite)

// Pieces of the device's memory side by side, so that one copy brings them to the host.
//   pieces   one a block; out: what they are copied into. Sources are aligned to 4 bytes where they are 4 bytes or more.
// Launch: one block a piece. Bound: latency, then the bytes once read and once written.
extern "C" __global__ void __launch_bounds__(256) pack_pieces(const answer::Piece* pieces, unsigned char* out) {
    const answer::Piece piece = pieces[blockIdx.x];
    const unsigned char* from = reinterpret_cast<const unsigned char*>(piece.from);
    unsigned char* to = out + piece.to;
    const int words = piece.nbytes / 4;
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        reinterpret_cast<unsigned*>(to)[i] = reinterpret_cast<const unsigned*>(from)[i];
    for (int i = 4 * words + threadIdx.x; i < piece.nbytes; i += blockDim.x) to[i] = from[i];
}
SIMT_KERNEL(pack_pieces)
