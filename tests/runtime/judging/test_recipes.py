"""Recipes: only what [recipes] names is opened, only when the bundle says the same, and a bad one says why."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda import driver
from asperity.runtime.engines import parity_gate as gate
from asperity.runtime.engines.tensorrt import build
from asperity.runtime.engines.tensorrt import graphs as trt_graph
from asperity.runtime.errors import BundleError, ConfigError, EngineError, ParityError, SignatureError
from asperity.runtime.judging.recipe_loader import Loader, Opened
from asperity.runtime.judging.recipes import (
    OpenRecipes,
    describe_engine,
    open_recipe,
    recipe_name,
    verify_in_child,
)
from asperity.runtime.manifest import Decision
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.settings.station_toml import StationConfig
from tests.bundle_factory import ToyBundle, write_toy_bundle


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    return write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"))


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., StationConfig]:
    def make(recipes: dict[str, str], **engine: Any) -> StationConfig:
        values = {"engine": {"trust": str(tmp_path / "keys"), "threads": 1, **engine}, "recipes": recipes}
        return msgspec.convert(values, StationConfig)

    return make


def silent(stage: str) -> None:
    pass


def test_a_bundle_is_opened_under_its_own_name(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "prove", lambda bundle, engine, progress: bundle.manifest.decision)
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)})
    recipe = open_recipe(name, config, silent)
    assert (recipe.name, len(recipe.bundle), recipe.simulated) == (name, 12, False)
    assert (recipe.info, recipe.info.name) == (describe_engine(config), "cpu")
    with pytest.raises(ParityError):
        list(recipe.golden_steps(silent))  # the self-test is the real gate, and a toy's golden scores are made up
    recipe.engine.close()
    with pytest.raises(ConfigError, match=f"calls itself '{name}'"):
        open_recipe("other", make_config({"other": str(toy.path)}), silent)


def test_an_engine_that_fails_the_gate_gives_no_recipe(
    toy: ToyBundle, make_config: Callable[..., StationConfig]
) -> None:
    name = recipe_name(toy.path)
    with pytest.raises(ParityError):
        open_recipe(name, make_config({name: str(toy.path)}), silent)


def test_a_station_told_to_use_the_gpu_never_goes_on_without_it(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No driver, no pycuda: an error that says what to do, and no other engine in its place."""
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)}, name="cuda")
    assert describe_engine(config).name == "cuda"
    monkeypatch.setattr(driver, "check_driver", lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pycuda does not load .* pip install .*pycuda>="):
        open_recipe(name, config, silent)
    monkeypatch.undo()
    if not Path("/dev/nvidiactl").exists():
        with pytest.raises(EngineError, match=r"no NVIDIA driver here .*install it"):
            open_recipe(name, config, silent)


def test_a_recipe_whose_frames_the_stations_limits_refuse_does_not_open(
    toy: ToyBundle, make_config: Callable[..., StationConfig]
) -> None:
    """24 x 30 pixels: colour alone has 2160 bytes. It would become READY, and no frame would ever come."""
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)})
    narrow = msgspec.structs.replace(config, sockets=msgspec.structs.replace(config.sockets, frames_max_nbytes=2159))
    for door in (
        lambda: open_recipe(name, narrow, silent),
        lambda: OpenRecipes().open(name, narrow, in_child_first=True),
    ):
        with pytest.raises(
            ConfigError, match=rf"frames_max_nbytes is 2159, and frames of recipe {name} \(24 x 30 pixels"
        ):
            door()


def test_only_named_recipes_are_opened(make_config: Callable[..., StationConfig]) -> None:
    with pytest.raises(ConfigError, match=r"no recipe x; available in \[recipes\]: a, b"):
        open_recipe("x", make_config({"a": "/a", "b": "/b"}), silent)


def test_a_bundle_by_a_key_that_is_not_trusted_does_not_open(
    toy: ToyBundle, make_config: Callable[..., StationConfig], tmp_path: Path
) -> None:
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)}, trust=str(tmp_path / "nobody"))
    with pytest.raises(SignatureError):
        open_recipe(name, config, silent)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no bundle at"), (b"{]", "does not name a recipe"), (b'{"recipe": "A B"}', "does not name a recipe")],
)
def test_a_folder_without_a_recipe_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=words):
        recipe_name(tmp_path)


def test_a_child_process_finds_out_first_and_says_why(
    toy: ToyBundle, make_config: Callable[..., StationConfig]
) -> None:
    banks = toy.path / "banks.safetensors"
    banks.write_bytes(banks.read_bytes()[:-1] + b"\x55")
    name = recipe_name(toy.path)
    with pytest.raises(BundleError, match=r"did not open: .*banks\.safetensors was modified"):
        verify_in_child(name, make_config({name: str(toy.path)}))


def test_a_child_process_that_agrees_raises_nothing(make_config: Callable[..., StationConfig]) -> None:
    verify_in_child("a", make_config({"a": "script:ok"}, name="simulated"))


