"""`asperity camera list` and `live` with packages of others, which are found through their entry points."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tomllib
from typer.testing import CliRunner

from asperity.runtime.cameras import source, survey
from asperity.runtime.cameras.camera_toml import LiveSection, load
from asperity.runtime.cameras.source import SourceKind
from asperity.runtime.cameras.sources.folder.options import FolderSection
from asperity.runtime.cameras.sources.realsense.options import RealSenseOptions
from asperity.runtime.commands.camera import app
from asperity.runtime.commands.live_camera import overrides
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError, UsageError
from asperity.runtime.settings.toml_tables import Section
from asperity.testing import PATIENCE_S, Line
from tests.docs.blocks import blocks
from tests.places import DOCS, ROOT

pytestmark = pytest.mark.usefixtures("forked_starts")

HEAD = """from asperity.cameras import Device, Section, SourceKind

class Nothing(Section, frozen=True):
    pass

"""
PACKAGES = {
    "badimport": "raise RuntimeError('licence\\x1b[2J expired')\n",
    "nokind": "KIND = 3\n",
    "ends": HEAD + "import os\n\ndef devices():\n    print('noise')\n    os.kill(os.getpid(), 11)\n\n"
                   "KIND = SourceKind('Ends', Nothing, None, devices=devices)\n",
    "fails": HEAD + "def devices():\n    raise OSError('no bus')\n\n"
                    "KIND = SourceKind('Fails', Nothing, None, devices=devices)\n",
    "hangs": HEAD + "import subprocess\n\ndef devices():\n    subprocess.run(['sleep', '600'])\n\n"
                    "KIND = SourceKind('Hangs', Nothing, None, devices=devices)\n",
    "lacks": HEAD + "KIND = SourceKind('Lacks', Nothing, None, packages={'no_such_sdk.x': 'no-such-sdk==1.0',"
                    " 'harvesters_gone': '[genicam]'})\n",
    "blind": HEAD + "KIND = SourceKind('Blind', Nothing, None, devices=lambda: [])\n",
    "sees": HEAD + "def devices():\n    return [Device('1', 'left'), Device('2', 'right')]\n\n"
                   "KIND = SourceKind('Sees two', Nothing, None, devices=devices)\n",
}  # fmt: skip


def package(folder: Path, name: str, text: str, value: str = "", entry: str = "") -> None:
    """A package as pip leaves it, without pip."""
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[asperity.cameras]\n{entry or name} = {value or f'{name}:KIND'}\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def looked_at(*names: str, limit_s: float = survey.LOOK_S) -> dict[str, survey.Found]:
    return {found.name: found for found in survey.survey(limit_s) if found.name in names}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The sources that are looked at: each costs the start of a process."""
    names: list[str] = []
    monkeypatch.setattr(source, "names", lambda: names)
    yield names


def test_a_package_that_is_broken_hides_no_other(folder: Path, only: list[str]) -> None:
    for name in ("badimport", "nokind", "ends", "fails", "lacks", "blind", "sees"):
        package(folder, name, PACKAGES[name])
        only.append(name)
    package(folder, "upper", PACKAGES["sees"], entry="Upper Case")
    only.append("Upper Case")
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0, result.exception
    found = {each["name"]: each for each in json.loads(result.stdout)["sources"]}
    assert list(found) == only
    assert [device["text"] for device in found["sees"]["devices"]] == ["left", "right"]
    assert found["lacks"]["devices"] is None and found["blind"]["devices"] == []
    assert (found["sees"]["summary"], found["sees"]["triggers"]) == ("Sees two", ["free_run"])
    assert found["lacks"]["lacking"] == ["no_such_sdk.x", "harvesters_gone"] and not found["lacks"]["problem"]
    assert "harvesters" in found["lacks"]["remedy"] and " -m pip install " in found["lacks"]["remedy"]
    assert "licence" in found["badimport"]["problem"] and "\x1b" not in found["badimport"]["problem"]
    assert "not a SourceKind" in found["nokind"]["problem"]
    assert "ended the process with -11" in found["ends"]["problem"]
    assert "OSError: no bus" in found["fails"]["problem"]
    assert "a source's name is 1 to 32" in found["Upper Case"]["problem"]
    only[:] = ["fails", "blind", "sees"]
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == only
    assert "       sees no camera now" in lines
    assert lines[-2:] == ["       camera 1: left", "       camera 2: right"]


