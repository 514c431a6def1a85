// Tensor-core instructions behind functions whose CPU version has the same fragments, rounding of inputs included.
//
//   mma::load4(r, row)       ldmatrix.x4: lane l points at row l % 8 of 8 x 8 half matrix l / 8; r[i] is matrix i's
//                            elements (l / 4, 2 (l % 4)) and the one right of it
//   mma::multiply(c, a, b)   c (16 x 8 float) += a (16 x 16 half, rows) x b (16 x 8 half, columns): m16n8k16, on sm_75
//                            two m16n8k8. With g = l / 4, t = l % 4: a = (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8), two
//                            neighbours each; b = (2t, g) (2t+8, g); c = (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
//
// Products are exact; sums are rounded towards zero as tensor cores do (Fasi et al. 2021, Numerical behavior of NVIDIA
// tensor cores), on the CPU after every 8 products. A kernel's error bound must hold for any order of the sums.
#pragma once

#include "common.cuh"

namespace mma {

#ifdef ASPERITY_SIMT

struct Matrices { const void* row; unsigned* r; };
inline void load4(unsigned (&r)[4], const void* row) {
    Matrices own{row, r};
    simt::warp_collective(FULL_WARP, [](void** lanes, unsigned) {
        unsigned found[32][4];
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) {
                auto* from = static_cast<const char*>(static_cast<Matrices*>(lanes[i * 8 + l / 4])->row);
                if (reinterpret_cast<uintptr_t>(from) % 16) simt::fail("ldmatrix from an address that is not a multiple of 16");
                std::memcpy(&found[l][i], from + l % 4 * 4, 4);
            }
        for (int l = 0; l < 32; ++l) std::memcpy(static_cast<Matrices*>(lanes[l])->r, found[l], sizeof found[l]);
    }, &own);
}

inline float towards_zero(double v) {
    auto f = static_cast<float>(v);
    return std::fabs(static_cast<double>(f)) > std::fabs(v) ? std::nextafterf(f, 0.0f) : f;
}

struct Product { float* c; const unsigned* a; const unsigned* b; };
inline void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Product own{c, a, b};
    simt::warp_collective(FULL_WARP, [](void** lanes, unsigned) {
        const float* value = simt::half_values();
        float left[16][16], right[8][16];
        for (int l = 0; l < 32; ++l) {
            auto* p = static_cast<Product*>(lanes[l]);
            int g = l / 4, t = l % 4;
            for (int e = 0; e < 2; ++e) {
                for (int i = 0; i < 4; ++i) left[g + i % 2 * 8][2 * t + i / 2 * 8 + e] = value[p->a[i] >> 16 * e & 0xffff];
                for (int i = 0; i < 2; ++i) right[g][2 * t + i * 8 + e] = value[p->b[i] >> 16 * e & 0xffff];
            }
        }
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) {
                const float* x = left[l / 4 + i / 2 * 8];
                const float* y = right[2 * (l % 4) + i % 2];
                float* sum = &static_cast<Product*>(lanes[l])->c[i];
                for (int k = 0; k < 16; k += 8) {
                    double part = *sum;
                    for (int j = k; j < k + 8; ++j) part += static_cast<double>(x[j] * y[j]);
                    *sum = towards_zero(part);
                }
            }
    }, &own);
}

#else

__device__ inline void load4(unsigned (&r)[4], const void* row) {
    unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ inline void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

#endif

}  // namespace mma
