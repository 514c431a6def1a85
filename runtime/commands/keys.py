"""`asperity keys`: who may sign bundles for this machine, and (``--client``) who may connect to its station."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from asperity.runtime.errors import UsageError
from asperity.runtime.files import shown
from asperity.runtime.security.curve_keys import AllowedKey, ClientKeys, Role
from asperity.runtime.security.private_files import KEYS_VARIABLE
from asperity.runtime.security.signing_keys import PublicKey, TrustStore, read_public_key

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Manage the keys that sign bundles and the keys of clients.",
)

Folder = Annotated[
    Path | None,
    typer.Option("--keys", help=f"Key folder; default: ${KEYS_VARIABLE}, or the user's configuration folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Name of the key; default: the host name.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Make another key; the old one stays trusted.")] = False,
    client: Annotated[str, typer.Option(help="Make a key for a client of this name instead, and allow it.")] = "",
    role: Annotated[list[Role] | None, typer.Option(help="With --client: what the client may do; repeatable.")] = None,
    public_key: Annotated[
        str, typer.Option(help="With --client: public key (Z85) of a key pair made by the client.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="With --client: file for its key; default: transport/NAME.key in the key folder."
        ),
    ] = None,
    keys: Folder = None,
    as_json: Json = False,
) -> None:
    """Make and trust a signing key, or make and allow a client key."""
    if client:
        _new_client(client, tuple(dict.fromkeys(role or ())), public_key, output, keys, as_json)
        return
    if role or public_key or output:
        raise UsageError("--role, --public-key and --output are for client keys; add --client NAME")
    store = TrustStore(keys)
    key = store.new_key(name, replace=replace)
    _say(as_json, f"made key {key.key_id} in {store.folder}", _told(key.public, "trusted"))


def _new_client(
    name: str, roles: tuple[Role, ...], public_key: str, output: Path | None, keys: Path | None, as_json: bool
) -> None:
    store = ClientKeys(keys)
    entry, file = store.admit(name, roles, public_key, output)
    told = _told_client(entry, "allowed") | {
        "file": str(file) if file else None,
        "station_key": store.station().public_key,
    }
    take = (
        f"give the client the file {file} and keep it secret"
        if file
        else f"the station's public key is {told['station_key']}"
    )
    _say(as_json, f"client {name} ({_roles(entry)}) is allowed, key {entry.key_id}; {take}", told)


@app.command("list")
def list_keys(keys: Folder = None, as_json: Json = False) -> None:
    """List trusted, allowed and revoked keys."""
    store, transport = TrustStore(keys), ClientKeys(keys)
    own, revoked = store.signing_key(), store.revoked()
    told = [_told(key, "trusted") for key in store.trusted().values()] + [
        _told(key, "revoked") for key in revoked.values()
    ]
    for key in told:
        key["signs_here"] = own is not None and key["key_id"] == own.key_id
    clients = [_told_client(key, "allowed") for key in transport.allowed().values()]
    clients += [_told_client(key, "revoked") for key in transport.revoked().values()]
    if as_json:
        typer.echo(json.dumps({"folder": str(store.folder), "keys": told, "clients": clients}))
        return
    none = "; the first calibration makes one, `asperity keys trust` adds one"
    typer.echo(shown(f"keys in {store.folder}" if told else f"no keys that sign bundles in {store.folder}{none}"))
    for key in told:
        note = "  (signs here)" if key["signs_here"] else ""
        typer.echo(f"{key['key_id']}  {key['state']:8} {key['created']}  {shown(key['name'])}{note}")
    for entry in clients:
        words = [entry["key_id"], f"{entry['state']:8}", entry["created"], "client", entry["name"]]
        typer.echo(f"{'  '.join(words)}: {', '.join(entry['roles'])}")


@app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="Public key written by `asperity keys export`.")],
    keys: Folder = None,
    as_json: Json = False,
) -> None:
    """Trust a key: bundles signed with it open on this machine."""
    key, store = read_public_key(file), TrustStore(keys)
    store.trust(key)
    sentence = f"trusted key {key.key_id} ({key.name}) in {store.folder}"
    _say(as_json, f"{sentence}; compare the ID with the one shown where the key was made", _told(key, "trusted"))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="ID of a trusted key.")] = "",
    client: Annotated[str, typer.Option(help="Revoke the key of this client instead.")] = "",
    keys: Folder = None,
    as_json: Json = False,
) -> None:
    """Revoke a key: its bundles no longer open, or its client cannot connect."""
    if bool(key_id) == bool(client):
        raise UsageError("give the ID of a trusted key, or --client NAME; `asperity keys list` shows both")
    if client:
        entry = ClientKeys(keys).revoke(client)
        sentence = f"revoked client {client}, key {entry.key_id}; a running station disconnects it by itself"
        _say(as_json, sentence, _told_client(entry, "revoked"))
        return
    key = TrustStore(keys).revoke(key_id)
    _say(as_json, f"revoked key {key.key_id} ({key.name})", _told(key, "revoked"))


@app.command()
def export(
    key_id: Annotated[str, typer.Argument(help="ID of a trusted key; default: the key that signs here.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; default: stdout.")] = None,
    station: Annotated[
        bool, typer.Option("--station", help="Write the station's public transport key (Z85) instead.")
    ] = False,
    keys: Folder = None,
) -> None:
    """Write a public key to a file that another machine can trust.

    The private key never leaves its folder.
    """
    text = ClientKeys(keys).station().public_key + "\n" if station else _bundle_key(TrustStore(keys), key_id)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; name another file") from None


def _bundle_key(store: TrustStore, key_id: str) -> str:
    if not key_id:
        own = store.signing_key()
        if own is None:
            raise UsageError(f"there is no signing key in {store.folder}; make one with `asperity keys new`")
        key_id = own.key_id
    trusted = store.trusted()
    if key_id not in trusted:
        raise UsageError(f"key {key_id!r} is not trusted here; `asperity keys list` shows the trusted keys")
    return _file_text(trusted[key_id])


def _file_text(key: PublicKey) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(key).decode(), indent=1) + "\n"


def _told(key: PublicKey | AllowedKey, state: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(key.created_us / 1e6, tz=timezone.utc)
    return {"key_id": key.key_id, "name": key.name, "state": state, "created": created.isoformat(timespec="seconds")}


def _told_client(key: AllowedKey, state: str) -> dict[str, Any]:
    return _told(key, state) | {"roles": [role.value for role in key.roles]}


def _roles(key: AllowedKey) -> str:
    return ", ".join(role.value for role in key.roles)


def _say(as_json: bool, sentence: str, told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told) if as_json else shown(sentence))
