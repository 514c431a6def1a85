"""``--modalities auto``: only the chosen set goes into the folder, as if it had been named; what refuses it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from asperity.calibration import refit as refit_module
from asperity.calibration.calibrate import asked_modalities, calibrate, usual_method
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.kept_frames import read_kept
from asperity.calibration.profiles import PROFILES, Profile
from asperity.calibration.record import CalibrationFolder, WeightsOrigin
from asperity.calibration.refit import refit
from asperity.calibration.report.choice import choice_section, chosen_words
from asperity.runtime.errors import UsageError
from tests.calibration.tiny_station import TinyPoints, TinyRgb, no_report, part, tiny_profile, write_source

__all__ = ["no_report", "tiny_profile"]

FROZEN = CalibrateOptions(profile="tiny", method="frozen", unit="m", strangest=0)
AUTO = msgspec.structs.replace(FROZEN, modalities=("auto",))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_source(tmp_path_factory.mktemp("normals"), 40)


@pytest.fixture(scope="module")
def chosen(tiny_profile: Profile, source: Path) -> CalibrationFolder:
    return calibrate(source, source.parent / "auto", AUTO)


def test_the_folder_holds_the_chosen_set_alone_as_if_it_had_been_named(
    chosen: CalibrationFolder, source: Path, tmp_path: Path, no_report: None
) -> None:
    record, choice = chosen.record, chosen.record.choice
    assert choice is not None and len(choice.tried) > 1 and "rgb" in choice.chosen.modalities
    names = choice.chosen.modalities
    assert record.network.modalities == names == tuple(record.decision.modalities())
    assert names == tuple(record.frames[0].image_distances) and chosen.banks().keys() == set(names)
    assert choice.frame_ms.keys() >= set(names) and choice.frame_ms["rgb"] > 0
    assert choice.chosen.loss <= choice.chosen.standard_error
    cheaper = [one for one in choice.tried if one.cost < choice.chosen.cost]
    assert all(one.loss > one.standard_error for one in cheaper)

    again = calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, modalities=names)).record
    assert again.choice is None and again.network == record.network and again.weights == record.weights
    assert record.decision == again.decision
    report = (chosen.path / "report" / "report.html").read_text()
    assert choice_section(choice) in report and chosen_words(choice) in report


def test_frames_that_are_kept_are_of_the_chosen_set_and_refit_keeps_it(
    chosen: CalibrationFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = read_kept(chosen)
    patches = kept.patches(chosen.record.network)
    assert patches is not None and patches.count() == 40
    assert {path.stem for path in kept.folder.glob("*.f32")} == set(chosen.record.network.modalities)

    def restore(profile: Profile, path: Path, origins: tuple[WeightsOrigin, ...], **_: object) -> TorchNetworks:
        networks = TorchNetworks(profile, TinyRgb(), TinyPoints() if len(origins) > 1 else None, origins, "cpu")
        networks.load(path)
        return networks

    monkeypatch.setattr(refit_module, "restore", restore)
    monkeypatch.setattr(refit_module, "write_report", lambda *_: None)
    later = write_source(tmp_path / "later", 10, spoil={i: lambda i=i: part(500 + i) for i in range(10)})
    again = refit(chosen.path, later, tmp_path / "again", unselected=True).record
    assert again.network == chosen.record.network and again.choice == chosen.record.choice
    assert again.refit is not None and again.refit.patches_reused == 40
    assert np.isfinite(again.decision.threshold)


@pytest.mark.parametrize(
    ("profile", "changes", "says"),
    [
        ("paper", {"modalities": ("auto",), "method": "frozen"}, "auto.*--profile paper"),
        ("lite", {"modalities": ("auto",), "method": "frozen", "fusion": "average"}, "auto.*--fusion average"),
        ("lite", {"modalities": ("auto",)}, "auto.*lsfa"),
        ("lite", {"modalities": ("auto", "rgb")}, "'auto' is not known"),
        ("lite", {"modalities": ("rgb", "points", "rgb")}, "rgb is named twice"),
        ("fast", {}, "--profile fast.*lsfa"),
    ],
)
def test_what_cannot_be_chosen_or_adapted_is_refused_by_name(
    profile: str, changes: dict[str, object], says: str
) -> None:
    options = msgspec.convert({"profile": profile, **changes}, CalibrateOptions)
    with pytest.raises(UsageError, match=says):
        asked_modalities(options, PROFILES[profile])


def test_fast_is_lite_without_points_and_frozen_unless_asked() -> None:
    options = CalibrateOptions(profile="fast", method=usual_method("fast", None))
    assert asked_modalities(options, PROFILES["fast"]) == ("rgb", "geometry", "descriptor")
    assert usual_method("lite", ("auto",)) == "frozen" and usual_method("lite", None) == "lsfa"
