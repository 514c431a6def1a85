"""``[[combined]]`` in station.toml: what must fit together before a part can have several views."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.combined_stations import combining, names_of, view_of
from asperity.runtime.settings.loading import load, restore, save
from asperity.runtime.settings.station_toml import hosted
from tests.places import ROOT

VIEWS = """
[triggers]
timeout_max_ms = 1000
[limits]
deadline_ms = 500
[recipes]
a = "/a"
b = "/b"
[[stations]]
name = "front"
number = 1
camera = "front"
triggers = "software"
[[stations]]
name = "back"
number = 2
camera = "back"
triggers = "software"
[[combined]]
name = "part"
number = 9
views = ["front", "back"]
complete_ms = 1500
"""


def load_text(folder: Path, text: str) -> None:
    file = folder / "station.toml"
    file.write_text(text)
    load(file)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('views = ["front", "back"]', "views = []", "give 1 to 8"),
        ('views = ["front", "back"]', 'views = ["front", "top"]', "available in [[stations]]: front, back"),
        ('camera = "back"\ntriggers = "software"', 'camera = "back"', "nothing says which part a picture is of"),
        ('camera = "back"\ntriggers = "software"',
         'camera = "back"\ntriggers = "hard_wired"\nhard_wired = { pitch_min_ms = 200 }', "give all of them the same"),
        ("complete_ms = 1500", "complete_ms = 1499", "set it to 1500 or more"),
        ('["front", "back"]', '["front", "front"]', "set it to 2500 or more"),
        ('name = "part"', 'name = "back"', "both have name"),
        ("number = 9", "number = 2", "both have number"),
        ("complete_ms = 1500", 'complete_ms = 1500\n[[combined]]\nname = "p2"\nviews = ["front"]', "is a view of part"),
        ("complete_ms = 1500", 'complete_ms = 1500\nrecipes = { gear = { front = "a" } }', "name each of back, front"),
        ("complete_ms = 1500", 'complete_ms = 1500\nrecipes = { gear = { front = "a", back = "c" } }', "available in"),
        ("[[combined]]", 'recipe = "a"\n[[combined]]', ""),
        ("open", "open", ""),
        ("complete_ms = 1500", "complete_ms = 1500\nopen_max = 0", "open_max"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_remedy(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = VIEWS.replace(old, new, 1)
    if not words:
        load_text(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert words in str(caught.value)


def test_views_that_begin_with_different_recipes_need_a_row(tmp_path: Path) -> None:
    text = VIEWS.replace('camera = "front"', 'camera = "front"\nrecipe = "a"')
    text = text.replace('camera = "back"', 'camera = "back"\nrecipe = "b"')
    with pytest.raises(ConfigError, match="not one row"):
        load_text(tmp_path, text)
    load_text(tmp_path, text + 'recipes = { gear = { front = "a", back = "b" } }')


def test_hard_wired_views_are_of_one_exposure_each(tmp_path: Path) -> None:
    text = VIEWS.replace('triggers = "software"', 'triggers = "hard_wired"\nhard_wired = { pitch_min_ms = 200 }')
    load_text(tmp_path, text.replace("complete_ms = 1500", "complete_ms = 500"))
    with pytest.raises(ConfigError, match="nothing says which exposure is which"):
        load_text(tmp_path, text.replace('["front", "back"]', '["front", "front"]'))


def test_the_example_is_one_part_of_two_cameras() -> None:
    config = load(ROOT / "examples" / "views.toml")
    assert restore(save(config)) == config
    assert names_of(config) == ["front", "back", "gear"]
    assert [view_of(each) for each in hosted(config)] == ["gear", "gear"]
    above = combining(config, config.combined[0], config.stations[0])
    assert (above.station.name, above.station.number, above.station.triggers) == ("gear", 10, "software")
