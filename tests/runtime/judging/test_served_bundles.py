"""An older bundle of a recipe comes back only on request, and a memory that cannot tell is no permission."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from asperity.runtime.commands import run
from asperity.runtime.engines import parity_gate as gate
from asperity.runtime.errors import BundleError, JournalError
from asperity.runtime.judging.pipeline import Recipe
from asperity.runtime.judging.recipes import OpenRecipes, verify_in_child
from asperity.runtime.judging.served_bundles import RECIPES_MAX, begin, check_age, remember, served_path
from asperity.runtime.manifest import Manifest
from asperity.runtime.records.journal import Journal
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.settings.paths import journal_path
from asperity.runtime.settings.station_toml import StationConfig
from tests.bundle_factory import ToyBundle, write_toy_bundle
from tests.runtime.inspector.station_floor import floors

OLD_US, NEW_US = 1_700_000_000_000_000, 1_800_000_000_000_000
MakeConfig = Callable[..., StationConfig]


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, ToyBundle]:
    """Two bundles of one recipe, signed by one key: that of yesterday and that of today."""
    trust = TrustStore(tmp_path / "keys")
    old = write_toy_bundle(tmp_path / "old", trust)
    new = ToyBundle(Path(shutil.copytree(old.path, tmp_path / "new")), old.key, trust)
    new.edit(lambda manifest: manifest.update(created_us=NEW_US))
    return {"old": old, "new": new}


@pytest.fixture
def make(tmp_path: Path) -> MakeConfig:
    def make(bundle: str, **engine: Any) -> StationConfig:
        values = {
            "engine": {"trust": str(tmp_path / "keys"), "threads": 1, **engine},
            "journal": {"path": str(tmp_path / "state" / "st1.journal")},
            "recipes": {"toy": str(tmp_path / bundle)},
        }
        return msgspec.convert(values, StationConfig)

    return make


@pytest.fixture
def opened(bundles: dict[str, ToyBundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Recipe]]:
    """Opens the recipe as a station of that configuration would; a toy's golden scores are made up."""
    monkeypatch.setattr(gate, "prove", lambda bundle, engine, progress: bundle.manifest.decision)
    recipes, made = OpenRecipes(), []

    def opened(config: StationConfig) -> Recipe:
        made.append(recipes.open("toy", config, in_child_first=False))
        return made[-1]

    yield opened
    for recipe in made:
        recipes.put_away(recipe)


def start(config: StationConfig) -> None:
    """What `asperity run` does before a recipe is opened, and the end of that run."""
    begin(config)
    Journal.open(journal_path(config), "st1", slots=64).close()


def test_a_folder_that_cannot_be_written_is_the_journals_error_and_no_bundles(make: MakeConfig) -> None:
    """systemd tries again after it, as it does not after a bundle's error."""
    config = make("new")
    folder = served_path(config).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    with pytest.raises(JournalError, match=r"served\.json, .* cannot be written .*set \[journal\] path"):
        begin(config)


def test_an_older_bundle_opens_on_request_alone_and_says_so(make: MakeConfig, opened: Callable[..., Recipe]) -> None:
    start(make("old"))
    assert opened(make("old")).older == ""
    assert opened(make("new")).older == ""
    with pytest.raises(BundleError, match=r"older than the newest .* allow_older = true") as caught:
        opened(make("old"))
    assert "2023-11-14 22:13:20 UTC" in str(caught.value) and "2027-01-15 08:00:00 UTC" in str(caught.value)
    with pytest.raises(BundleError, match=r"did not open: .* older than the newest"):
        verify_in_child("toy", make("old"))
    older = opened(make("old", allow_older=True))
    assert "is older than the newest" in older.older
    with pytest.raises(BundleError, match="older than the newest"):  # asked for once is not asked for always
        opened(make("old"))
    assert opened(make("new")).older == ""


def test_the_newest_is_remembered_over_a_restart_and_only_of_its_recipe(
    make: MakeConfig, opened: Callable[..., Recipe], bundles: dict[str, ToyBundle]
) -> None:
    start(make("new"))
    opened(make("new"))
    start(make("old"))
    manifest = msgspec.convert(bundles["old"].manifest(), type=Manifest)
    with pytest.raises(BundleError, match="older than the newest"):
        check_age(manifest, make("old"))
    assert check_age(msgspec.structs.replace(manifest, recipe="another"), make("old")) == ""


