"""The published form as a rival: same function on other arithmetic, honest counts, intervals that hold the truth."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from asperity.benchmarks.published_form import onnx_form
from asperity.benchmarks.published_form.mac_count import graph_macs, search_macs, torch_macs
from asperity.benchmarks.published_form.onnx_form import Rival, blas_nearest
from asperity.benchmarks.published_form.paired import ratio_of_medians
from asperity.benchmarks.published_form.side_by_side import difference
from asperity.benchmarks.published_form.torch_form import PublishedBank, PublishedPipeline, PublishedScores
from asperity.runtime.frame import ModalityScores, Scores
from tests.benchmarks.published_form.test_published import frame, setting
from tests.kept import imported_by, kept
from tests.quick_exports import quick_exports


@pytest.fixture
def kept_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of the same weights is exported once per tree."""
    quick_exports()
    export = onnx_form._graph
    makers = imported_by(onnx_form.__name__, PublishedPipeline.__module__, "tests.quick_exports")

    def graph(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
        told = hashlib.sha256(f"{module} {[tuple(each.shape) for each in inputs]}".encode())
        for name, tensor in module.state_dict().items():
            told.update(name.encode() + tensor.numpy().tobytes())
        name = f"rival_{told.hexdigest()[:16]}"
        folder = kept(name, lambda folder: (folder / "graph.onnx").write_bytes(export(module, inputs)), of=makers)
        return (folder / "graph.onnx").read_bytes()

    monkeypatch.setattr(onnx_form, "_graph", graph)


def banks(channels: tuple[int, int]) -> list[PublishedBank]:
    rng = np.random.default_rng(1)
    return [PublishedBank(torch.from_numpy(rng.normal(size=(300, c)).astype(np.float32)), 0.0, 1.0) for c in channels]


def as_ours(scores: PublishedScores, prepared_frame: object) -> Scores:
    """The published distances in the shape of an engine's."""

    def modality(distances: torch.Tensor, image: float) -> ModalityScores:
        grid = distances.numpy().reshape(scores.scored.shape)
        return ModalityScores(np.where(scores.scored, grid, 0.0).astype(np.float32), image)

    return Scores(
        {
            "rgb": modality(scores.rgb_distances, scores.rgb_image_distance),
            "points": modality(scores.points_distances, scores.points_image_distance),
        },
        scores.scored, prepared_frame.window, prepared_frame.silhouette, {},  # type: ignore[attr-defined]
    )  # fmt: skip


@pytest.mark.usefixtures("kept_graphs")
def test_the_rival_computes_the_published_function() -> None:
    """ONNX Runtime and BLAS in place of torch; a rival that forgets its adaptors is found out."""
    profile, network, networks = setting("lite")
    prepared = frame(network, 0)
    both = banks((profile.rgb_channels, profile.points_channels))
    plain = PublishedPipeline(network, networks.modules, *both, distance_dtype=torch.float64)
    rival = Rival(network, networks.modules, both[0], both[1], threads=1)
    expected = plain.score(prepared)
    assert difference(as_ours(expected, prepared), rival.score(prepared)) < 1e-4
    forgetful = rival.score_tokens(rival.frozen(prepared), prepared)
    assert difference(as_ours(expected, prepared), forgetful) > 1e-2


def test_the_blas_search_finds_the_nearest_row() -> None:
    rng = np.random.default_rng(2)
    queries, rows = (torch.from_numpy(rng.normal(size=(n, 24)).astype(np.float32)) for n in (50, 400))
    distances, index = blas_nearest(queries, rows)
    expected = torch.cdist(queries.double(), rows.double()).min(1)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=0)


def test_counts_are_those_of_the_formulas() -> None:
    """A convolution, a linear layer and attention, counted by hand, by the graph and by torch."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = self.conv(image).flatten(2).transpose(1, 2)
            q, k, v = self.linear(tokens).unsqueeze(1).chunk(3, dim=-1)
            return functional.scaled_dot_product_attention(q, k, v)

    module, image = Small().eval(), torch.rand(1, 3, 8, 8)
    by_hand = 16 * 8 * 3 * 4 + 16 * 8 * 24 + 2 * 16 * 16 * 8
    assert torch_macs(lambda: module(image)) == by_hand
    program = torch.onnx.export(module, (image,), opset_version=18, external_data=False, dynamo=True, verbose=False)
    assert program is not None
    buffer = io.BytesIO()
    onnx.save_model(program.model_proto, buffer)
    assert graph_macs(buffer.getvalue()) == by_hand
    assert search_macs(3, 5, 7) == 105


def test_the_interval_holds_the_ratio_and_no_other() -> None:
    """Noise common to both sides of a pair takes nothing from the ratio."""
    rng = np.random.default_rng(3)
    weather = 1 + rng.gamma(1.0, 1.0, 200)
    under = weather * rng.normal(10, 0.3, 200)
    over = 2.0 * weather * rng.normal(10, 0.3, 200)
    found = ratio_of_medians(list(over), list(under))
    assert found.low < 2.0 < found.high
    assert not found.low < 1.5 < found.high
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_medians([1.0], [])


def test_another_set_of_scored_patches_is_infinitely_different() -> None:
    """Results that do not speak of the same patches are never close."""
    profile, network, networks = setting("lite")
    prepared = frame(network, 0)
    plain = PublishedPipeline(network, networks.modules, *banks((profile.rgb_channels, profile.points_channels)))
    scores = plain.score(prepared)
    ours = as_ours(scores, prepared)
    assert difference(ours, scores) < 1e-6
    fewer = Scores(ours.modalities, ~ours.scored, ours.window, ours.silhouette, {})
    assert difference(fewer, scores) == float("inf")
