"""The sample configuration files: they load as they are, and with every line uncommented, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime.cameras import camera_toml
from asperity.runtime.cameras import source as camera_source
from asperity.runtime.cameras.camera_toml import tables
from asperity.runtime.documents.camera_sources import sources
from asperity.runtime.documents.sample_toml import SAMPLES
from asperity.runtime.gateways import config as gateways
from asperity.runtime.settings import loading
from asperity.runtime.settings.toml_tables import Section, read_sections
from tests.places import EXAMPLES

SOURCES = sources()
CAMERA_TOML = tables({name: kind.options for name, kind in SOURCES.items()})


def load_camera(path: Path | None = None) -> Any:
    """With the tables of all sources of this package."""
    return read_sections(CAMERA_TOML, path, None)


LOADERS: dict[str, Any] = {"station.toml": loading.load, "gateway.toml": gateways.load, "camera.toml": load_camera}
NO_DEFAULT = {"recipes": {"recipes"}, **{table: {"recipes", "hard_wired"} for table in ("modbus", "ethernetip")}}
"""Keys that the sample shows with a value other than the default."""


@pytest.mark.parametrize("name", LOADERS)
def test_the_sample_changes_nothing_as_it_is(name: str) -> None:
    assert LOADERS[name](EXAMPLES / name) == LOADERS[name]()


@pytest.mark.parametrize("name", LOADERS)
def test_each_key_is_in_the_sample_with_its_default(name: str, tmp_path: Path) -> None:
    text = re.sub(r"^#(?! )", "", (EXAMPLES / name).read_text(), flags=re.M)
    (tmp_path / name).write_text(text)
    found, defaults = LOADERS[name](tmp_path / name), LOADERS[name]()
    for table in found.__struct_fields__:
        mine, usual = getattr(found, table), getattr(defaults, table)
        if table in ("stations", "combined"):
            continue  # stations.toml, views.toml
        assert f"\n[{table}]\n" in text
        if not isinstance(mine, msgspec.Struct):
            assert table in NO_DEFAULT, "no default that TOML can write"
            continue
        for key in mine.__struct_fields__:
            assert re.search(rf"^\[{table}\]\n(?:(?!\[)[^\n]*\n)*?{key} = ", text, re.M), f"[{table}] {key} is missing"
            if key not in NO_DEFAULT.get(table, ()):
                assert getattr(mine, key) == getattr(usual, key), f"[{table}] {key}"


def test_no_sample_line_is_for_a_key_that_is_gone() -> None:
    config, station = gateways.GatewayConfig(), loading.load()
    for place in SAMPLES:
        table, _, key = place.partition(".")
        assert hasattr(getattr(config if key else station, table), key) if key else hasattr(station, table)


def test_each_source_of_this_package_has_its_entry_point() -> None:
    assert set(SOURCES) <= set(camera_source.names()) and "folder" in SOURCES


def test_the_sample_for_cameras_is_for_any_one_source(tmp_path: Path) -> None:
    text = (EXAMPLES / "camera.toml").read_text()
    assert camera_toml.load("mine", Section, EXAMPLES / "camera.toml") == camera_toml.load("mine", Section)
    for name, kind in SOURCES.items():
        before, _, rest = text.partition(f"\n#[{name}]\n")
        own = re.split(r"^#\[", rest, flags=re.M)[0]
        (tmp_path / "camera.toml").write_text(f"{before}\n[{name}]\n" + re.sub(r"^#(?! )", "", own, flags=re.M))
        assert camera_toml.load(name, kind.options, tmp_path / "camera.toml").options == kind.options()