def test_an_sdk_that_hangs_is_given_up_with_what_it_started(folder: Path, only: list[str]) -> None:
    package(folder, "hangs", PACKAGES["hangs"])
    only.append("hangs")
    assert "did not answer within 0.5 s" in looked_at("hangs", limit_s=0.5)["hangs"].problem


def test_names_that_mean_several_things_or_none(folder: Path) -> None:
    package(folder, "one", PACKAGES["sees"], entry="same")
    package(folder, "two", PACKAGES["sees"], entry="same")
    package(folder, "three", PACKAGES["sees"], entry="live")
    with pytest.raises(CameraError, match="several camera sources same: one:KIND and two:KIND"):
        source.load("same")
    with pytest.raises(CameraError, match="not camera or live"):
        source.load("live")
    with pytest.raises(UsageError, match="did you mean same"):
        source.load("sane")
    assert "genicam" in source.names()


def test_our_own_sources_need_no_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][source.GROUP]
    assert stated == source.OWN
    monkeypatch.setattr(source, "entry_points", lambda group: [EntryPoint("folder", "asperity.old.folder:KIND", group)])
    assert source.names() == sorted(source.OWN)
    assert all(source.load(name).summary for name in source.OWN)
    monkeypatch.setattr(source, "entry_points", lambda group: [EntryPoint("folder", "theirs:KIND", group)])
    with pytest.raises(CameraError, match="several camera sources folder"):
        source.load("folder")


@pytest.mark.parametrize("ended", ["ImportError('libfoo.so')", "SystemExit(3)", "KeyError('x')"])
def test_an_sdk_that_does_not_load_has_its_remedy_and_ends_nothing(ended: str) -> None:
    def opens(options: object, triggers: object) -> object:
        raise eval(ended)

    kind = SourceKind("Broken", Section, opens, packages={"json": "no-such-sdk==1.0"})
    with pytest.raises(CameraError, match="could not open a camera") as refused:
        source.open_source("broken", kind, Section(), "free_run")
    assert ("install no-such-sdk==1.0 --force-reinstall" in str(refused.value)) == ended.startswith("ImportError")
    both = SourceKind("Lacks", Section, opens, packages={"no_sdk_a": "[genicam]", "no_sdk_b": "[genicam]"})
    assert "genicam,genicam" not in both.remedy()
    with pytest.raises(CameraLostError, match="KeyError"):
        source.call("broken 1", {}.__getitem__, 1)


def test_the_example_of_the_page_is_found_and_works_against_a_real_inspector(tmp_path: Path) -> None:
    (text,) = [block.text for block in blocks(DOCS / "cameras.md") if "SourceKind(" in block.text]
    assert len([line for line in text.splitlines() if line.strip()]) <= 45, "short enough to be read"
    package(tmp_path, "madeup", text)
    with Line(station={"triggers": "software"}, limits={"deadline_ms": 30_000, "max_age_ms": 30_000}) as line:
        line.start()
        line.await_running()
        config = tmp_path / "camera.toml"
        config.write_text(
            f'[camera]\nname = "cam1"\nframes = "{line.ends["frames"]}"\nresults = "{line.ends["results"]}"\n'
            '[live]\ntriggers = "software"\n[madeup]\ngrey = 200\n'
        )
        environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
        camera = line.spawn(
            *line.command()[:3], "camera", "live", "madeup", "--config", str(config), "--frames", "1", "--json",
            environment=environment,
        )  # fmt: skip
        line.wait(lambda: "MadeUp 0001 sends to" in camera.log() or camera.poll() is not None, "the camera")
        with line.client() as client:
            number = 0

            def good() -> bool:
                """A crowded machine may be late: then another part."""
                nonlocal number
                answered = [result for result in line.heard.results if result.trigger_id == number]
                if not number or (answered and answered[0].reason.name == "NO_FRAME"):
                    number += 1
                    assert client.request("trigger", trigger_id=number, part_id=f"P{number}", timeout_ms=5000).ok
                return bool(answered) and answered[0].reason.name == "GOOD"

            line.wait(good, f"a good part\n{camera.log()}")
        assert camera.wait(PATIENCE_S) == 0, camera.log()
        done = json.loads(camera.log().splitlines()[-1])
        assert (done["sent"], done["dropped"]) == (1, 0)


