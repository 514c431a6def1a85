"""`asperity run`: what it says of recipes that the command line and station.toml both name."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.commands import run
from asperity.runtime.settings.station_toml import StationConfig


@pytest.mark.parametrize(("listed", "said"), [("old", True), ("new", False), ("", False)])
def test_a_bundle_that_takes_the_place_of_a_listed_one_is_in_the_log(
    listed: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[StationConfig] = []
    monkeypatch.setattr("asperity.runtime.inspector.serving.inspect", lambda config, first: begun.append(config))
    bundle, toml = tmp_path / "new", tmp_path / "station.toml"
    bundle.mkdir()
    (bundle / "manifest.json").write_text('{"recipe": "gear"}')
    toml.write_text(f'[recipes]\ngear = "{listed}"\n' if listed else "")
    run.serve(toml, {}, bundle)
    assert begun[0].recipes == {"gear": str(bundle)}
    words = f"recipe gear is opened from {bundle}, not from {tmp_path / 'old'} as [recipes] says"
    assert (words in caplog.text) == said
