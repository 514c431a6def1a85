"""``asperity evaluate`` on tiny data sets: its JSON, its controls, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from asperity.benchmarks.accuracy import ablation, modality_sets, rival
from asperity.benchmarks.accuracy import evaluate as evaluate_module
from asperity.benchmarks.accuracy.compare import difference, read_report, table
from asperity.benchmarks.accuracy.evaluate import EvaluateOptions, Report, evaluate
from asperity.benchmarks.accuracy.material import products_of
from asperity.benchmarks.accuracy.methods import METHODS, method
from asperity.benchmarks.accuracy.modality_sets import PICTURED
from asperity.benchmarks.accuracy.pictures import write_sheets
from asperity.benchmarks.accuracy.pooled import read_curves
from asperity.benchmarks.results_tools import reports
from asperity.calibration.profiles import PROFILES
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import CalibrationError, DataError, UsageError
from tests.calibration.tiny_station import TINY, build_tiny, part

GOOD_TESTS, BAD_TESTS = 6, 6


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products in the layout of MVTec 3D-AD: domes, some with a bump."""
    root = tmp_path_factory.mktemp("data")
    for product, height_mm in (("dome", 8.0), ("hill", 11.0)):
        for index in range(26):
            rgb, xyz = part(100 * int(height_mm) + index, height_mm=height_mm)
            write_frame(root / product / "train" / "good", f"{index:03d}", rgb, xyz)
        for kind, count, bump_mm in (("good", GOOD_TESTS, 0.0), ("bump", BAD_TESTS, 3.0)):
            for index in range(count):
                rgb, xyz = part(9000 + 100 * int(height_mm) + index, bump_mm=bump_mm, height_mm=height_mm)
                mask = np.zeros(rgb.shape[:2], dtype=bool)
                if bump_mm:
                    plain = part(9000 + 100 * int(height_mm) + index, height_mm=height_mm)[1]
                    mask = np.abs(xyz[..., 2] - plain[..., 2]) > 2e-4
                write_frame(root / product / "test" / kind, f"{index:03d}", rgb, xyz, mask)
    return root


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def build(chosen, *, seeded: bool = False, seed: int = 0, **_: object):  # type: ignore[no-untyped-def]
        networks = build_tiny(chosen, seed=seed + (50 if seeded else 0))
        networks.origins = tuple(msgspec.structs.replace(o, sha256=f"{seeded}") for o in networks.origins)
        return networks

    monkeypatch.setitem(PROFILES, "tiny", replace(TINY, name="tiny"))
    monkeypatch.setattr(evaluate_module, "build", build)
    yield


def options(data: Path, **changes: object) -> EvaluateOptions:
    # Prepared frames are kept under a digest of frames, weights and options: all tests of the same data share them.
    plain: dict[str, object] = {"profile": "tiny", "method": "frozen", "seeds": 2, "cache": data.parent / "cache"}
    return EvaluateOptions(source=data, **{**plain, **changes})  # type: ignore[arg-type]


