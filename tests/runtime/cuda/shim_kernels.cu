// Kernels that exercise the CPU stand-in itself: what must work, and what must be told.
#include "common.cuh"

extern "C" __global__ void reverse_in_block(const float* in, float* out) {
    __shared__ float tile[256];
    DYNAMIC_SHARED(float, more);
    int t = threadIdx.x, n = blockDim.x, base = blockIdx.x * n;
    tile[t] = in[base + t];
    more[n - 1 - t] = in[base + t];
    __syncthreads();
    out[base + t] = tile[n - 1 - t] + more[t];
}
SIMT_KERNEL(reverse_in_block)

extern "C" __global__ void reverse_without_barrier(const float* in, float* out) {
    __shared__ float tile[256];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}
SIMT_KERNEL(reverse_without_barrier)

extern "C" __global__ void warp_sums(const int* in, int* sums, unsigned* ballots, int* total) {
    int t = blockIdx.x * blockDim.x + threadIdx.x, v = in[t];
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL_WARP, v, d);
    unsigned odd = __ballot_sync(FULL_WARP, in[t] & 1);
    if (threadIdx.x % 32 < 8) {  // a part of a warp may go its own way
        int w = __shfl_down_sync(0xffu, in[t], 1);
        if (threadIdx.x % 32 == 0) sums[t / 32 * 2 + 1] = w;
    }
    if (threadIdx.x % 32 == 0) {
        sums[t / 32 * 2] = v;
        ballots[t / 32] = odd;
        atomicAdd(total, v);
    }
}
SIMT_KERNEL(warp_sums)

extern "C" __global__ void cluster_neighbour(const float* in, float* out) {
    __shared__ float own[64];
    DYNAMIC_SHARED(float, more);
    int t = threadIdx.x;
    own[t] = in[blockIdx.x * 64 + t];
    more[t] = 2 * own[t];
    cluster_sync();
    unsigned next = (cluster_rank() + 1) % cluster_size();
    float value = of_rank(own, next)[63 - t] + of_rank(more, next)[t];
    cluster_sync();
    of_rank(own, next)[t] = value;
    cluster_sync();
    out[blockIdx.x * 64 + t] = own[t];
}
SIMT_KERNEL(cluster_neighbour)

extern "C" __global__ void half_of_the_block_waits(int* out) {
    if (threadIdx.x < 16) __syncwarp(FULL_WARP);
    out[threadIdx.x] = __syncthreads_count(1);
    if (threadIdx.x >= 16) __syncwarp(FULL_WARP);
}
SIMT_KERNEL(half_of_the_block_waits)

extern "C" __global__ void early_return(int* out) {
    if (threadIdx.x >= 40) return;
    out[threadIdx.x] = __syncthreads_count(threadIdx.x & 1);
}
SIMT_KERNEL(early_return)

extern "C" __global__ void absent_lane(int* out) {
    if (threadIdx.x == 3) return;
    out[threadIdx.x] = __shfl_sync(FULL_WARP, 1, 0);
}
SIMT_KERNEL(absent_lane)

extern "C" __global__ void one_too_far(float* out, int n) { out[threadIdx.x] = static_cast<float>(n); }
SIMT_KERNEL(one_too_far)

extern "C" __global__ void staged(const float4* in, float4* out, int wait) {
    __shared__ float4 tile[32];
    tile[threadIdx.x] = make_float4(-1, -1, -1, -1);
    copy_async16(&tile[threadIdx.x], &in[threadIdx.x], threadIdx.x == 31 ? 8 : 16);
    copy_commit();
    if (wait) copy_wait<0>();
    __syncthreads();
    out[threadIdx.x] = tile[31 - threadIdx.x];
}
SIMT_KERNEL(staged)

extern "C" __global__ void through_half(const float* in, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = __half2float(__float2half_rn(in[i]));
}
SIMT_KERNEL(through_half)
