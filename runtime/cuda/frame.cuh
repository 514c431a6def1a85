// What the frame's kernels share: the figures that they leave for each other, and the place of the window.
#pragma once
#include "common.cuh"

namespace preprocess {

// Figures that the frame's kernels leave for each other and for the host: i4 each, cleared by begin_frame.
enum Figure { PART, FILLED, ROW_FIRST, ROW_LAST, COLUMN_FIRST, COLUMN_LAST, BORDER_SEEN, BORDER_OFF, VALID, BLOCKS_DONE, FIGURES = 16 };

struct Window { int x, y; };  // the window's first column and row; may be negative

// The square of `side` centred on the part's box, halves rounded down.
__device__ inline Window window_of(const int* figures, int side) {
    if (figures[PART] < 1) return {0, 0};
    const int x = figures[COLUMN_FIRST] + figures[COLUMN_LAST] + 1 - side, y = figures[ROW_FIRST] + figures[ROW_LAST] + 1 - side;
    return {x >> 1, y >> 1};
}

}  // namespace preprocess