SPOILED = pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "is missing although the station has run before"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b'{"station": "st1", "newest_us": {"toy": "x"}}'), "is damaged"),
        (lambda path: path.write_bytes(b'{"station": "st2", "newest_us": {}}'), "belongs to station st2"),
        (lambda path: path.write_bytes(b"[" * 300_000), "larger than"),
        (lambda path: path.write_bytes(b"[" * 100_000), "is damaged"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "it is a pipe"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "it is a link"),
        (lambda path: path.chmod(0o666), "other users may write it"),
    ],
    ids=["gone", "empty", "type", "station", "large", "nested", "pipe", "link", "mode"],
)


@SPOILED
def test_a_memory_that_cannot_tell_opens_nothing_unasked(
    make: MakeConfig, opened: Callable[..., Recipe], spoil: Callable[[Path], object], words: str
) -> None:
    start(make("new"))
    opened(make("new"))
    spoil(served_path(make("new")))
    start(make("old"))  # nothing is made in its place at a start
    for bundle in ("old", "new"):
        with pytest.raises(BundleError, match=words) as caught:
            opened(make(bundle))
        assert "--allow-older" in str(caught.value) and "restore it" in str(caught.value)
    assert words in opened(make("new", allow_older=True)).older
    with pytest.raises(BundleError, match="older than the newest"):  # written again, it tells again
        opened(make("old"))
    assert opened(make("new")).older == ""


def test_what_cannot_be_remembered_is_not_served(make: MakeConfig, opened: Callable[..., Recipe]) -> None:
    config = make("old")
    journal_path(config).parent.write_bytes(b"in its place")
    with pytest.raises(BundleError, match=r"cannot be (read|written) \(Not a directory"):
        opened(config)


def test_the_memory_is_bounded_and_forgets_the_oldest(make: MakeConfig, bundles: dict[str, ToyBundle]) -> None:
    config = make("old")
    start(config)
    manifest = msgspec.convert(bundles["old"].manifest(), type=Manifest)
    memory = {"station": "st1", "newest_us": {f"r{number}": number + 1 for number in range(RECIPES_MAX)}}
    served_path(config).write_bytes(msgspec.json.encode(memory))
    remember(manifest, config)
    kept = msgspec.json.decode(served_path(config).read_bytes())["newest_us"]
    assert len(kept) == RECIPES_MAX and kept["toy"] == OLD_US and "r0" not in kept and kept["r1"] == 2
    remember(manifest, config)
    assert served_path(config).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("flags", "value"), [(["--allow-older"], True), ([], None)])
def test_the_flag_overrides_the_key(monkeypatch: pytest.MonkeyPatch, flags: list[str], value: bool | None) -> None:
    given: list[dict[str, dict[str, Any]]] = []
    monkeypatch.setattr(run, "serve", lambda config, overrides, bundle: given.append(overrides))
    app = typer.Typer()
    app.command()(run.command)
    assert CliRunner().invoke(app, flags).exit_code == 0
    assert given[0]["engine"]["allow_older"] is value


def test_an_older_bundle_in_force_is_an_alarm_and_an_event(tmp_path: Path) -> None:
    with floors(tmp_path) as make:
        floor = make("ok")
        assert "OLDER_BUNDLE" not in floor.state.alarms
        opens = floor.desk.recipes.open
        floor.desk.recipes.open = lambda *given, **more: replace(opens(*given, **more), older="made long ago")  # type: ignore[method-assign]
        floor.ask("prepare_recipe", recipe="a")
        floor.settle()
        assert "OLDER_BUNDLE" in floor.state.alarms
        (text,) = (event.text for event in floor.events if event.code == "OLDER_BUNDLE")
        assert "made long ago" in text and "allow_older" in text
        floor.ask("reset")
        floor.settle()
        assert "OLDER_BUNDLE" in floor.state.alarms, "as long as it is in force"
        floor.desk.recipes.open = opens  # type: ignore[method-assign]
        floor.ask("prepare_recipe", recipe="a")
        floor.settle()
        assert "OLDER_BUNDLE" not in floor.state.alarms