def test_settings_on_the_command_line() -> None:
    given = ["gain=2", "serial=0012", 'text="2"', "live.late_ms=700", "name=a b"]
    assert overrides("mine", given, {}) == {
        "mine": {"gain": 2, "serial": "0012", "text": "2", "name": "a b"}, "live": {"late_ms": 700},
    }  # fmt: skip
    for wrong in ("gain", "=2", ".gain=2"):
        with pytest.raises(UsageError, match="KEY=VALUE"):
            overrides("mine", [wrong], {})
    with pytest.raises(UsageError, match="twice"):
        overrides("mine", ["gain=2", "mine.gain=3"], {})


@pytest.mark.parametrize("value", ["9", "0123", "1e5", "true", "2024-01-01", "[1]", "nan", "a=b", "5 # 3", "1\nunit=2"])
def test_a_key_that_is_a_text_takes_any_value_as_it_is_written(value: str) -> None:
    for said in (value, f"'{value}'" if "\n" not in value else value):
        given = overrides("folder", [f"sensor={said}", "poll_ms=9"], {"folder": FolderSection})
        assert given == {"folder": {"sensor": value, "poll_ms": 9}}
    assert overrides("folder", ["poll_ms=9\nrows=4"], {"folder": FolderSection})["folder"]["poll_ms"] == "9\nrows=4"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[realsense]\nserial = 9\n", "serial: expected a text in quotes, got int: 9"),
        ("[realsense]\nserial = 2024-01-01\n", "serial: expected a text in quotes, got date"),
        ("[folder]\npath = '/x'\n", r"\[folder\] is for another source than realsense"),
        ("[foldr]\npath = '/x'\n", r"there is no \[foldr\]"),
    ],
)
def test_a_camera_toml_of_wrong_types_or_of_another_source(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "camera.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load("realsense", RealSenseOptions, tmp_path / "camera.toml")


@pytest.mark.parametrize(
    ("live", "says"),
    [
        ({"silence_ms": 0}, "would not be noticed"),
        ({"silence_ms": 0, "triggers": "software"}, "would not be noticed"),
        ({"late_ms": 100}, "late_ms"),
        ({"triggers": "hardwired"}, "free_run or software or hard_wired"),
        ({"lost": 1}, "did you mean lost_max"),
    ],
)
def test_a_camera_toml_that_cannot_be(live: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load("mine", Section, None, {"live": live})
    assert load("mine", Section, None, {"live": {"silence_ms": 0, "triggers": "hard_wired"}}).live.silence_ms == 0
    assert LiveSection().silence_ms > 0


def opened(kind: source.SourceKind) -> source.Source:
    return source.open_source("mine", kind, Section(), "free_run")


def test_a_source_that_cannot_be_opened() -> None:
    class Camera:
        sensor = ""
        closed = False

        def close(self) -> None:
            Camera.closed = True

    def fails(options: Section, triggers: str) -> source.Source:
        raise ZeroDivisionError("in the SDK")

    with pytest.raises(CameraError, match="could not open a camera: ZeroDivisionError: in the SDK"):
        opened(source.SourceKind("", Section, fails))
    with pytest.raises(CameraError, match="names its camera ''"):
        opened(source.SourceKind("", Section, lambda *given: Camera()))  # type: ignore[arg-type,return-value]
    assert Camera.closed
    with pytest.raises(UsageError, match="triggers = 'free_run'; it has software"):
        opened(source.SourceKind("", Section, fails, triggers=("software",)))
    with pytest.raises(CameraError, match="needs no_such_sdk; install with: "):
        opened(source.SourceKind("", Section, fails, packages={"no_such_sdk": "no-such-sdk"}))


def test_a_camera_that_waits_for_an_inspector_ends_with_143(tmp_path: Path) -> None:
    package(tmp_path, "madeup", next(b.text for b in blocks(DOCS / "cameras.md") if "SourceKind(" in b.text))
    with Line() as line:
        environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "NOTIFY_SOCKET": ""}
        camera = line.spawn(
            *line.command()[:3], "camera", "live", "madeup", "--set", "live.triggers=software", "--log-format", "json",
            "--set", f"camera.frames={line.ends['frames']}", "--set", f"camera.results={line.ends['results']}",
            "--set", "live.inspector_wait_ms=600000", environment=environment,
        )  # fmt: skip
        line.wait(lambda: "waits for an inspector" in camera.log() or camera.poll() is not None, "the wait")
        camera.send_signal(signal.SIGTERM)
        assert camera.wait(PATIENCE_S) == 143 and "Traceback" not in camera.log(), camera.log()
