"""Keys: private ones stay private, trust is given and taken by a person, and every refusal says what to do."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asperity.runtime.commands.keys import app
from asperity.runtime.errors import ConfigError, SignatureError, UsageError
from asperity.runtime.security.private_files import default_key_folder
from asperity.runtime.security.signing_keys import TrustStore, check_signature, new_signing_key, read_public_key


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_use_makes_a_trusted_key_that_only_its_owner_reads(store: TrustStore) -> None:
    key = store.key_for_signing()
    assert store.key_for_signing().key_id == key.key_id
    assert list(store.trusted()) == [key.key_id]
    assert mode(store.folder) == 0o700
    assert mode(store.folder / "signing.pem") == 0o600
    assert check_signature(b"manifest", key.sign(b"manifest"), store, Path("b")) == key.key_id
    with pytest.raises(SignatureError, match="not what key"):
        check_signature(b"manifesto", key.sign(b"manifest"), store, Path("b"))


def test_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASPERITY_KEYS", str(tmp_path / "mine"))
    assert default_key_folder() == tmp_path / "mine"
    monkeypatch.delenv("ASPERITY_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert default_key_folder() == tmp_path / "xdg" / "asperity" / "keys"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_key_folder() == tmp_path / ".config" / "asperity" / "keys"
    monkeypatch.setenv("ASPERITY_KEYS", "~/mine")  # of a unit or a container, where no shell replaces it
    assert default_key_folder() == tmp_path / "mine"


@pytest.mark.parametrize("value", ["~other/keys", "$HOME/keys", " ", "keys ", "C:\\keys", "a\nb"])
def test_a_folder_that_would_be_made_under_an_odd_name_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPERITY_KEYS", value)
    with pytest.raises(ConfigError, match="ASPERITY_KEYS is "):
        default_key_folder()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_could_read_is_not_used(store: TrustStore, bits: int) -> None:
    store.key_for_signing()
    (store.folder / "signing.pem").chmod(bits)
    with pytest.raises(SignatureError, match="chmod 600"):
        store.key_for_signing()


def test_a_store_that_others_could_write_is_not_trusted(store: TrustStore) -> None:
    key = store.key_for_signing()
    for path in (store.folder, store.folder / "trusted", store.folder / "trusted" / f"{key.key_id}.json"):
        before = mode(path)
        path.chmod(before | 0o020)
        with pytest.raises(SignatureError, match="chmod go-w"):
            store.trusted()
        path.chmod(before)
    assert store.trusted()


def test_revoked_stays_revoked(store: TrustStore) -> None:
    key = store.key_for_signing()
    store.revoke(key.key_id)
    assert not store.trusted()
    with pytest.raises(SignatureError, match="revoked"):
        check_signature(b"m", key.sign(b"m"), store, Path("b"))
    with pytest.raises(SignatureError, match="--replace"):
        store.key_for_signing()
    with pytest.raises(UsageError, match="cannot be revoked"):
        store.revoke(key.key_id)
    other = store.new_key(replace=True)
    assert list(store.trusted()) == [other.key_id]
    # Even a file put back into the trusted folder does not undo it.
    (store.folder / "trusted" / f"{key.key_id}.json").write_bytes(
        (store.folder / "revoked" / f"{key.key_id}.json").read_bytes()
    )
    (store.folder / "trusted" / f"{key.key_id}.json").chmod(0o600)
    assert list(store.trusted()) == [other.key_id]
    store.trust(key.public)
    assert key.key_id in store.trusted()


def test_a_key_file_that_lies_about_its_id_is_refused(store: TrustStore, tmp_path: Path) -> None:
    key = new_signing_key("here").public
    lying = tmp_path / "lying.pub"
    lying.write_text(json.dumps({"key_id": "0" * 16, "public_key": key.public_key, "name": "x", "created_us": 1}))
    with pytest.raises(UsageError, match="not a public key"):
        read_public_key(lying)
    for junk in ("", "{}", "[1]", "-----BEGIN PRIVATE KEY-----"):
        lying.write_text(junk)
        with pytest.raises(UsageError, match="keys export"):
            read_public_key(lying)
    with pytest.raises(UsageError, match="cannot be read"):
        read_public_key(tmp_path / "absent")
    # A trusted file under another key's name would trust more than `keys list` shows.
    store.trust(key)
    (store.folder / "trusted" / f"{key.key_id}.json").rename(store.folder / "trusted" / "0000.json")
    with pytest.raises(SignatureError, match="remove it"):
        store.trusted()


def test_a_damaged_private_key_is_an_error_and_not_a_new_key(store: TrustStore) -> None:
    store.key_for_signing()
    (store.folder / "signing.pem").write_text("rubbish")
    with pytest.raises(SignatureError, match="cannot be read"):
        store.key_for_signing()


def run(*arguments: str, keys: Path) -> str:
    result = CliRunner().invoke(app, [*arguments, "--keys", str(keys)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_commands_carry_a_key_from_box_to_box(tmp_path: Path) -> None:
    made = json.loads(run("new", "--name", "line 1", "--json", keys=tmp_path / "a"))
    file = tmp_path / "station.pub"
    run("export", "-o", str(file), keys=tmp_path / "a")
    assert "PRIVATE" not in file.read_text()
    assert made["key_id"] in run("trust", str(file), keys=tmp_path / "b")
    listed = json.loads(run("list", "--json", keys=tmp_path / "b"))["keys"]
    assert [(k["key_id"], k["state"], k["name"], k["signs_here"]) for k in listed] == [
        (made["key_id"], "trusted", "line 1", False)
    ]
    run("revoke", made["key_id"], keys=tmp_path / "b")
    assert "revoked" in run("list", keys=tmp_path / "b")
    with pytest.raises(UsageError, match="exists"):
        run("new", keys=tmp_path / "a")
    with pytest.raises(UsageError, match="no signing key"):
        run("export", keys=tmp_path / "c")
    assert "no keys" in run("list", keys=tmp_path / "c")
