"""Transport keys: private parts stay private, roles are given by a person, and every refusal says what to do."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from asperity.runtime.commands.keys import app
from asperity.runtime.errors import AccessError, UsageError
from asperity.runtime.security.curve_keys import ClientKey, ClientKeys, Role, read_client_key


@pytest.fixture
def keys(tmp_path: Path) -> ClientKeys:
    return ClientKeys(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_stations_pair_is_made_once_and_is_its_owners(keys: ClientKeys) -> None:
    key = keys.station()
    assert keys.station() == key
    assert mode(keys.folder) == mode(keys.folder.parent) == 0o700
    assert mode(keys.folder / "station.key") == 0o600
    assert zmq.curve_public(key.secret_key.encode()) == key.public_key.encode()
    assert key.secret_key not in repr(key)
    for bits in (0o640, 0o604):
        (keys.folder / "station.key").chmod(bits)
        with pytest.raises(AccessError, match="chmod 600"):
            keys.station()


def test_a_client_takes_one_file_away_that_only_its_owner_reads(keys: ClientKeys) -> None:
    entry, path = keys.admit("plc1", (Role.READ, Role.OPERATE))
    assert path is not None and mode(path) == 0o600
    key = read_client_key(path)
    assert (key.name, key.public_key, key.station_key) == ("plc1", entry.public_key, keys.station().public_key)
    assert zmq.curve_public(key.secret_key.encode()) == entry.public_key.encode()
    assert keys.allowed() == {"plc1": entry}
    stored = (keys.folder / "allowed" / "plc1.json").read_text()
    assert key.secret_key not in stored + repr(key) + repr(entry) + str(key)
    path.chmod(0o644)
    with pytest.raises(AccessError, match="others could connect as this client"):
        read_client_key(path)


def test_a_client_may_keep_its_private_key_to_itself(keys: ClientKeys) -> None:
    public = zmq.curve_keypair()[0].decode()
    entry, path = keys.admit("plc1", (Role.READ,), public_key=public)
    assert path is None and keys.allowed()["plc1"].public_key == public
    assert sorted(file.name for file in keys.folder.iterdir()) == ["allowed", "station.key"]
    keys.revoke("plc1")
    with pytest.raises(AccessError, match="was revoked"):
        keys.admit("plc2", (Role.READ,), public_key=public)
    assert list(keys.revoked()) == [entry.key_id]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "Plc 1", "roles": (Role.READ,)}, "is not a valid name"),
        ({"name": "", "roles": (Role.READ,)}, "is not a valid name"),
        ({"name": "../x", "roles": (Role.READ,)}, "is not a valid name"),
        ({"name": "plc1", "roles": ()}, "--role is missing"),
        ({"name": "plc1", "roles": (Role.READ,), "public_key": "short"}, "40 characters"),
        ({"name": "plc1", "roles": (Role.READ,), "public_key": "#" * 40}, "40 characters"),
        ({"name": "known", "roles": (Role.READ,)}, "is already allowed"),
    ],
)
def test_what_cannot_be_admitted_is_named(keys: ClientKeys, arguments: dict[str, object], words: str) -> None:
    keys.admit("known", (Role.CAMERA,))
    with pytest.raises(UsageError, match=words):
        keys.admit(**arguments)  # type: ignore[arg-type]
    assert list(keys.allowed()) == ["known"]


def test_no_file_is_overwritten(keys: ClientKeys, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="name another file"):
        keys.admit("plc1", (Role.READ,), output=tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious" and not keys.allowed()


def test_a_revoked_client_is_out_even_if_its_entry_came_back(keys: ClientKeys) -> None:
    keys.admit("plc1", (Role.READ,))
    entry = (keys.folder / "allowed" / "plc1.json").read_bytes()
    before = keys.stamp()
    keys.revoke("plc1")
    assert keys.stamp() != before
    (keys.folder / "allowed" / "plc1.json").write_bytes(entry)
    (keys.folder / "allowed" / "plc1.json").chmod(0o600)
    assert not keys.allowed()
    with pytest.raises(UsageError, match="no client 'plc1'"):
        keys.revoke("plc1")


@pytest.mark.parametrize("what", ["", "allowed", "allowed/plc1.json"])
def test_a_folder_in_which_others_could_let_clients_in_is_not_believed(keys: ClientKeys, what: str) -> None:
    keys.admit("plc1", (Role.READ,))
    path = keys.folder / what
    before = keys.stamp()
    path.chmod(mode(path) | 0o020)
    assert keys.stamp() != before
    with pytest.raises(AccessError, match="chmod go-w"):
        keys.allowed()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"name": "plc1", "secret_key": "SECRET"}'])
def test_a_damaged_entry_lets_nobody_in_and_is_not_quoted(keys: ClientKeys, content: bytes) -> None:
    keys.admit("plc1", (Role.READ,))
    (keys.folder / "allowed" / "plc1.json").write_bytes(content)
    with pytest.raises(AccessError, match="damaged or not a valid AllowedKey") as caught:
        keys.allowed()
    assert "SECRET" not in str(caught.value)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="asperity keys new --client"):
        read_client_key(tmp_path / "nobody.key")


def test_commands_manage_both_kinds_and_never_show_a_secret(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--keys", str(tmp_path / "keys")], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        shown.append(result.output)
        return result.output

    shown: list[str] = []
    run("new", "--name", "box")
    output = tmp_path / "cam.key"
    told = json.loads(run("new", "--client", "cam", "--role", "camera", "--role", "read", "-o", str(output), "--json"))
    assert (told["roles"], told["file"]) == (["camera", "read"], str(output))
    run("new", "--client", "plc1", "--role", "operate")
    listed = json.loads(run("list", "--json"))
    assert [key["state"] for key in listed["keys"]] == ["trusted"]
    assert [(key["name"], key["state"]) for key in listed["clients"]] == [("cam", "allowed"), ("plc1", "allowed")]
    run("revoke", "--client", "plc1")
    assert "client  plc1: operate" in run("list")
    key = read_client_key(output)
    assert run("export", "--station").strip() == key.station_key
    files = [path for path in (tmp_path / "keys").rglob("*") if path.is_file()]
    secrets = [json.loads(p.read_text())["secret_key"] for p in [*files, output] if p.suffix == ".key"]
    assert len(secrets) == 3
    assert not [secret for secret in secrets for text in shown if secret in text]
    with pytest.raises(UsageError, match="--client NAME"):
        CliRunner().invoke(app, ["new", "--role", "read", "--keys", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(UsageError, match="or --client NAME"):
        CliRunner().invoke(app, ["revoke", "--keys", str(tmp_path)], catch_exceptions=False)


def test_a_client_key_secures_a_socket(keys: ClientKeys) -> None:
    path = keys.admit("plc1", (Role.READ,))[1]
    assert path is not None
    key: ClientKey = read_client_key(path)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        key.secure(socket)
        assert socket.mechanism == zmq.CURVE
