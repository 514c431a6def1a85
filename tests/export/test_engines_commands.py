"""`asperity engines`: what it shows, what it refuses, and what a precision does to a whole bundle on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asperity.export import precision_parity
from asperity.export.cli import register
from asperity.export.precision import Ranges
from asperity.export.precision_parity import PrecisionReport, compare_precision
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.errors import AsperityError, EngineError, UsageError
from asperity.runtime.manifest import Decision
from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import ToyBundle, write_toy_bundle
from tests.command_line import commands_of
from tests.conftest import LiteBundle


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    return write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"), "lsfa")


def run(*arguments: object) -> str:
    app = commands_of(register)
    result = CliRunner().invoke(app, ["engines", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_list_without_engines_says_where_it_looked(tmp_path: Path) -> None:
    assert f"no engines in {tmp_path}" in run("list", "--cache", tmp_path)


def test_build_list_and_remove(toy: ToyBundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (make trt-tools)")
    cache = tmp_path / "engines"
    options = ("--library", "tensorrt-rtx", "--cache", cache, "--keys", toy.trust.folder, "--json")
    built = json.loads(run("build", toy.path, "--precision", "fp32", *options))
    assert built["key"]["precision"] == "fp32" and built["nbytes"] > 0
    assert built["key"]["gpu"] is None or built["key"]["gpu"]["name"]
    listed = json.loads(run("list", "--cache", cache, "--json"))
    assert [one["name"] for one in listed["engines"]] == [built["name"]] and listed["unusable"] == {}
    assert built["name"] in run("list", "--cache", cache)
    (cache / built["name"] / "record.json").write_text("{}")
    assert f"{built['name']}  unusable: " in run("list", "--cache", cache)
    run("remove", built["name"], "--cache", cache)
    assert json.loads(run("list", "--cache", cache, "--json")) == {"engines": [], "unusable": {}}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("--precision", "bf16"), UsageError, "--precision 'bf16' is not known; choose one of fp32, fp16, int8"),
        (("--softmax", "float"), UsageError, "--softmax 'float' is not known; choose one of auto, half, fp32"),
        (("--library", "onnx"), UsageError, "--library 'onnx' is not known; choose one of tensorrt, tensorrt-rtx"),
    ],
)
def test_what_cannot_be_right_is_named(
    toy: ToyBundle, arguments: tuple[str, ...], error: type[AsperityError], words: str
) -> None:
    with pytest.raises(error, match=words):
        run("build", toy.path, *arguments)


def test_a_set_that_is_not_there_is_not_removed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no built networks 'abc'"):
        run("remove", "abc", "--cache", tmp_path)


def test_torch_tensorrt_says_what_it_needs_and_what_the_gate_said(
    toy: ToyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("torch-tensorrt", tmp_path, toy.path, "--keys", toy.trust.folder)
    with pytest.raises(UsageError, match="--precision 'bf16' is not known"):
        run(*arguments, "--precision", "bf16")
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(EngineError, match=r"CPU build, with which torch-tensorrt does not load"):
        run(*arguments)
    opened = open_bundle(toy.path, toy.trust)
    asked: list[object] = []

    def judged(*given: object) -> Decision:
        asked.extend(given)
        return opened.manifest.decision

    monkeypatch.setattr("asperity.export.torch_tensorrt.prove_torch_tensorrt", judged)
    assert "passed" in run(*arguments)
    assert json.loads(run(*arguments, "--json"))["threshold"] == opened.manifest.decision.threshold
    assert asked[0] == tmp_path and asked[2:4] == ["fp16", 0]


def test_a_library_that_is_missing_is_said(toy: ToyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"tensorrt is not installed .*pip install .*tensorrt<"):
        run("build", toy.path, "--library", "tensorrt", "--cache", tmp_path, "--keys", toy.trust.folder)


@pytest.fixture(scope="module")
def bundle(lite_bundle: LiteBundle) -> Bundle:
    return open_bundle(lite_bundle.path, lite_bundle.trust)


@pytest.fixture(scope="module")
def fp16(bundle: Bundle) -> PrecisionReport:
    return compare_precision(bundle, "fp16", frames=1)


def test_fp16_keeps_the_verdicts_of_a_bundle(bundle: Bundle, fp16: PrecisionReport) -> None:
    assert fp16.gate == "" and fp16.scores.precision == "fp16 rounded"
    assert 0 < fp16.scores.largest_shift < 0.1
    assert set(fp16.layers) == set(bundle.graph_names())
    assert all(layers[-1].rms_error < 0.02 for layers in fp16.layers.values())


def test_the_gate_refuses_ruined_ranges(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: an int8 network whose activations are clipped to a fiftieth of their range."""
    whole = precision_parity.bundle_ranges

    def ruined(*arguments: object) -> dict[str, Ranges]:
        ranges: Mapping[str, Ranges] = whole(*arguments)  # type: ignore[arg-type]
        return {name: {tensor: value / 50 for tensor, value in one.items()} for name, one in ranges.items()}

    monkeypatch.setattr("asperity.export.precision_parity.bundle_ranges", ruined)
    refused = compare_precision(bundle, "int8", frames=1)
    assert "standard deviations" in refused.gate or "correlation" in refused.gate
    assert refused.threshold == bundle.manifest.decision.threshold


def test_the_command_says_it_in_words(
    lite_bundle: LiteBundle, fp16: PrecisionReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asperity.export.precision_parity.compare_precision", lambda *_: fp16)
    arguments = ("parity", lite_bundle.path, "--keys", lite_bundle.trust.folder)
    told = run(*arguments)
    assert "gate                 passed" in told and "rank correlation" in told
    assert json.loads(run(*arguments, "--json"))["precision"] == "fp16"
