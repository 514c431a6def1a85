"""`asperity refit`: what is asked before any work, and what is said of frames that somebody may have chosen."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from asperity.calibration.outcome.threshold import choose_rate, promise
from asperity.calibration.record import Refit
from asperity.export.cli import register
from asperity.export.commands.refit import surprise
from asperity.runtime.errors import UsageError
from asperity.runtime.security.signing_keys import TrustStore
from tests.command_line import commands_of

FOUND = Refit(
    earlier_sha256="00", earlier_created_us=1, earlier_threshold=1.0,
    earlier=promise(choose_rate(50, None), None, "split", 50), earlier_frames={}, kept=200, added=400,
    patches_reused=200, excluded_calibrate=(), above_earlier=8, judged_earlier=400, chance_of_fewer=0.5,
    chance_of_more=0.5, adaptation={},
)  # fmt: skip


def test_the_later_frames_must_be_said_to_be_unselected(tmp_path: Path) -> None:
    TrustStore(tmp_path / "keys").key_for_signing()
    command = ["refit", str(tmp_path), str(tmp_path), "-o", str(tmp_path / "out"), "--keys", str(tmp_path / "keys")]
    with pytest.raises(UsageError, match="--unselected"):
        CliRunner().invoke(commands_of(register), command, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "rejects 8 of 400 later parts, as chance explains"),
        ({"above_earlier": 0, "chance_of_fewer": 0.004}, "fewer than chance explains .*were rejected parts left out"),
        ({"above_earlier": 99, "chance_of_more": 1e-9}, "more than chance explains .*look at them"),
    ],
)
def test_how_many_the_earlier_threshold_rejects_is_told(changes: dict[str, object], words: str) -> None:
    assert re.search(words, surprise(msgspec.structs.replace(FOUND, **changes)))
