"""`asperity keys`: who may sign bundles that open on this box."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.errors import UsageError
from runtime.keys import KEYS_VARIABLE, PublicKey, TrustStore, read_public_key

app = typer.Typer(name="keys", no_args_is_help=True, help="Keys that sign bundles, and which of them this box trusts.")

Folder = Annotated[
    Path | None,
    typer.Option("--keys", help=f"Key folder; default ${KEYS_VARIABLE} or the user's configuration folder."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Where the key is made, for people; default the host's name.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Make another key; the old one stays trusted.")] = False,
    keys: Folder = None,
    as_json: Json = False,
) -> None:
    """Make this box's signing key and trust it."""
    store = TrustStore(keys)
    key = store.new_key(name, replace=replace)
    _say(as_json, f"made key {key.key_id} in {store.folder}", _told(key.public, "trusted"))


@app.command("list")
def list_keys(keys: Folder = None, as_json: Json = False) -> None:
    """Show the trusted and revoked keys."""
    store = TrustStore(keys)
    own, revoked = store.signing_key(), store.revoked()
    told = [_told(key, "trusted") for key in store.trusted().values()] + [
        _told(key, "revoked") for key in revoked.values()
    ]
    for key in told:
        key["signs_here"] = own is not None and key["key_id"] == own.key_id
    if as_json:
        typer.echo(json.dumps({"folder": str(store.folder), "keys": told}))
        return
    for key in told:
        note = "  (signs here)" if key["signs_here"] else ""
        typer.echo(f"{key['key_id']}  {key['state']:8} {key['created']}  {key['name']}{note}")
    if not told:
        typer.echo(f"no keys in {store.folder}; the first calibration makes one")


@app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="A public key, written by `asperity keys export`.")],
    keys: Folder = None,
    as_json: Json = False,
) -> None:
    """Let bundles signed by this key open on this box."""
    key = read_public_key(file)
    TrustStore(keys).trust(key)
    _say(as_json, f"trusted key {key.key_id} ({key.name}); compare the id with the one shown where it was made",
         _told(key, "trusted"))  # fmt: skip


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of a trusted key.")], keys: Folder = None, as_json: Json = False
) -> None:
    """Never open a bundle signed by this key again."""
    key = TrustStore(keys).revoke(key_id)
    _say(as_json, f"revoked key {key.key_id} ({key.name})", _told(key, "revoked"))


@app.command()
def export(
    key_id: Annotated[str, typer.Argument(help="Id of a trusted key; default the one that signs here.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; default stdout.")] = None,
    keys: Folder = None,
) -> None:
    """Write a public key as a file that another box can trust. The private key never leaves its folder."""
    store = TrustStore(keys)
    if not key_id:
        own = store.signing_key()
        if own is None:
            raise UsageError(f"this box has no signing key in {store.folder}; make one with `asperity keys new`")
        key_id = own.key_id
    trusted = store.trusted()
    if key_id not in trusted:
        raise UsageError(f"key {key_id!r} is not trusted here; `asperity keys list` shows the ones that are")
    text = _file_text(trusted[key_id])
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; name another file") from None


def _file_text(key: PublicKey) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(key).decode(), indent=1) + "\n"


def _told(key: PublicKey, state: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(key.created_us / 1e6, tz=timezone.utc)
    return {"key_id": key.key_id, "name": key.name, "state": state, "created": created.isoformat(timespec="seconds")}


def _say(as_json: bool, sentence: str, told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told) if as_json else sentence)
