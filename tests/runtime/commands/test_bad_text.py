"""Commands that are given bad text: one sentence that names it, and the exit code of its kind. Never a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from asperity.runtime import cli

UTF16 = "[station]\n".encode("utf-16-be")
CASES: dict[str, tuple[list[str], dict[str, bytes], int, str]] = {
    "run: another encoding": (["run", "--config", "s"], {"s": b"# gr\xfcn\n"}, 3, "s is not UTF-8 text: line 1"),
    "run: UTF-16": (["run", "--config", "s"], {"s": UTF16}, 3, "s is UTF-16 without a byte order mark"),
    "run: nested": (["run", "--config", "s"], {"s": b"[log]\nlevel=" + b"[" * 9999}, 3, "s is nested too deeply"),
    "run: digits": (["run", "--config", "s"], {"s": b"[log]\nlevel=" + b"9" * 9999}, 3, "s holds a value that is out"),
    "run: endpoint": (["run", "--frames", "tcp://x"], {}, 3, "[sockets] frames is 'tcp://x'"),
    "run: name": (["run", "--station", "lï"], {}, 3, "[station] name: expected"),
    "run: folder": (["run", "--config", "."], {}, 3, "it is a folder, not a regular file"),
    "run: manifest": (["run", "b"], {"b/manifest.json": b'{"recipe":' * 9999}, 5, "does not name a recipe"),
    "run: manifest twice": (["run", "b"], {"b/manifest.json": b'{"recipe":"a","recipe":"b"}'}, 5, "'recipe' twice"),
    "run: not UTF-8": (["run", "b\udcff"], {}, 2, "is not UTF-8"),
    "inspect: manifest": (["inspect", "b"], {"b/manifest.json": b"\xff" * 9, "b/signature": b"{}"}, 5, "bundle"),
    "inspect: signature": (["inspect", "b"], {"b/manifest.json": b"{}", "b/signature": b"[" * 9999}, 5, "signature"),
    "gateway: encoding": (["gateway", "modbus", "--config", "g"], {"g": b"#\xfc"}, 3, "g is not UTF-8 text: line 1"),
    "gateway: host": (["gateway", "http", "--host", "x:1"], {}, 3, "[http] host is 'x:1'; give the port by itself"),
    "gateway: digits": (["gateway", "modbus", "--port", "１２"], {}, 2, "digits 0 to 9"),
    "gateway: results": (["gateway", "modbus", "--results", "http://x"], {}, 3, "[station] results is 'http://x'"),
    "gateway: user": (["gateway", "user", "u", "x"], {"stdin": b"\xff12345678"}, 2, "the password is not UTF-8 text"),
    "gateway: mark": (["gateway", "user", "u", "x"], {"stdin": b"\xef\xbb\xbf1234567\r\n"}, 2, "has 7 characters"),
    "gateway: CR": (["gateway", "user", "u", "x"], {"stdin": b"12345678\r9\n"}, 2, "cannot be typed"),
    "gateway: endless": (["gateway", "user", "u", "x"], {"stdin": b"a" * 9999}, 2, "has more than 4096 bytes"),
    "calibrate: blank": (["calibrate", "d ", "-o", "o"], {}, 2, "it is 'd ', with a blank at one end; remove it"),
    "calibrate: Windows": (["calibrate", "d", "-o", "C:\\o"], {}, 2, "a path of Windows"),
    "calibrate: comma": (["calibrate", "d", "-o", "o", "--alpha", "0,02"], {}, 2, "write a decimal point"),
    "calibrate: percent": (["calibrate", "d", "-o", "o", "--alpha", "2%"], {}, 2, "write the share itself, 0.02"),
    "simulate: unit": (["simulate", "--rate", "30fps"], {}, 2, "write 30 alone, without a unit"),
    "gateway: port twice": (["gateway", "http", "--port", "1", "--port", "2"], {}, 2, "it is given 2 times"),
    "bench: shape": (["bench", "knn", "--shape", "1x99999999999x64"], {}, 2, "is too large"),
    "run: unit": (["run", "--config", "s"], {"s": b"[limits]\ndeadline_ms = 5ms\n"}, 3, "write 5 alone"),
    "run: text": (["run", "--config", "s"], {"s": b'[limits]\ndeadline_ms = "50"\n'}, 3, "got str: '50'"),
    "run: range": (["run", "--config", "s"], {"s": b"[limits]\ndeadline_ms = 0\n"}, 3, ">= 1, not 0"),
    "run: choice": (
        ["run", "--config", "s"], {"s": b'[[stations]]\ntriggers = "Soft"\n'}, 3,
        "triggers: expected free_run or software or hard_wired, not 'Soft'",
    ),
    "live: choice": (
        ["camera", "live", "folder", "--set", "unit=cm"], {}, 3, """unit: expected "" or m or mm or um, not 'cm'""",
    ),
    "live: invalid": (
        ["camera", "live", "folder", "--set", "path=d", "--set", "invalid=0;65535"], {"d/1.ply": b""}, 3,
        "'0;65535' is not a number",
    ),
    "score: name": (["score", "b", "d"], {"d/rgb/a\n.png": b"", "d/xyz/a\n.tiff": b""}, 4, "cannot be seen"),
    "score: twin": (["score", "b", "d"], {"d/rgb/1.png": b"", "d/rgb/1.PNG": b""}, 4, "holds both"),
    "score: maps": (
        ["score", "b", "d/rgb/1.png", "e/rgb/1.png", "--maps", "m"],
        {f"{folder}/{half}": b"" for folder in "de" for half in ("rgb/1.png", "xyz/1.tiff")},
        2, "would both be drawn in m/1.png",
    ),
    "replay: parts": (
        ["camera", "replay", "d"], {"d/rgb/1.png": b"", "d/xyz/1.tiff": b"", "d/parts.csv": b"\xff"}, 4,
        "parts.csv is not UTF-8 text",
    ),
    "replay: twice": (
        ["camera", "replay", "d"],
        {"d/rgb/1.png": b"", "d/xyz/1.tiff": b"", "d/parts.csv": b"name,part_id\n1,A\n1,B\n"},
        4, "names 1 twice, in lines 2 and 3",
    ),
    "camera: size": (["camera", "virtual", "--size", "1²"], {}, 2, "--size '1²' is not valid"),
    "watch: results": (["watch", "--results", "tcp://127.0.0.1"], {}, 2, "without a port"),
    "watch: relative": (["watch", "--results", "ipc://x"], {}, 2, "depends on the current folder"),
    "keys: client": (["keys", "new", "--client", ""], {}, 2, "the text is empty"),
    "keys: trust": (["keys", "trust", "k"], {"k": b"[" * 9999}, 2, "is not a public key of Asperity"),
    "calibrate: digits": (
        ["calibrate", "d", "-o", "o"], {"d/train/good/rgb/1\udcff.png": b"", "d/train/good/xyz/1\udcff.tiff": b""}, 4,
        "1\\udcff' is not UTF-8",
    ),
    "calibrate: folder": (["calibrate", "d", "-o", "~/o"], {}, 2, "the shell did not replace the ~"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_text_ends_in_one_sentence(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, files, code, words = CASES[case]
    monkeypatch.chdir(tmp_path)
    for name, data in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(os.fsencode(name))).write_bytes(data)
    if (stdin := Path("stdin")).exists():
        monkeypatch.setattr(sys, "stdin", stdin.open())
    monkeypatch.setattr(sys, "argv", ["asperity", *arguments])
    monkeypatch.setattr("asperity.runtime.process.early_signals.install", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr().err
    assert (ended.value.code, words in said) == (code, True), said
    assert "Traceback" not in said
