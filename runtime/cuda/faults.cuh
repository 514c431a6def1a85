// The fault word: every kernel takes one, only ever sets bits in it, and the host turns any bit into an unknown result.
#pragma once
#include "common.cuh"

constexpr unsigned FAULT_NOT_FINITE = 1;  // an input or a result is not a finite number, or is beyond COORDINATE_LIMIT
constexpr unsigned FAULT_COUNT = 2;       // a device integer (points, patches) is outside its buffer
constexpr unsigned FAULT_EMPTY = 4;       // empty input: no point, no scored patch
constexpr unsigned FAULT_INDEX = 8;       // an index points outside its table
constexpr unsigned FAULT_SHAPE = 16;      // shapes given at launch do not fit each other

// Beyond 1 km a coordinate in mm is no measurement, and squares of differences stay far from overflow below it.
constexpr float COORDINATE_LIMIT = 1e6f;

__device__ inline void report(unsigned* fault, unsigned bits) { atomicOr(fault, bits); }

// False for NaN and infinity too.
__device__ inline bool is_coordinate(float v) { return fabsf(v) <= COORDINATE_LIMIT; }
__device__ inline bool is_coordinate(float3 p) { return is_coordinate(p.x) && is_coordinate(p.y) && is_coordinate(p.z); }