def test_the_json_has_every_figure_of_every_product_seed_and_the_control(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "frozen.json"
    evaluate(options(data), out, "asperity evaluate", silent)
    said = json.loads(out.read_text())
    assert (said["method"], said["profile"]) == ("frozen", "tiny")
    assert [run["seed"] for run in said["runs"]] == [0, 1]
    for run in [*said["runs"], said["control"]]:
        assert set(run["products"]) == {"dome", "hill"}
        for figures in run["products"].values():
            for name in ("i_auroc", "i_auroc_fg", "p_auroc_fg", "aupro30_fg", "aupro05_fg", "ap"):
                assert 0 <= figures[name] <= 1, name
            assert figures["per_defect"]["bump"]["frames"] == BAD_TESTS
            assert (figures["good"], figures["defective"]) == (GOOD_TESTS, BAD_TESTS)
            assert abs(figures["shuffled"] - 0.5) <= 4 * figures["shuffled_se"]
            assert 0 < figures["detection"]["stated"] < 1
            assert len(figures["scores"]) == GOOD_TESTS + BAD_TESTS
    assert said["mean"]["i_auroc_fg"] == pytest.approx(
        np.mean([f["i_auroc_fg"] for run in said["runs"] for f in run["products"].values()]), abs=1e-5
    )


def test_it_finds_gross_bumps(data: Path, tmp_path: Path) -> None:
    """Random networks: whitening makes their noise as large as what they see, so it finds fewer."""
    for row, least in (("frozen-before", 0.8), ("frozen", 0.65)):
        given = options(data, method=row, seeds=1, control=False, pixels=False)
        assert evaluate(given, tmp_path / f"{row}.json", "", silent).mean["i_auroc_fg"] > least


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_stopped(data: Path, tmp_path: Path) -> None:
    whole = evaluate(options(data), tmp_path / "whole.json", "", silent)
    out, stopped = tmp_path / "stopped.json", 0

    def stop(material: object, seed: int, judged: object) -> None:
        nonlocal stopped
        stopped += 1
        if stopped == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(options(data), out, "", silent, stop)
    rest: list[int] = []
    again = evaluate(options(data), out, "", silent, lambda material, seed, judged: rest.append(seed))
    # The second trial was done but not yet written when it was stopped.
    assert len(rest) == 3
    for one, other in zip(whole.runs, again.runs, strict=True):
        for name in one.products:
            assert one.products[name].scores == other.products[name].scores
    more = evaluate(options(data, seeds=3), out, "", silent, lambda material, seed, judged: rest.append(seed))
    assert rest[3:] == [2, 2] and len(more.runs) == 3


def test_scores_of_other_frames_are_not_mixed_into_one_file(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    report = evaluate(options(data, seeds=1, control=False, pixels=False), out, "", silent)
    report.frames["hill"][0] = "test/good/none"
    reports.write_result(out, msgspec.to_builtins(report))
    with pytest.raises(DataError, match="other test frames of hill"):
        evaluate(options(data, seeds=2, control=False, pixels=False), out, "", silent)


def test_the_background_is_as_asked_for_and_another_one_is_another_evaluation(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    given = options(data, seeds=1, control=False, pixels=False, categories=("hill",), geometry="none")
    assert evaluate(given, out, "", silent).settings["geometry"] == "none"
    with pytest.raises(UsageError, match="which is another"):
        evaluate(replace(given, geometry="auto"), out, "", silent)
    plain = evaluate(replace(given, geometry="auto"), tmp_path / "b.json", "", silent)
    assert "geometry" not in plain.settings and "z" not in plain.settings  # as earlier versions wrote it


def test_refused_test_frames_are_one_sentence_with_the_cause(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them is a warning; where nothing is left to evaluate it is an error, and no traceback."""
    product = tmp_path / "product"
    shutil.copytree(data / "hill", product)
    rgb, empty = part(1)
    empty[..., 2] = 0.4
    write_frame(product / "test" / "good", "000", rgb, empty, np.zeros(rgb.shape[:2], dtype=bool))
    given = options(product, seeds=1, control=False, pixels=False)
    report = evaluate(given, tmp_path / "a.json", "", silent)
    assert report.runs[0].products["product"].refused == 1
    assert "1 of 12 test frames were refused, 1 of them TOO_FEW_POINTS" in caplog.text
    for index in range(BAD_TESTS):
        write_frame(product / "test" / "bump", f"{index:03d}", rgb, empty, np.ones(rgb.shape[:2], dtype=bool))
    with pytest.raises(CalibrationError, match=r"7 of 12 test frames were refused, 7 of them TOO_FEW.*--geometry none"):
        evaluate(given, tmp_path / "b.json", "", silent)


def test_another_evaluation_in_the_same_file_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    evaluate(options(data, seeds=1, control=False, pixels=False), out, "", silent)
    with pytest.raises(UsageError, match="which is another"):
        evaluate(options(data, method="ifc", pixels=False), out, "", silent)
    out.write_text("{}")
    with pytest.raises(DataError, match="remove it"):
        evaluate(options(data), out, "", silent)


def test_adaptation_runs_and_the_difference_has_an_interval(data: Path, tmp_path: Path) -> None:
    one = evaluate(options(data, control=False), tmp_path / "frozen.json", "", silent)
    fields = {"epochs": 2, "queue_rows": 64, "query_patches": 8, "collapse_share": 0.0}
    other = evaluate(
        options(data, method="lsfa", overrides=fields, control=False), tmp_path / "l.json", "", silent
    )
    gap = difference(one, other, replicates=200)
    assert gap.low <= gap.mean <= gap.high
    assert set(gap.products) == {"dome", "hill"}
    same = difference(one, one, replicates=50)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert "| lsfa |" in table([("frozen", one), ("lsfa", other)])
    with pytest.raises(UsageError, match="same test frames"):
        difference(one, Report(method="", profile="", command="", settings={}, weights=[], machine={}, runs=[]))


def test_few_shots_know_only_so_many_frames(data: Path, tmp_path: Path) -> None:
    report = evaluate(options(data, shots=5, control=False), tmp_path / "few.json", "", silent)
    assert all(figures.fit_frames == 5 for run in report.runs for figures in run.products.values())
    with pytest.raises(CalibrationError, match="--shots 500"):
        evaluate(options(data, shots=500, control=False), tmp_path / "many.json", "", silent)


def test_an_adaptation_is_kept_and_shared_by_the_rows_that_differ_in_banks_only(data: Path, tmp_path: Path) -> None:
    fields = {"epochs": 1, "queue_rows": 64, "query_patches": 8, "collapse_share": 0.0}
    kinds = ("lsfa", "lsfa-bank-10", "clc")
    for kind in kinds:
        given = options(data, method=kind, overrides=fields, control=False, seeds=1, categories=("hill",),
                        pixels=False, cache=tmp_path / "cache")  # fmt: skip
        report = evaluate(given, tmp_path / f"{kind}.json", "", silent)
        assert 0 <= report.mean["i_auroc_fg"] <= 1
    assert len(list((tmp_path / "cache" / "adapted").glob("*.safetensors"))) == 2  # clc has its own


def test_scoring_as_published_is_the_published_profile_s(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(name: str, distances: str, kind: str) -> object:
        own = {} if distances == "local" else {"fusion": "average", "whitening": None}
        monkeypatch.setitem(PROFILES, "tiny", replace(TINY, name="tiny", distances=distances, **own))
        given = options(data, method=kind, control=False, seeds=1, categories=("hill",), pixels=False)
        return evaluate(given, tmp_path / f"{name}.json", "", silent).runs[0].products["hill"].scores

    local, published = scores("local", "local", "frozen"), scores("published", "published", "frozen")
    assert local != published
    assert scores("local-published", "local", "frozen-published") == published


def test_random_weights_and_statistics_are_options_of_the_method(data: Path, tmp_path: Path) -> None:
    given = options(data, seeds=1, random_weights=True)
    report = evaluate(given, tmp_path / "random.json", "", silent)
    assert report.settings["random_weights"] and report.control is not None
    hill = report.runs[0].products["hill"]
    assert hill.scores == report.control.products["hill"].scores  # the control is just this
    with pytest.raises(UsageError, match="has no BatchNorm"):
        evaluate(options(data, point_bn="batch"), tmp_path / "bn.json", "", silent)


def test_the_ablation_table_tells_differences_from_results(tmp_path: Path, data: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(ablation, "DATA", data.parent)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    monkeypatch.setattr(ablation, "SETS", {data.name: {"dome": 1.0, "hill": 1.0}})
    ablation.make_data(data.name)
    ablation.run(data.name, ["frozen", "frozen-bank-1"], "tiny", 2)
    lines = ablation.table(data.name, "tiny").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| frozen", "| frozen-bank-1"]
    assert "bump" in lines[5] and lines[-1].startswith("Shuffled labels: ")
    assert "[" in lines[3] and "[" not in lines[2]
    with pytest.raises(UsageError, match="run the ablation first"):
        ablation.table(data.name, "edge")


def test_a_rival_is_judged_on_the_same_frames_as_ours(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["rival", str(data / "hill"), "controls:HeightResidual"])
    rival.main()
    theirs = read_report(tmp_path / "hill-rivals" / "HeightResidual.json")
    ours = evaluate(options(data, seeds=1, control=False, categories=("hill",)), tmp_path / "a", "", silent)
    assert theirs.frames == ours.frames and theirs.settings["processor_s_per_frame"]["hill"] > 0
    assert set(read_curves(tmp_path / "hill-rivals" / "HeightResidual.curves.npz")) == {"hill"}
    mine, found = (one.runs[0].products["hill"] for one in (ours, theirs))
    for figure in ("fit_frames", "held_out_frames", "good", "defective", "regions", "regions_fg"):
        assert getattr(found, figure) == getattr(mine, figure)
    assert found.detection.stated == mine.detection.stated and found.i_auroc_fg > 0.8


def test_every_set_of_modalities_is_judged_as_if_it_had_been_evaluated_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets-1").mkdir()
    (tmp_path / "sets-1" / "hill").symlink_to(data / "hill")
    for name, value in (("DATA", tmp_path), ("RESULTS", tmp_path), ("SETS", {"sets": {"hill": 1.0}})):
        monkeypatch.setattr(ablation, name, value)
    monkeypatch.setattr(modality_sets, "build", evaluate_module.build)
    monkeypatch.setattr("sys.argv", ["sets", "run", "sets-1", "--profile", "tiny"])
    modality_sets.main()
    rows = {row: read_report(ablation.result("sets-1", row, "tiny")) for row in ("frozen", "auto", *PICTURED)}
    chosen = reports.read_result(ablation.result("sets-1", "sets", "tiny"))["products"]["hill"]["chosen"]
    assert set(rows["auto"].runs[0].products["hill"].judged_by) <= set(chosen.split("+"))
    monkeypatch.setattr("sys.argv", ["sets", "table", "sets-1", "--profile", "tiny"])
    capsys.readouterr()
    modality_sets.main()
    assert f"| chosen by `auto` | {chosen} |" in capsys.readouterr().out
    ablation.run("sets-1", ["auto"], "tiny", 1, "alone")
    alone = read_report(ablation.result("sets-1", "alone", "tiny")).runs[0].products["hill"]
    shared = rows["auto"].runs[0].products["hill"]
    for figure in ("scores", "i_auroc_fg", "aupro30_fg", "detection", "judged_by"):
        assert getattr(alone, figure) == getattr(shared, figure), figure
    modality_sets.run("sets-1", "tiny", False)  # finished: goes on from its files and measures nothing again
    with pytest.raises(UsageError, match="no such row"):
        ablation.row_of("rgb")


def test_an_evaluation_by_named_modalities_without_some_frames_goes_on(data: Path, tmp_path: Path) -> None:
    given = options(data, seeds=1, control=False, pixels=False, categories=("hill",), modalities=("rgb", "points"),
                    exclude=("train/good/003",))  # fmt: skip
    first = evaluate(given, tmp_path / "a.json", "", silent)
    assert evaluate(given, tmp_path / "a.json", "", silent).runs == first.runs


def test_sheets_show_the_frames_to_look_at(data: Path, tmp_path: Path) -> None:
    drawn: list[Path] = []
    evaluate(
        options(data, seeds=1, control=False, categories=("hill",)), tmp_path / "a.json", "", silent,
        lambda material, seed, judged: drawn.extend(write_sheets(tmp_path / "sheets", data, material, judged)),
    )  # fmt: skip
    assert {path.name for path in drawn} == {f"hill-{k}.png" for k in ("best", "missed", "alarms", "borderline")}


def test_mistakes_are_named(data: Path, tmp_path: Path) -> None:
    assert [folder.name for folder in products_of(data)] == ["dome", "hill"]
    assert products_of(data / "dome") == [data / "dome"]
    with pytest.raises(DataError, match="no product"):
        products_of(tmp_path)
    with pytest.raises(UsageError, match="dome, hill"):
        evaluate(options(data, categories=("nut",)), tmp_path / "a.json", "", silent)
    with pytest.raises(UsageError, match="frozen, ifc"):
        method("magic")
    with pytest.raises(UsageError, match="no such field"):
        METHODS["lsfa"].config(PROFILES["tiny"], 0, {"temprature": 1})


def test_a_test_frame_that_is_a_training_frame_is_named(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dome = shutil.copytree(data / "dome", tmp_path / "dome")
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff")):
        shutil.copy(dome / f"train/good/{kind}/004.{suffix}", dome / f"test/good/{kind}/090.{suffix}")
    plain = options(dome, seeds=1, control=False, pixels=False)
    for _ in range(2):  # the second time from the cache
        report = evaluate(plain, tmp_path / "frozen.json", "asperity evaluate", silent)
        assert report.leaked == {"dome": ["test/good/090"]}
        (tmp_path / "frozen.json").unlink()
    assert "dome: 1 test frames show parts of the training frames (test/good/090)" in caplog.text
