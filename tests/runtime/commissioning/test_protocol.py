"""The signed protocol: whole, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.commissioning.protocol import (
    FAILED,
    NOT_CHECKED,
    NOT_NEEDED,
    PASSED,
    Document,
    RowOutcome,
    page,
    signed,
    verify,
)
from asperity.runtime.errors import DataError, SignatureError
from asperity.runtime.security.signing_keys import TrustStore, new_signing_key


def outcome(status: str, key: str = "beat") -> RowOutcome:
    began = "2026-12-01T00:00:00.000+00:00"
    return RowOutcome(key, "Heart|beat", "it advances", "it did\n", status, began, 12, ("q - done",))


def made(*rows: RowOutcome) -> Document:
    return Document(
        asperity="1", protocol="modbus", gateway="192.0.2.1:502", gateway_config_sha256="", simulated=False,
        station="st1", recipe="lid\N{LATIN SMALL LETTER U WITH DIAERESIS}", bundle="b", engine="cpu", answered_by="me",
        computer="c", began="a", ended="z", rows=rows,
    )  # fmt: skip


def test_a_whole_protocol_says_by_which_key(tmp_path: Path) -> None:
    trust, file = TrustStore(tmp_path / "keys"), tmp_path / "p.json"
    key = trust.key_for_signing()
    document = made(outcome(PASSED), outcome(NOT_NEEDED))
    file.write_bytes(signed(document, key))
    assert verify(file, trust) == (document, key.public)
    shown = page(document, key.public)
    assert "PASSED" in shown and key.key_id in shown and "Heart\\|beat" in shown and "q - done" in shown


def test_one_altered_byte_is_refused(tmp_path: Path) -> None:
    trust, file = TrustStore(tmp_path / "keys"), tmp_path / "p.json"
    data = signed(made(outcome(PASSED)), trust.key_for_signing())
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ (1, 32)[at % 2]]) + data[at + 1 :])
        with pytest.raises(SignatureError):
            verify(file, trust)
    for altered in (data[:-1], data + b"\n", b" " + data, data.replace(b"\n ", b"\n\t", 1), b""):
        file.write_bytes(altered)
        with pytest.raises(SignatureError):
            verify(file, trust)


def test_another_key_is_not_trusted_and_a_revoked_one_not_any_more(tmp_path: Path) -> None:
    trust, file = TrustStore(tmp_path / "keys"), tmp_path / "p.json"
    key = trust.key_for_signing()
    file.write_bytes(signed(made(outcome(PASSED)), new_signing_key("elsewhere")))
    with pytest.raises(SignatureError, match="does not trust"):
        verify(file, trust)
    file.write_bytes(signed(made(outcome(PASSED)), key))
    trust.revoke(key.key_id)
    with pytest.raises(SignatureError, match="revoked"):
        verify(file, trust)
    with pytest.raises(DataError, match="cannot be read"):
        verify(tmp_path / "none.json", trust)


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        ((), False),
        ((PASSED,), True),
        ((PASSED, NOT_NEEDED), True),
        ((PASSED, NOT_CHECKED), False),
        ((PASSED, FAILED), False),
        ((PASSED, "another word"), False),
    ],
)
def test_only_passed_rows_are_passed(rows: tuple[str, ...], passed: bool) -> None:
    assert made(*map(outcome, rows)).passed is passed


def test_a_bundles_signature_is_not_a_protocols(tmp_path: Path) -> None:
    """Something else that the key signed does not become a protocol."""
    trust, file = TrustStore(tmp_path / "keys"), tmp_path / "p.json"
    manifest = b'{"format": 1}'
    file.write_bytes(
        b'{"document": ' + manifest + b',\n"signature": ' + trust.key_for_signing().sign(manifest).strip() + b"}\n"
    )
    with pytest.raises(SignatureError):
        verify(file, trust)
