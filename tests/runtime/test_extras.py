"""What is said of extras: commands that work, although no package index has Asperity."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from asperity.runtime import cli, extras
from asperity.runtime.doctor.python import LIBRARIES
from tests.places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOLDERS = ("runtime", "calibration", "export", "benchmarks", "docs", "examples", "deploy", "asperity")
FILES = [
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")),
]
FROM_AN_INDEX = re.compile(r"""(?:pip|uv|pipx)[\w .'"-]* install[^\n]*?[\s'"]asperity(?![\w/.-])""")


def test_nothing_installs_asperity_from_an_index() -> None:
    for path in FILES:
        if path.suffix in {".png", ".gz", ".npz", ".safetensors", ".pyc", ".fatbin"} or "node_modules" in path.parts:
            continue
        found = FROM_AN_INDEX.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found[0] if found else ''}: use asperity.runtime.extras.install"
    assert FROM_AN_INDEX.search("pip install asperity") and FROM_AN_INDEX.search("pip install -U 'asperity[http]'")


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_what_the_installed_package_says_it_stands_for(extra: str) -> None:
    def names(lines: list[str]) -> set[str]:
        own = [re.fullmatch(r"asperity\[(.+)\]", line) for line in lines]
        deeper = [name for found in own if found for name in EXTRAS[found[1]]]
        plain = [line for line, found in zip(lines, own, strict=True) if not found]
        return {re.split(r"[<>=;~! ]", line)[0] for line in [*plain, *deeper]}

    words = shlex.split(extras.install(extra))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert names(words[4:]) == names(EXTRAS[extra])
    assert not any("extra" in word or "asperity" in word for word in words[4:])
    assert all(re.search(r"\d", word) for word in words[4:]), "each with its versions"


def test_without_metadata_the_command_is_for_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", absent)
    assert extras.install("http", "mqtt").endswith("pip install '.[http,mqtt]'")


def test_markers_that_are_not_about_the_extra_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['open3d>=0.19; python_version >= "3.11" and extra == "a"', "x>=1; extra == 'b'", 'y>2; extra == "a"', "z"]
    monkeypatch.setattr(extras, "requires", lambda name: lines)
    assert extras.requirements("a") == ['open3d>=0.19; python_version >= "3.11"', "y>2"]
    assert extras.requirements("b") == ["x>=1"]


def test_each_module_whose_extra_is_named_is_in_that_extra() -> None:
    assert set(cli.EXTRA_OF_MODULE.values()) <= set(EXTRAS)


def test_one_package_of_an_extra_can_be_named_alone() -> None:
    """Building networks on a Jetson needs onnx; the TensorRT of an index would not load there."""
    assert extras.install("tensorrt", only="onnx").endswith("pip install 'onnx>=1.18'")
    assert "tensorrt" in extras.install("tensorrt", only="nothing")


def test_doctor_names_the_requirements_of_the_package() -> None:
    assert {requirement for _, requirement in LIBRARIES} <= set(PROJECT["dependencies"])


def test_readme_names_every_extra_and_the_service_page_installs_by_them() -> None:
    rows = re.search(r"^\| extra \| for \|\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.M | re.S)
    assert rows and {name for row in rows[1].splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])} == {
        *EXTRAS
    }
    assert "pip install '.[genicam,realsense,ros2,http,opcua,mqtt,io]'" in Path(ROOT / "docs/service.md").read_text()
