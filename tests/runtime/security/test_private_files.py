"""Private files: nobody else has a hand in them, and what is checked is what is read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from asperity.runtime.errors import AccessError, ConfigError, UsageError
from asperity.runtime.security.curve_keys import ClientKeys
from asperity.runtime.security.private_files import (
    MAX_KEY_FILE_BYTES,
    Private,
    check_folder,
    read_private,
    read_secret,
    write_private,
)
from asperity.runtime.security.signing_keys import TrustStore

MINE = Private(AccessError, "others could see it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_private(tmp_path / "keys" / "file", b"secret", "name another")
    return tmp_path / "keys" / "file"


def test_what_is_written_is_this_users_alone(path: Path) -> None:
    assert read_private(path, MINE) == b"secret"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(UsageError, match=r"cannot be written.*name another"):
        write_private(path / "below", b"", "name another")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_no_right_of_others_is_allowed(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(AccessError, match=r"other users may .*\(others could see it\); run `chmod 600 .*keys/file`"):
        read_private(path, MINE)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(path)


def test_another_users_file_is_refused_and_roots_where_that_is_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(AccessError, match=r"another user.*chown"):
        read_private(path, replace(MINE, root=False))
    if owner == 0:
        assert read_private(path, MINE) == b"secret"
        os.chown(path, 4711, -1)
        os.chown(path.parent, 4711, -1)
    with pytest.raises(AccessError, match=r"another user.*chown"):
        read_private(path, MINE)
    with pytest.raises(ConfigError, match=r"another user.*chown"):
        read_secret(path)
    with pytest.raises(AccessError, match=r"another user.*chown"):
        check_folder(path.parent, MINE)


def test_nothing_is_read_of_a_file_that_is_too_large(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(OSError, match="larger than"):
        read_private(path, MINE)


def test_a_link_leads_only_where_the_user_named_it(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="it is a link"):
        read_private(link, MINE)
    assert read_secret(link) == "secret"
    folder = tmp_path / "folder"
    folder.symlink_to(path.parent)
    with pytest.raises(OSError, match="it is a link, not a folder"):
        check_folder(folder, MINE)
    check_folder(folder, MINE, follow=True)


def test_a_key_folder_may_be_reached_by_a_link_and_what_is_in_it_may_not(tmp_path: Path) -> None:
    key = TrustStore(tmp_path / "keys").key_for_signing()
    (tmp_path / "named").symlink_to(tmp_path / "keys")
    store = TrustStore(tmp_path / "named")
    assert list(store.trusted()) == [key.key_id]
    ClientKeys(tmp_path / "named").station()
    (tmp_path / "keys" / "trusted").rename(tmp_path / "elsewhere")
    (tmp_path / "keys" / "trusted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="it is a link, not a folder"):
        store.trusted()
