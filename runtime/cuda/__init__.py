"""CUDA kernels of the frame path, how they are launched, and a CPU stand-in that runs the same sources.

``*.cu`` and ``*.cuh`` are the kernels; ``python -m asperity.runtime.cuda.build`` (or ``make kernels``) compiles them
into ``asperity.fatbin`` where there is nvcc, and ``pip install`` never tries to. Everything that launches takes a
``launch.Device``: ``driver.CudaDevice`` is a GPU (pycuda), ``shim.ShimDevice`` the CPU stand-in of the tests and of
``benchmarks/gpu/check.py --device cpu-shim``.

Writing a kernel that runs on both::

    #include "common.cuh"                                  // CUDA's names from either side; read its head
    namespace example {
    __device__ float twice(float x) { return 2.0f * x; }   // helpers in a namespace: all .cu files become one unit
    }
    extern "C" __global__ void __launch_bounds__(256) double_all(const float* in, float* out, int n) {
        __shared__ float tile[256];                        // static shared memory as usual
        DYNAMIC_SHARED(float, more);                       // instead of extern __shared__
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        tile[threadIdx.x] = i < n ? in[i] : 0.0f;
        __syncthreads();
        if (i < n) out[i] = example::twice(tile[threadIdx.x]);
    }
    SIMT_KERNEL(double_all)                                // after each kernel: how the stand-in finds it

and its test, with ``device = shim_of("example")`` (the fixture of ``tests/runtime/cuda/conftest.py``)::

    x = device.upload(values)                              # any numpy array; guard zones around it find stray writes
    y = device.alloc(values.nbytes)
    device.launch(Launch("double_all", grid=(4, 1, 1), block=(256, 1, 1), shared_bytes=1024), x, y, np.int32(n))
    result = device.download(y, (n,), np.float32)

Scalars are numpy scalars of exactly the kernel's type. ``Launch(cluster=8)`` makes clusters of 8 blocks along x. The
order of threads is ``device.order``: 0 ascending, 1 descending, any other number a shuffle; run a test with several, a
missing __syncthreads or __syncwarp shows as different results. Out-of-range reads see NaN (all bits set). Blocks run
one after the other (those of a cluster together), so a kernel that waits for another block of the grid hangs there.
"""