def test_a_start_that_was_given_up_or_overtaken_is_forgotten(make_config: Callable[..., StationConfig]) -> None:
    config = make_config({"a": "script:ok", "b": "script:ng", "c": "script:what"}, name="simulated")
    loader = Loader(config, lambda: lambda: None, OpenRecipes())
    opened: dict[str, Opened | None] = {}
    for number, (name, forgotten) in enumerate([("a", True), ("b", False), ("c", False)], start=1):
        loader._number = number
        loader._run(number, name, in_child_first=False)
        if forgotten:
            loader.give_up()
        opened[name] = loader.opened()
    assert opened["a"] is None
    assert opened["b"] is not None and opened["b"].recipe is not None
    assert opened["c"] is not None and isinstance(opened["c"].error, ConfigError)
    assert loader.opened() is None


def test_stations_of_one_bundle_get_one_opened_recipe_and_the_last_closes_it(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "prove", lambda bundle, engine, progress: bundle.manifest.decision)
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)})
    recipes = OpenRecipes()
    first = recipes.open(name, config, in_child_first=False)
    closed = threading.Event()
    close = first.engine.close
    monkeypatch.setattr(first.engine, "close", lambda: (close(), closed.set()))
    verify = "asperity.runtime.judging.recipes.verify_in_child"
    monkeypatch.setattr(verify, lambda name, config: pytest.fail("it is open already"))
    assert recipes.open(name, config, in_child_first=True) is first
    recipes.put_away(first)
    assert not closed.is_set()
    recipes.put_away(replace(first, decision=first.decision))  # as after set_threshold
    assert closed.wait(30)
    again = recipes.open(name, config, in_child_first=False)
    assert again.engine is not first.engine
    recipes.lose(again)
    anew = recipes.open(name, config, in_child_first=False)
    assert anew.engine is not again.engine, "a lost engine is given to nobody"
    banks = toy.path / "banks.safetensors"
    banks.write_bytes(banks.read_bytes()[:-1] + b"\x55")
    with pytest.raises(BundleError, match="modified"):
        recipes.open(name, config, in_child_first=False)  # although it is open: what lies there now is another thing
    for recipe in (again, anew):
        recipes.put_away(recipe)


def test_stations_that_open_one_bundle_at_the_same_time_open_it_once(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    proven: list[object] = []

    def prove(bundle: Bundle, engine: object, progress: object) -> Decision:
        proven.append(engine)
        return bundle.manifest.decision

    monkeypatch.setattr(gate, "prove", prove)
    name = recipe_name(toy.path)
    config, recipes = make_config({name: str(toy.path)}), OpenRecipes()
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: recipes.open(name, config, in_child_first=False), range(4)))
    assert len(proven) == 1 and all(recipe is opened[0] for recipe in opened)
    for recipe in opened:
        recipes.put_away(recipe)


def start_building(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch, program: str
) -> tuple[Loader, str]:
    """A loader of a bundle whose networks are missing; ``program`` stands in for the command that builds them."""
    monkeypatch.setattr(trt_graph, "networks_missing", lambda *_: True)
    monkeypatch.setattr(build, "build_command", lambda *_: [sys.executable, "-c", program])
    name = recipe_name(toy.path)
    config = make_config({name: str(toy.path)}, name="cuda", build_missing=True)
    loader = Loader(config, lambda: lambda: None, OpenRecipes())
    loader.start(name, in_child_first=False)
    return loader, name


def outcome(loader: Loader) -> Opened:
    ends_s = time.monotonic() + 60
    while (opened := loader.opened()) is None:
        assert time.monotonic() < ends_s
        time.sleep(0.01)
    return opened


def test_networks_that_are_missing_are_built_before_a_recipe_is_opened(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = tmp_path / "built"
    seen: list[bool] = []
    monkeypatch.setattr(OpenRecipes, "open", lambda *_, **__: seen.append(built.exists()))
    loader, name = start_building(toy, make_config, monkeypatch, f"open({str(built)!r}, 'w')")
    opened = outcome(loader)
    assert (opened.name, opened.error, seen, loader.building) == (name, None, [True], "")
    assert loader.patience_ms == (120 + 3600) * 1000


def test_a_build_that_fails_opens_nothing_and_brings_the_words(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, _ = start_building(toy, make_config, monkeypatch, "import sys; sys.exit('no room on the GPU')")
    opened = outcome(loader)
    assert opened.recipe is None and "no room on the GPU" in str(opened.error)


def test_a_build_ends_with_the_wish_for_it(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    program = f"import time; open({str(begun)!r}, 'w'); time.sleep(600)"
    loader, name = start_building(toy, make_config, monkeypatch, program)
    ends_s = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < ends_s
        time.sleep(0.01)
    assert loader.building == name
    loader.end(60.0)
    assert loader.building == "" and loader.opened() is None


def test_without_being_told_so_nothing_is_built(
    toy: ToyBundle, make_config: Callable[..., StationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_networks", lambda *_: pytest.fail("it was built"))
    monkeypatch.setattr(OpenRecipes, "open", lambda *_, **__: None)
    name = recipe_name(toy.path)
    for engine in ({"name": "cuda"}, {"name": "cpu", "build_missing": True}):
        loader = Loader(make_config({name: str(toy.path)}, **engine), lambda: lambda: None, OpenRecipes())
        loader.start(name, in_child_first=False)
        assert outcome(loader).error is None
        assert loader.patience_ms == 120_000
