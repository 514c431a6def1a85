"""CURVE keys (https://rfc.zeromq.org/spec/26/): of the station, of each client, and who is allowed to do what.

The key folder (``runtime.security.private_files``) holds

    transport/station.key          the station's own pair, mode 0600; made on first use
    transport/allowed/NAME.json    a client's public key and its roles; its presence is the permission
    transport/revoked/KEYID.json   public keys that are refused forever
    transport/NAME.key             what ``asperity keys new --client NAME`` wrote for that client to take away

A client needs one file, its ``NAME.key``: both its keys and the station's public key, as Z85 texts
(https://rfc.zeromq.org/spec/32/) that every ZeroMQ binding takes as they are. Private parts are in files of mode 0600
only; they are never printed, logged or shown by ``repr``.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import zmq
from zmq.utils import z85

from asperity.runtime.errors import AccessError, UsageError, WireError
from asperity.runtime.files import OTHERS_MAY_WRITE
from asperity.runtime.security.private_files import (
    KEYS_VARIABLE,
    Private,
    check_folder,
    default_key_folder,
    read_private,
    write_private,
)
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.wire import MAX_PARTS

CLIENTS_MAX = 256
"""Clients that may be allowed at once."""
REMEDY = f"free space or name another folder with {KEYS_VARIABLE}"
OF_CLIENT = Private(AccessError, "others could connect as this client")
OF_STATION = Private(AccessError, "others could pose as this station")
OF_CLIENTS = Private(AccessError, "others could admit clients", "run `chmod go-w {}`", forbidden=OTHERS_MAY_WRITE)

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_-]{1,32}\Z")]
KeyText = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")]
"""32 bytes as Z85."""


class Role(str, Enum):
    """What a client may do; it may have several. ``sockets.access`` says which sockets and requests that opens."""

    CAMERA = "camera"
    READ = "read"
    OPERATE = "operate"
    ADMINISTER = "administer"


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the files: shows only its public part."""

    def __post_init__(self) -> None:
        for field in ("public_key", "secret_key", "station_key"):
            try:
                z85.decode(getattr(self, field, ""))
            except struct.error:
                raise ValueError(f"{field} is beyond 32 bytes") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'public_key', '')!r})"


class StationKey(_Key, frozen=True, forbid_unknown_fields=True):
    """The station's own pair."""

    public_key: KeyText
    secret_key: KeyText
    created_us: int
    algorithm: Literal["curve25519"] = "curve25519"


class ClientKey(_Key, frozen=True, forbid_unknown_fields=True):
    """All that a client needs to connect."""

    name: Name
    public_key: KeyText
    secret_key: KeyText
    station_key: KeyText
    """The station's public key: a station without its private part is not spoken to."""
    created_us: int
    algorithm: Literal["curve25519"] = "curve25519"

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket connect as this client, to this station only. Before ``connect``."""
        socket.curve_publickey = self.public_key.encode()
        socket.curve_secretkey = self.secret_key.encode()
        socket.curve_serverkey = self.station_key.encode()


class AllowedKey(_Key, frozen=True, forbid_unknown_fields=True):
    """A client as the station knows it."""

    name: Name
    public_key: KeyText
    roles: tuple[Role, ...]
    created_us: int
    algorithm: Literal["curve25519"] = "curve25519"

    @property
    def key_id(self) -> str:
        """The name of the key for people and logs: 16 hex digits of the SHA-256 of its public bytes."""
        return hashlib.sha256(z85.decode(self.public_key)).hexdigest()[:16]


K = TypeVar("K", StationKey, ClientKey, AllowedKey)


def read_client_key(key: ClientKey | Path | str) -> ClientKey:
    """A client's key from its file. Raises AccessError when there is none, or others could read it."""
    if isinstance(key, ClientKey):
        return key
    path = Path(key)
    try:
        return _decode(read_private(path, OF_CLIENT, follow=True), path, ClientKey)
    except FileNotFoundError:
        raise AccessError(
            f"there is no client key {path}; create one on the station with `asperity keys new --client NAME --role "
            "ROLE`"
        ) from None
    except OSError as error:
        raise AccessError(f"client key {path} cannot be read: {error.strerror}") from None


def secure(socket: zmq.Socket[bytes], key: ClientKey | Path | str | None) -> None:
    """Make ``socket`` connect with ``key``; None: plainly, which a station with CURVE refuses. Raises AccessError."""
    if key is not None:
        read_client_key(key).secure(socket)


def receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    """The next message of a client's socket, without waiting; its parts are counted as they come.

    Raises zmq.Again, WireError on a message of more than MAX_PARTS parts, whose rest is thrown away.
    """
    parts = [socket.recv(zmq.NOBLOCK)]
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv(zmq.NOBLOCK)
        if len(parts) <= MAX_PARTS:
            parts.append(part)
    if len(parts) > MAX_PARTS:
        raise WireError(f"a message of more than {MAX_PARTS} parts; is that a station?")
    return parts


