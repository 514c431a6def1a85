"""Ed25519 keys: who may sign a bundle that this machine opens.

A key folder (the user's configuration folder, or ``$ASPERITY_KEYS``) holds at most one private key and the public keys
that are trusted or revoked:

    signing.pem             PKCS #8, mode 0600; made by the first calibration or by ``asperity keys new``
    trusted/KEYID.json      public keys whose bundles open on this machine
    revoked/KEYID.json      public keys whose bundles never open here again

A key's id is the first 16 hex digits of the SHA-256 of its 32 public bytes. A bundle's ``signature`` file is JSON with
the key's id and the Ed25519 signature (RFC 8032) of the bytes of ``manifest.json``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from asperity.runtime.errors import SignatureError, UsageError
from asperity.runtime.files import OTHERS_MAY_WRITE, read_file
from asperity.runtime.manifest import LATEST_US
from asperity.runtime.security.private_files import (
    KEYS_VARIABLE,
    MAX_KEY_FILE_BYTES,
    Private,
    check_folder,
    default_key_folder,
    read_private,
    write_private,
)
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.text.names import host_name

SIGNING_FILE = "signing.pem"
KEY_ID_DIGITS = 16
MAX_NAME_CHARACTERS = 64
REMEDY = f"free space or name another folder with {KEYS_VARIABLE}"
OF_SIGNER = Private(SignatureError, "others could sign bundles with it")
OF_TRUST = Private(SignatureError, "others could add keys", "run `chmod go-w {}`", forbidden=OTHERS_MAY_WRITE)


class PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key as a file: what ``asperity keys export`` writes and ``asperity keys trust`` reads."""

    key_id: str
    public_key: str
    """32 bytes, base64."""
    name: str
    """For people: where the key was made."""
    created_us: Annotated[int, msgspec.Meta(ge=0, lt=LATEST_US)]
    algorithm: Literal["ed25519"] = "ed25519"

    def raw(self) -> bytes:
        """The 32 public bytes. Raises SignatureError when they are not, or do not belong to ``key_id``."""
        try:
            raw = base64.b64decode(self.public_key, validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != 32 or key_id_of(raw) != self.key_id:
            raise SignatureError(f"public key {self.key_id!r} is damaged: export it again where it was made")
        return raw


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle's ``signature`` file."""

    key_id: str
    signature: str
    """64 bytes over the bytes of ``manifest.json``, base64."""
    algorithm: Literal["ed25519"] = "ed25519"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key in use."""

    private: Ed25519PrivateKey
    public: PublicKey

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def sign(self, manifest_bytes: bytes) -> bytes:
        """The content of a bundle's ``signature`` file."""
        signature = base64.b64encode(self.private.sign(manifest_bytes)).decode()
        return msgspec.json.encode(Signature(key_id=self.key_id, signature=signature)) + b"\n"


def key_id_of(public_bytes: bytes) -> str:
    """The id by which people and signatures name a key."""
    return hashlib.sha256(public_bytes).hexdigest()[:KEY_ID_DIGITS]


def new_signing_key(name: str) -> SigningKey:
    """A fresh key, not yet stored anywhere."""
    private = Ed25519PrivateKey.generate()
    return _signing_key(private, name, time.time_ns() // 1000)


def _signing_key(private: Ed25519PrivateKey, name: str, created_us: int) -> SigningKey:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = PublicKey(
        key_id=key_id_of(raw),
        public_key=base64.b64encode(raw).decode(),
        name=name[:MAX_NAME_CHARACTERS],
        created_us=created_us,
    )
    return SigningKey(private=private, public=public)


def read_public_key(path: Path) -> PublicKey:
    """A public key from a file. Raises UsageError when the file is none."""
    try:
        data = read_file(path, MAX_KEY_FILE_BYTES, follow=True)
    except OSError as error:
        raise UsageError(
            f"key file {path} cannot be read: {error.strerror}; give the path of an exported key"
        ) from None
    return _decode_public_key(data, path)


def _decode_public_key(data: bytes, path: Path) -> PublicKey:
    try:
        key = decode_json(data, PublicKey)
        key.raw()
    except (TextRefused, SignatureError) as error:
        raise UsageError(
            f"{path} is not a public key of Asperity ({error}); write one with `asperity keys export -o FILE`"
        ) from None
    return key


class TrustStore:
    """The key folder of one user on one machine.

    Raises SignatureError, with the command that repairs it, when another user could read the private key or could add
    a trusted one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_key_folder()

    def trusted(self) -> dict[str, PublicKey]:
        """Trusted keys by id. A key that is also revoked is not trusted."""
        revoked = self.revoked()
        return {key_id: key for key_id, key in self._keys_in("trusted").items() if key_id not in revoked}

    def revoked(self) -> dict[str, PublicKey]:
        """Revoked keys by id."""
        return self._keys_in("revoked")

    def _keys_in(self, name: str) -> dict[str, PublicKey]:
        try:
            return self._read_keys(self.folder / name)
        except OSError as error:
            raise SignatureError(f"key folder {self.folder} cannot be read ({error.strerror}); make it yours") from None

    def _read_keys(self, folder: Path) -> dict[str, PublicKey]:
        if not folder.is_dir():
            return {}
        check_folder(self.folder, OF_TRUST, follow=True)
        check_folder(folder, OF_TRUST)
        keys = {}
        for path in sorted(folder.glob("*.json")):
            data = read_private(path, OF_TRUST)
            try:
                key = _decode_public_key(data, path)
            except UsageError as error:
                raise SignatureError(f"{error}; or remove {path}") from None
            if path.stem != key.key_id:
                raise SignatureError(f"{path} holds key {key.key_id}, not the one it is named after; remove it")
            keys[key.key_id] = key
        return keys

    def trust(self, key: PublicKey) -> None:
        """Bundles signed by this key open on this machine from now on. Un-revokes it."""
        key.raw()
        write_private(self.folder / "trusted" / f"{key.key_id}.json", msgspec.json.encode(key) + b"\n", REMEDY)
        (self.folder / "revoked" / f"{key.key_id}.json").unlink(missing_ok=True)

    def revoke(self, key_id: str) -> PublicKey:
        """Bundles signed by this key never open again here. Raises UsageError when it is not among the trusted."""
        trusted = self.trusted()
        if key_id not in trusted:
            known = ", ".join(trusted) or "none"
            raise UsageError(f"key {key_id!r} is not trusted on this machine, so cannot be revoked; trusted: {known}")
        key = trusted[key_id]
        # Revoked first: a crash between the two leaves the key revoked.
        write_private(self.folder / "revoked" / f"{key_id}.json", msgspec.json.encode(key) + b"\n", REMEDY)
        (self.folder / "trusted" / f"{key_id}.json").unlink()
        return key

    def signing_key(self) -> SigningKey | None:
        """This machine's private key; None if it has none yet."""
        path = self.folder / SIGNING_FILE
        if not path.exists():
            return None
        try:
            private = load_pem_private_key(read_private(path, OF_SIGNER), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SignatureError(
                f"private key {path} cannot be read ({error}); move it away and run `asperity keys new`"
            ) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SignatureError(f"private key {path} is not an Ed25519 key; move it away and run `asperity keys new`")
        return _signing_key(private, host_name(), path.stat().st_mtime_ns // 1000)

    def new_key(self, name: str = "", replace: bool = False) -> SigningKey:
        """Make, store and trust a private key. Raises UsageError when there is one and ``replace`` is not given."""
        path = self.folder / SIGNING_FILE
        if path.exists() and not replace:
            raise UsageError(f"{path} exists; `asperity keys new --replace` makes another (the old one stays trusted)")
        key = new_signing_key(name or host_name())
        write_private(path, key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), REMEDY)
        self.trust(key.public)
        return key

    def key_for_signing(self) -> SigningKey:
        """The private key, made and trusted on first use. Raises SignatureError if this machine does not trust it."""
        key = self.signing_key()
        if key is None:
            return self.new_key()
        if key.key_id in self.revoked():
            raise SignatureError(
                f"this machine's own key {key.key_id} was revoked, so bundles that it signs would not open; "
                "create another one with `asperity keys new --replace`"
            )
        if key.key_id not in self.trusted():
            self.trust(key.public)
        return key


def check_signature(manifest_bytes: bytes, signature_bytes: bytes, trust: TrustStore, bundle: Path) -> str:
    """Id of the trusted key that signed these bytes. Raises SignatureError saying what to do."""
    try:
        signature = decode_json(signature_bytes, Signature)
        raw_signature = base64.b64decode(signature.signature, validate=True)
    except (TextRefused, ValueError):
        raise SignatureError(
            f"bundle {bundle}: file signature is not a signature of Asperity; export or copy the bundle again"
        ) from None
    if signature.key_id in trust.revoked():
        raise SignatureError(
            f"bundle {bundle} is signed by key {signature.key_id!r}, which this machine has revoked; export it again "
            "with a valid key"
        )
    key = trust.trusted().get(signature.key_id)
    if key is None:
        raise SignatureError(
            f"bundle {bundle} is signed by key {signature.key_id!r}, which this machine does not trust (keys: "
            f"{trust.folder}); if you know who made it, run `asperity keys export -o station.pub` on the machine that "
            "calibrated it and `asperity keys trust station.pub` here"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key.raw()).verify(raw_signature, manifest_bytes)
    except InvalidSignature:
        raise SignatureError(
            f"bundle {bundle}: manifest.json is not what key {key.key_id} signed; the bundle was modified or damaged: "
            "copy or export it again"
        ) from None
    return key.key_id
