"""Exact nearest neighbours in a memory bank on the device (lsfa 7.2, 7.3): plans, buffers and launches.

The CPU counterpart is ``vision.nearest``. Four paths give the same answer: ``tensor`` (own kernel on tensor cores),
``wgmma`` (own kernel for compute capability 9.0), ``product`` (the vendor's matrix product in chunks, then a
reduction) and ``float32`` (own kernel, direct differences). All but the last rank rounded vectors, prove their winner
with an error bound, and send what they cannot prove through the last. The number of queries is known only on
the device, except for ``product``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.device_bank import (
    STAGE_CHANNELS,
    TILE_ROWS,
    WIDE_CHANNELS,
    WIDE_TILE,
    DeviceBank,
    Path,
    bank_arrays,
    up,
)
from asperity.runtime.cuda.launch import Buffer, Device, Enqueue, Launch
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray

# As in nearest.cuh.
KEPT = 4
EXACT_ROWS = 64
STATS = 4
TENSOR_SHARED_BYTES = 3 * 2 * TILE_ROWS * STAGE_CHANNELS * 2 + TILE_ROWS * KEPT * 8

WGMMA_SHARED_BYTES = 4 * 3 * TILE_ROWS * WIDE_CHANNELS * 2 + TILE_ROWS * KEPT * 8 + 2 * 4 * 8

WARPS = 8
"""Rows a block of the one-warp-a-row kernels."""

PRODUCT_CHUNK_BYTES = 24 * 2**20
"""Products kept at once: well inside the L2 cache of a large GPU (50 MB), beside the chunk of the bank itself."""

SCAN_BLOCKS = 256
REWEIGHTING_ROWS = 3


@dataclass(frozen=True, slots=True)
class NearestPlan:
    """Launches and buffer sizes of one search, from its sizes alone."""

    max_rows: int
    """Most queries a frame can have: the number of tokens."""
    n: int
    d: int
    multiprocessors: int
    path: Path

    @property
    def stride(self) -> int:
        """Channels of a padded half row of a query; a tensor bank's is cut to the same."""
        return up(self.d, WIDE_CHANNELS if self.path == "wgmma" else STAGE_CHANNELS)

    @property
    def tile_bank(self) -> int:
        """Bank rows of one tile of the ranking kernel."""
        return WIDE_TILE if self.path == "wgmma" else TILE_ROWS

    @property
    def tensor_blocks(self) -> int:
        """Two blocks live on a multiprocessor (128 registers a thread, 52 KiB); of wgmma one (198 KiB)."""
        return self.multiprocessors if self.path == "wgmma" else 2 * self.multiprocessors

    @property
    def exact_blocks(self) -> int:
        """Three blocks live on a multiprocessor (80 registers a thread)."""
        return 3 * self.multiprocessors

    @property
    def ranked_blocks(self) -> int:
        """What ``nearest_settle`` takes for the blocks that shared the bank; the product path's lists are whole."""
        return 1 if self.path == "product" else self.tensor_blocks

    @property
    def chunk(self) -> int:
        """Bank rows of one matrix product, a multiple of 128."""
        fitting = PRODUCT_CHUNK_BYTES // (4 * self.max_rows) // TILE_ROWS * TILE_ROWS
        return min(max(fitting, TILE_ROWS), up(self.n, TILE_ROWS))

    def buffers(self) -> dict[str, int]:
        """Bytes of every buffer, by name."""
        keys = max(
            _lists(self.max_rows, TILE_ROWS, self.tensor_blocks), _lists(self.max_rows, EXACT_ROWS, self.exact_blocks)
        )
        sizes = {
            "list": 4 * self.max_rows,
            "count": 4,
            "stats": 4 * STATS,
            "queries": 4 * self.max_rows * self.d,
            "halves": 2 * up(self.max_rows, TILE_ROWS) * self.stride,
            "size": 4 * up(self.max_rows, TILE_ROWS),
            "error": 4 * up(self.max_rows, TILE_ROWS),
            "distance": 4 * up(self.max_rows, TILE_ROWS),
            "index": 4 * up(self.max_rows, TILE_ROWS),
            "unsettled": 4 * self.max_rows,
            "keys": 8 * KEPT * keys,
            "worst": 8,
            "scan": 8 * KEPT * SCAN_BLOCKS,
            "neighbours": 4 * REWEIGHTING_ROWS,
            "image_distance": 4,
        }
        sizes["queries"] = 4 * up(self.max_rows, TILE_ROWS) * self.d
        if self.path == "product":
            sizes["products"] = 4 * self.max_rows * self.chunk
        return sizes

    def select(self) -> Launch:
        """One block: the ranks of chosen rows need no second pass."""
        return Launch("nearest_select", (1, 1, 1), (1024, 1, 1))

    def prepare(self) -> Launch:
        """A warp for every row of the padded buffers."""
        return _by_warp("nearest_prepare", up(self.max_rows, TILE_ROWS))

    def tensor(self) -> Launch:
        """As many blocks as the GPU holds; they share the tiles (``nearest::Split``)."""
        if self.path == "wgmma":
            return Launch("nearest_wgmma", (self.tensor_blocks, 1, 1), (384, 1, 1), WGMMA_SHARED_BYTES)
        return Launch("nearest_tensor", (self.tensor_blocks, 1, 1), (256, 1, 1), TENSOR_SHARED_BYTES)

    def product(self) -> Launch:
        """The reduction over one chunk."""
        return _by_warp("nearest_product", self.max_rows)

    def settle(self) -> Launch:
        """A warp for every query."""
        return _by_warp("nearest_settle", self.max_rows)

    def exact(self) -> Launch:
        """As many blocks as the GPU holds."""
        return Launch("nearest_exact", (self.exact_blocks, 1, 1), (256, 1, 1))

    def exact_settle(self) -> Launch:
        """A warp for every query that may have come."""
        return _by_warp("nearest_exact_settle", self.max_rows)

    def sum_relative(self) -> float:
        """Bound of the tensor cores' error of a sum, as a share of its terms' size, for any order and truncation."""
        return (1.5 * self.stride + 32) * 2.0**-23

    def exact_relative(self) -> float:
        """The same of the float32 pass's squared distances."""
        return (self.d + 8) * 2.0**-24


