"""The protocol of a commissioning: a JSON document signed by this machine's key, and a page for people.

The file is one JSON object, ``{"document": ..., "signature": ...}``. The signature (Ed25519, by the key that signs
bundles) is over the document's bytes in the file, and the rest of the file has one spelling only: a file
that differs in one byte is refused.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from asperity.runtime.errors import DataError, SignatureError
from asperity.runtime.files import read_file
from asperity.runtime.security.signing_keys import PublicKey, Signature, SigningKey, TrustStore
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json

PASSED, FAILED, NOT_CHECKED, NOT_NEEDED = "passed", "failed", "not checked", "not needed"
MAX_NBYTES = 4 << 20
KIND = "asperity commissioning protocol"


class RowOutcome(msgspec.Struct, frozen=True):
    """One row of the check list."""

    key: str
    title: str
    expected: str
    seen: str
    status: str
    """``passed``, ``failed``, ``not checked`` (never passed), ``not needed`` with this protocol or line."""
    began: str
    took_ms: int
    answers: tuple[str, ...] = ()
    """What a person was asked, and answered."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked, of what, by whom."""

    kind: str = KIND
    version: int = 1
    asperity: str
    protocol: str
    gateway: str
    """Where the PLC's side connected."""
    gateway_config_sha256: str
    """Empty: not given."""
    simulated: bool
    station: str
    recipe: str
    bundle: str
    engine: str
    answered_by: str
    computer: str
    began: str
    ended: str
    rows: tuple[RowOutcome, ...]

    def with_status(self, status: str) -> list[RowOutcome]:
        """Rows of this outcome."""
        return [row for row in self.rows if row.status == status]

    @property
    def passed(self) -> bool:
        """Every row that is needed passed."""
        return bool(self.rows) and all(row.status in (PASSED, NOT_NEEDED) for row in self.rows)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    document: msgspec.Raw
    signature: Signature


def signed(document: Document, key: SigningKey) -> bytes:
    """The file."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=1)
    return _spelled(text, msgspec.json.decode(key.sign(text), type=Signature))


def _spelled(document: bytes, signature: Signature) -> bytes:
    return b'{"document": ' + document + b',\n"signature": ' + msgspec.json.encode(signature) + b"}\n"


def verify(path: Path, trust: TrustStore) -> tuple[Document, PublicKey]:
    """The protocol and the trusted key that signed it. Raises DataError, SignatureError saying what to do."""
    try:
        data = read_file(path, MAX_NBYTES, follow=True)
    except OSError as error:
        raise DataError(f"protocol {path} cannot be read: {error.strerror}; check the path") from None
    altered = SignatureError(f"protocol {path} is not as it was signed: it was altered or damaged; use the original")
    try:
        file = decode_json(data, _File)
        whole = bytes(file.document)
        signature = base64.b64decode(file.signature.signature, validate=True)
    except (TextRefused, ValueError):
        raise altered from None
    if _spelled(whole, file.signature) != data or base64.b64encode(signature).decode() != file.signature.signature:
        raise altered
    key_id = file.signature.key_id
    if key_id in trust.revoked():
        raise SignatureError(f"protocol {path} is signed by key {key_id!r}, which this machine has revoked")
    key = trust.trusted().get(key_id)
    if key is None:
        raise SignatureError(
            f"protocol {path} is signed by key {key_id!r}, which this machine does not trust (keys: {trust.folder}), "
            "or it was altered; run `asperity keys export -o station.pub` where it was made and `asperity keys trust "
            "station.pub` here"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key.raw()).verify(signature, whole)
        document = decode_json(whole, Document)
    except (InvalidSignature, TextRefused):
        raise altered from None
    if document.kind != KIND:
        raise SignatureError(f"{path} was signed by key {key_id!r} as something other than a commissioning protocol")
    return document, key


def page(document: Document, key: PublicKey) -> str:
    """The protocol in Markdown, for people and for the printer."""
    outcome = "PASSED" if document.passed else "NOT PASSED"
    config = document.gateway_config_sha256 or "not given"
    head = [
        f"# Commissioning of station {document.station} over {document.protocol}: {outcome}",
        "",
        f"- Asperity {document.asperity}, {'simulated line' if document.simulated else 'real line'}, "
        f"gateway {document.gateway}, configuration (SHA-256) {config}",
        f"- Recipe {document.recipe}, bundle {document.bundle}, engine {document.engine}",
        f"- From {document.began} to {document.ended} on {document.computer}; questions answered by "
        f"{document.answered_by or 'nobody'}",
        f"- Signed by key {key.key_id} ({key.name}); check it with `asperity commission verify FILE.json`",
        "",
        "| row | expected | seen | outcome | began | ms |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for row in document.rows:
        seen = "<br>".join([row.seen, *row.answers])
        cells = (row.title, row.expected, seen, f"**{row.status}**", row.began, str(row.took_ms))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    sign = ["", "Date, name, signature (supplier): ______________________", ""]
    return "\n".join([*head, *rows, *sign, "Date, name, signature (operator): ______________________", ""])


def _cell(text: str) -> str:
    printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return printable.replace("|", "\\|")
