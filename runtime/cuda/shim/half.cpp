// Half precision for the stand-in, rounded as the device rounds.
#include "simt.hpp"

#include <cmath>
#include <memory>

namespace simt {

unsigned short to_half(float v) {
    uint32_t f = bits<uint32_t>(v), sign = f >> 16 & 0x8000, magnitude = f & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<unsigned short>(sign | 0x7e00);  // NaN
    if (magnitude >= 0x477ff000) return static_cast<unsigned short>(sign | 0x7c00);  // rounds to infinity
    if (magnitude < 0x38800000) {  // subnormal: a multiple of 2^-24, rounded by the float unit
        float scaled = bits<float>(magnitude) * 16777216.0f;
        return static_cast<unsigned short>(sign | static_cast<uint32_t>(std::nearbyint(scaled)));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return static_cast<unsigned short>(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13));
}

const float* half_values() {
    static const std::unique_ptr<float[]> table = [] {
        auto values = std::make_unique<float[]>(65536);
        for (uint32_t h = 0; h < 65536; ++h) {
            uint32_t exponent = h >> 10 & 31, fraction = h & 0x3ff;
            float v = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent ? std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25)
                                 : std::ldexp(static_cast<float>(fraction), -24);
            values[h] = h & 0x8000 ? -v : v;
        }
        return values;
    }();
    return table.get();
}

}  // namespace simt