@dataclass(frozen=True, slots=True)
class NearestResult:
    """One search's answer on the host."""

    distance: FloatArray  # (M,) float32; NaN where the query was not finite
    index: NDArray[np.int32]  # (M,); -1 where there is no answer
    not_finite: int
    """Queries with a value that is not finite."""
    unsettled: int
    """Queries that the half-precision ranking could not prove and the float32 pass answered."""
    within_margin: int
    """Of those, queries with more than 4 rows within float32's rounding of the nearest one."""
    no_candidate: int
    """Queries for which no row was found: a defect of the machine or the program."""
    image_distance: float
    """lsfa 7.3; NaN where any distance is missing, and until ``enqueue_image_distance`` has run for this frame."""
    neighbours: NDArray[np.int32]  # (3,) the rows nearest to m*

    @property
    def damaged(self) -> bool:
        """Whether no verdict may rest on this."""
        return bool(self.not_finite or self.no_candidate or not np.isfinite(self.distance).all())


class NearestSearch:
    """One bank on one device, with every buffer that a search of it will ever need.

    ``features`` given to ``enqueue`` is a device buffer of ``max_rows`` x D float32 tokens; ``mask`` one byte a token
    (not 0: search it), or None for all. Query r is the r-th token chosen, standardised by mean and standard deviation.
    """

    def __init__(
        self,
        device: Device,
        rows: FloatArray | DeviceBank,
        max_rows: int,
        mean: float = 0.0,
        std: float = 1.0,
        path: Path = "tensor",
        multiprocessors: int | None = None,
    ) -> None:
        """Uploads the bank where ``rows`` is none yet. Raises EngineError for a bank that cannot be."""
        bank = rows if isinstance(rows, DeviceBank) else DeviceBank(device, bank_arrays(rows), path)
        if bank.path != path:
            raise EngineError(f"a bank laid out for the {bank.path} path cannot be searched by {path}")
        self.device = device
        self.plan = NearestPlan(max_rows, bank.n, bank.d, multiprocessors or device.multiprocessors, path)
        self._bank = bank
        self._mean, self._inverse_std = np.float32(mean), np.float32(1.0 / std)
        self.buffers: dict[str, Buffer] = {name: device.alloc(size) for name, size in self.plan.buffers().items()}

    def enqueue(self, features: Buffer, mask: Buffer | None = None, rows: int | None = None) -> None:
        """The whole search of one frame. ``rows``, the number of queries, is needed by the product path only."""
        for enqueue in self.parts(features, mask, rows).values():
            enqueue()

    def parts(self, features: Buffer, mask: Buffer | None = None, rows: int | None = None) -> dict[str, Enqueue]:
        """The steps of ``enqueue`` by name, in order."""
        steps: dict[str, Enqueue] = {"prepare": lambda: self._prepare(features, mask)}
        if self.plan.path != "float32":
            steps["rank"] = lambda: self._rank(rows)
            steps["settle"] = self._settle
        steps["exact"] = self._exact
        return steps

    def enqueue_image_distance(self) -> None:
        """The re-weighted image distance of what was searched (lsfa 7.3)."""
        b, plan, launch = self.buffers, self.plan, self.device.launch
        launch(Launch("neighbours_worst", (1, 1, 1), (1024, 1, 1)), b["distance"], b["index"], b["count"], b["worst"])
        scan = Launch("neighbours_scan", (SCAN_BLOCKS, 1, 1), (256, 1, 1))
        launch(scan, self._bank.rows, b["worst"], np.int32(plan.n), np.int32(plan.d), b["scan"])
        launch(
            Launch("neighbours_finish", (1, 1, 1), (32, 1, 1)),
            *(b["scan"], np.int32(SCAN_BLOCKS), b["queries"], self._bank.rows, b["worst"], np.int32(plan.d)),
            *(b["neighbours"], b["image_distance"]),
        )

    def result(self) -> NearestResult:
        """Wait, and bring the answer of the last search to the host."""
        b, get = self.buffers, self.device.download
        count = int(get(b["count"], (1,), np.int32)[0])
        if not 0 <= count <= self.plan.max_rows:
            raise EngineError(
                f"the device counted {count} queries of {self.plan.max_rows} tokens; its memory is damaged"
            )
        stats = get(b["stats"], (STATS,), np.int32)
        return NearestResult(
            distance=get(b["distance"], (count,), np.float32),
            index=get(b["index"], (count,), np.int32),
            not_finite=int(stats[0]),
            unsettled=int(stats[1]),
            within_margin=int(stats[2]),
            no_candidate=int(stats[3]),
            image_distance=float(get(b["image_distance"], (1,), np.float32)[0]),
            neighbours=get(b["neighbours"], (REWEIGHTING_ROWS,), np.int32),
        )

    def _prepare(self, features: Buffer, mask: Buffer | None) -> None:
        b, plan = self.buffers, self.plan
        chosen = mask if mask is not None else np.uint64(0)
        self.device.launch(
            plan.select(),
            *(chosen, np.int32(plan.max_rows), b["list"], b["count"], b["stats"]),
            *(b["neighbours"], b["image_distance"]),
        )
        self.device.launch(
            plan.prepare(),
            *(features, b["list"], b["count"], self._bank.centre, self._mean, self._inverse_std),
            *(np.float32(self._bank.scale), np.int32(plan.d), np.int32(plan.stride)),
            *(
                np.int32(plan.path == "wgmma"),
                np.int32(up(plan.max_rows, TILE_ROWS)),
                b["queries"],
                b["halves"],
                b["size"],
                b["error"],
            ),
            *(b["distance"], b["index"]),
        )

    def _rank(self, rows: int | None) -> None:
        b, plan, halves, norms = self.buffers, self.plan, self._bank.halves, self._bank.norms
        assert halves is not None  # every path that ranks has them
        assert norms is not None
        n, stride = np.int32(plan.n), np.int32(plan.stride)
        if plan.path in ("tensor", "wgmma"):
            self.device.launch(plan.tensor(), b["halves"], halves, norms, b["count"], n, stride, b["keys"])
            return
        if rows is None or not 0 <= rows <= plan.max_rows:
            raise EngineError(f"the matrix product needs the number of queries (0 to {plan.max_rows}), not {rows}")
        for first in range(0, plan.n if rows else 0, plan.chunk):
            columns = min(plan.chunk, up(plan.n, TILE_ROWS) - first)
            self.device.half_product(
                b["halves"], halves, b["products"], rows=rows, columns=columns, channels=plan.stride, first=first
            )
            self.device.launch(
                plan.product(),
                *(b["products"], norms, b["count"], np.int32(first), np.int32(columns), n, b["keys"]),
            )

    def _settle(self) -> None:
        b, plan, bank = self.buffers, self.plan, self._bank
        self.device.launch(
            plan.settle(),
            *(b["keys"], b["count"], np.int32(plan.n), np.int32(plan.ranked_blocks), np.int32(plan.tile_bank)),
            *(b["queries"], self._bank.rows),
            *(np.int32(plan.d), np.float32(bank.scale), b["size"], b["error"], _above(bank.error), _above(bank.length)),
            *(_above(plan.sum_relative()), b["distance"], b["index"], b["unsettled"], b["stats"]),
        )

    def _exact(self) -> None:
        b, plan = self.buffers, self.plan
        n, d = np.int32(plan.n), np.int32(plan.d)
        if plan.path == "float32":
            rows: Buffer | np.uint64 = np.uint64(0)
            count = b["count"]
        else:
            rows, count = b["unsettled"], self.device.at(b["stats"], 4)
        self.device.launch(plan.exact(), b["queries"], self._bank.rows, rows, count, n, d, b["keys"])
        self.device.launch(
            plan.exact_settle(),
            *(b["keys"], rows, count, n, np.int32(plan.exact_blocks), b["queries"], self._bank.rows, d, b["error"]),
            *(np.float32(plan.exact_relative()), b["distance"], b["index"], b["stats"]),
        )


def _by_warp(kernel: str, rows: int) -> Launch:
    return Launch(kernel, (-(-rows // WARPS), 1, 1), (32 * WARPS, 1, 1))


def _lists(rows: int, tile_rows: int, blocks: int) -> int:
    """Lists of one search: tiles x splits is at most the larger of both, see ``nearest::Split``."""
    return max(up(rows, tile_rows) // tile_rows, blocks) * tile_rows


def _above(value: float) -> np.float32:
    """The float32 at or above, so that a bound stays one."""
    return np.float32(np.nextafter(np.float32(value), np.float32(np.inf)))