class ClientKeys:
    """The transport keys of one machine.

    Raises AccessError, with the command that repairs it, when another user could read the station's private key or
    could let a client in.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: the key folder; None: the user's."""
        self._folder = folder

    @cached_property
    def folder(self) -> Path:
        """Looked for when a key is needed: a station without CURVE needs no key folder. Raises ConfigError."""
        return (self._folder or default_key_folder()) / "transport"

    def station(self) -> StationKey:
        """The station's own pair, made on first use."""
        path = self.folder / "station.key"
        try:
            return _decode(read_private(path, OF_STATION), path, StationKey)
        except FileNotFoundError:
            public, secret = _new_pair()
            key = StationKey(public_key=public, secret_key=secret, created_us=_now_us())
            write_private(path, _file(key), REMEDY)
            return key
        except OSError as error:
            raise AccessError(f"{path} cannot be read: {error.strerror}; make it yours with `chown`") from None

    def allowed(self) -> dict[str, AllowedKey]:
        """Clients by name. One whose key is also revoked is not among them."""
        revoked = self.revoked()
        return {key.name: key for key in self._read_folder("allowed") if key.key_id not in revoked}

    def revoked(self) -> dict[str, AllowedKey]:
        """Revoked keys by key id."""
        return {key.key_id: key for key in self._read_folder("revoked")}

    def admit(
        self, name: str, roles: tuple[Role, ...], public_key: str = "", output: Path | None = None
    ) -> tuple[AllowedKey, Path | None]:
        """Admit a client from now on: returns its entry and the file for it (None if it has its pair already).

        ``public_key``: of a pair that the client made itself, as Z85; empty: make one and write it to ``output``.
        Raises UsageError on a name that is taken or cannot be, AccessError on a key that was revoked.
        """
        if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
            raise UsageError(f"--client {name!r} is not a valid name; use 1 to 32 characters from a-z 0-9 _ -")
        if not roles:
            raise UsageError(f"--role is missing; give one or more of {', '.join(role.value for role in Role)}")
        clients = self.allowed()
        if name in clients:
            raise UsageError(f"client {name} is already allowed; revoke it first, or give the new one another name")
        if len(clients) >= CLIENTS_MAX:
            raise UsageError(f"{len(clients)} clients are allowed, which is the maximum; revoke one first")
        output = output or self.folder / f"{name}.key"
        if not public_key and output.exists():
            raise UsageError(f"{output} exists; name another file with --output, or remove it")
        station = self.station()
        public, secret = (public_key, "") if public_key else _new_pair()
        entry = _convert({"name": name, "roles": roles, "created_us": _now_us(), "public_key": public})
        if entry.key_id in self.revoked():
            raise AccessError(f"key {entry.key_id} was revoked here permanently; create a new key pair")
        if not public_key:
            key = ClientKey(
                name=name,
                public_key=public,
                secret_key=secret,
                station_key=station.public_key,
                created_us=entry.created_us,
            )
            write_private(output, _file(key), "name another file with --output")
        write_private(self.folder / "allowed" / f"{name}.json", _file(entry), REMEDY)
        return entry, None if public_key else output

    def revoke(self, name: str) -> AllowedKey:
        """Shut a client out: its requests at once, its open connections as soon as the station has looked.

        Raises UsageError when there is no such client.
        """
        clients = self.allowed()
        if name not in clients:
            raise UsageError(f"there is no client {name!r}; allowed clients: {', '.join(clients) or 'none'}")
        entry = clients[name]
        # Revoked first: a crash between the two leaves the key revoked.
        write_private(self.folder / "revoked" / f"{entry.key_id}.json", _file(entry), REMEDY)
        (self.folder / "allowed" / f"{name}.json").unlink(missing_ok=True)
        return entry

    def stamp(self) -> tuple[Any, ...]:
        """Changes whenever a key may have been added, changed or revoked. Raises OSError."""
        found: list[Any] = []
        for folder in (self.folder, self.folder / "allowed", self.folder / "revoked"):
            for path in (folder, *sorted(folder.glob("*.json"))):
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                found.append((str(path), state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_mode))
        return tuple(found)

    def _read_folder(self, name: str) -> list[AllowedKey]:
        folder = self.folder / name
        keys = []
        try:
            if not folder.is_dir():
                return []
            check_folder(self.folder.parent, OF_CLIENTS, follow=True)
            for checked in (self.folder, folder):
                check_folder(checked, OF_CLIENTS)
            for path in sorted(folder.glob("*.json")):
                try:
                    key = _decode(read_private(path, OF_CLIENTS), path, AllowedKey)
                except FileNotFoundError:
                    continue  # revoked while the folder was being read
                if path.stem != (key.name if name == "allowed" else key.key_id):
                    raise AccessError(
                        f"{path} holds key {key.key_id} of {key.name}, but the file is named after another one"
                    )
                keys.append(key)
        except OSError as error:
            raise AccessError(f"key folder {folder} cannot be read ({error.strerror}); make it yours") from None
        return keys


def _new_pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _now_us() -> int:
    return time.time_ns() // 1000


def _file(key: StationKey | ClientKey | AllowedKey) -> bytes:
    return msgspec.json.format(msgspec.json.encode(key), indent=1) + b"\n"


def _convert(values: dict[str, Any]) -> AllowedKey:
    try:
        return msgspec.convert(values, AllowedKey)
    except msgspec.ValidationError:
        raise UsageError("--public-key is not a key: give 40 characters of Z85 text") from None


def _decode(data: bytes, path: Path, kind: type[K]) -> K:
    """Raises AccessError where the file is none. Its message quotes nothing of the file."""
    try:
        return decode_json(data, kind)
    except TextRefused:
        raise AccessError(f"{path} is damaged or not a valid {kind.__name__}; create another key") from None
