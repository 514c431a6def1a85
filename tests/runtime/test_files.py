"""Files from outside never make a reader wait or grow, and names from outside never move the cursor."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from asperity.runtime.commands.keys import app
from asperity.runtime.errors import AccessError, ConfigError, SignatureError, UsageError
from asperity.runtime.files import (
    OTHERS_MAY_USE,
    FileRefused,
    make_folder,
    put_folder,
    read_file,
    replacing,
    shown,
    write_whole,
)
from asperity.runtime.security.curve_keys import ClientKeys, Role, read_client_key
from asperity.runtime.security.private_files import read_secret
from asperity.runtime.security.signing_keys import TrustStore, new_signing_key, read_public_key
from asperity.runtime.settings.log_lines import begin
from asperity.runtime.settings.station_toml import Log

EVIL = "a\x1b[31mb\r\n\x9b2J\u202ec\udcff"
SAFE = r"a\x1b[31mb\r\n\x9b2J\u202ec\udcff"


def refused(path: Path, **options: object) -> str:
    with pytest.raises(FileRefused) as caught:
        read_file(path, 1000, **options)  # type: ignore[arg-type]
    assert caught.value.filename == str(path)
    return caught.value.strerror


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    assert read_file(path, 1000) == b"x" * 1000
    (tmp_path / "link").symlink_to(path)
    assert refused(tmp_path / "link") == "it is a link"
    assert read_file(tmp_path / "link", 1000, follow=True) == b"x" * 1000
    path.write_bytes(b"x" * 1001)
    assert refused(path) == "it is larger than 1000 bytes"
    (tmp_path / "device").symlink_to("/dev/zero")
    assert refused(tmp_path / "device", follow=True) == "it is a device, not a regular file"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "it is a pipe, not a regular file"
    assert refused(tmp_path) == "it is a folder, not a regular file"
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 1000)


def test_what_others_have_a_hand_in_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"x")
    assert read_file(path, 10, forbidden=OTHERS_MAY_USE) == b"x"
    path.chmod(0o604)
    assert refused(path, forbidden=OTHERS_MAY_USE) == "it has mode 0604, so other users may use it"
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    if path.stat().st_uid == 0:
        os.chown(path, 4711, -1)
    assert "belongs to another user" in refused(path, forbidden=0)


def test_a_file_is_replaced_whole_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "file").symlink_to("elsewhere")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new" and not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "file"]


def test_a_file_that_is_not_written_whole_is_not_seen_and_no_mode_is_beyond_the_umask(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old", mode=0o644)
    with pytest.raises(OSError, match="disk"), replacing(tmp_path / "file") as file:
        file.write(b"half of")
        raise OSError("the disk is full")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "file", b"new", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_folders_that_are_made_are_this_users_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")} == {0o700}
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop", "file/c/d", "loop/c/d"):
        with pytest.raises(NotADirectoryError, match=name[:4]):
            make_folder(tmp_path / name)


def test_a_folder_is_put_in_place_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    target, draft = tmp_path / "target", tmp_path / "draft"
    for number in (1, 2):
        draft.mkdir()
        (draft / "number").write_text(str(number))
        put_folder(draft, target)
        assert (target / "number").read_text() == str(number)
    with pytest.raises(FileNotFoundError):
        put_folder(draft, target)  # there is no draft
    assert (target / "number").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_is_shown_is_printable() -> None:
    assert shown(EVIL) == SAFE
    plain = "Käufer 7 / Größe ≥ 3 µm, 部品"
    assert shown(plain) == plain
    assert shown(Path("a\nb")) == r"a\nb"


def test_a_log_line_is_one_line_whatever_is_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        for kind in ("text", "json"):
            root.handlers.clear()
            begin(msgspec.convert({"format": kind}, Log))
            logging.getLogger("asperity.station").warning("camera %s", EVIL)
    finally:
        root.handlers[:], root.level = before, level
    text, line, end = capfd.readouterr().err.split("\n")
    assert text.endswith(f"camera {SAFE}") and end == ""
    assert json.loads(line)["text"] == f"camera {SAFE}"


def test_an_error_of_a_command_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asperity.runtime.cli", "keys", "trust", os.fsencode(tmp_path / EVIL)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    *usage, sentence = done.stderr.splitlines()
    assert SAFE.encode() in sentence and b"\x1b" not in b"".join(usage)


def test_a_keys_name_cannot_move_the_cursor_and_its_date_must_be_one(tmp_path: Path) -> None:
    key = new_signing_key("x").public
    path = tmp_path / "key.pub"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(key, name="good\x1b[1A\r\nkey")))
    told = CliRunner().invoke(app, ["trust", str(path), "--keys", str(tmp_path / "keys")])
    assert r"good\x1b[1A\r\nkey" in told.stdout and "\x1b" not in told.stdout
    told = CliRunner().invoke(app, ["list", "--keys", str(tmp_path / "keys")])
    assert r"good\x1b[1A\r\nkey" in told.stdout and "\x1b" not in told.stdout
    for created_us in (-1, 2**63 - 1):
        path.write_bytes(msgspec.json.encode(msgspec.to_builtins(key) | {"created_us": created_us}))
        with pytest.raises(UsageError, match="created_us"):
            read_public_key(path)


def test_keys_that_are_pipes_links_or_devices_are_refused(tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "keys")
    key = store.key_for_signing()
    trusted = store.folder / "trusted" / f"{key.key_id}.json"
    for path in (trusted, store.folder / "signing.pem"):
        kept = Path(shutil.copy2(path, tmp_path / "kept"))
        path.unlink()
        os.mkfifo(path, 0o600)
        with pytest.raises(SignatureError, match=r"cannot be read \(.*it is a pipe"):
            store.key_for_signing()
        path.unlink()
        path.symlink_to(kept)
        with pytest.raises(SignatureError, match=r"cannot be read \(.*it is a link"):
            store.key_for_signing()
        path.unlink()
        kept.rename(path)
    assert store.key_for_signing().key_id == key.key_id
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="it is a pipe"):
        read_public_key(tmp_path / "pipe")
    with pytest.raises(AccessError, match="it is a pipe"):
        read_client_key(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is a pipe"):
        read_secret(tmp_path / "pipe")
    clients = ClientKeys(tmp_path / "keys")
    entry, file = clients.admit("cam1", (Role.CAMERA,))
    assert file is not None
    (tmp_path / "linked.key").symlink_to(file)
    assert read_client_key(tmp_path / "linked.key").public_key == entry.public_key, "its user named the link"
    allowed = clients.folder / "allowed" / "cam1.json"
    allowed.unlink()
    os.mkfifo(allowed, 0o600)
    with pytest.raises(AccessError, match="it is a pipe"):
        clients.allowed()
