"""Certificates and keys as files: what a library would refuse later, or ask a passphrase for, is refused at start."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.errors import AsperityError, ConfigError, GatewayError
from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.gateways.mqtt.connection import tls_context
from asperity.runtime.security.certificates import check_dates, check_key, decode_certificate, read_certificates

KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
FIELD = "[mqtt] certificate_file"


def certificate(first_day: int = -10, last_day: int = 10) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(tz=timezone.utc)
    made = x509.CertificateBuilder(name, name, KEY.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now + timedelta(days=first_day)).not_valid_after(now + timedelta(days=last_day))
    return made.sign(KEY, SHA256())


def pem(made: x509.Certificate | None = None) -> bytes:
    return (made or certificate()).public_bytes(Encoding.PEM)


def key_of(key: ec.EllipticCurvePrivateKey = KEY, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def broker(folder: Path, own: bytes, key: bytes) -> None:
    files = put(folder, "own.pem", own), put(folder, "key.pem", key)
    assert tls_context(Mqtt(tls=True, certificate_file=str(files[0]), key_file=str(files[1]))) is not None


def test_as_editors_and_other_systems_save_them(tmp_path: Path) -> None:
    for change in (bytes, lambda data: b"\xef\xbb\xbf" + data, lambda data: data.replace(b"\n", b"\r\n")):
        broker(tmp_path, change(pem()), change(key_of()))
        assert tls_context(Mqtt(tls=True, ca_file=str(put(tmp_path, "ca.pem", change(pem())))))


@pytest.mark.parametrize(
    ("own", "key", "words"),
    [
        (pem(certificate(-10, -1)), key_of(), ["[mqtt] certificate_file", "own.pem expired on 20", "renew"]),
        (pem(), key_of(OTHER), ["[mqtt] key_file", "key.pem belongs to another certificate"]),
        (pem(), key_of(passphrase=b"secret"), ["key.pem has a passphrase", "openssl pkey -in key.pem"]),
        (pem(), b"nonsense", ["[mqtt] key_file", "key.pem holds no private key"]),
        (pem(), key_of().decode().encode("utf-16"), ["key.pem is UTF-16; save it as UTF-8"]),
        (pem().decode().encode("utf-16"), key_of(), ["own.pem is UTF-16; save it as UTF-8"]),
        (certificate().public_bytes(Encoding.DER), key_of(), ["own.pem is DER", "openssl x509 -inform der"]),
        (pem()[:200], key_of(), ["own.pem holds no certificate or a damaged one"]),
        (b"", key_of(), ["own.pem holds no certificate"]),
    ],
)
def test_what_cannot_be_used_is_named_at_start(tmp_path: Path, own: bytes, key: bytes, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        broker(tmp_path, own, key)
    assert all(word in str(refused.value) for word in words), refused.value


def test_one_that_is_not_valid_yet_may_be_valid_once_the_clock_is_set(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"own\.pem is valid only from .* set this computer's clock"):
        broker(tmp_path, pem(certificate(1, 10)), key_of())


def test_of_several_authorities_one_that_is_valid_is_enough(tmp_path: Path) -> None:
    old, new = certificate(-10, -1), certificate()
    path = put(tmp_path, "ca.pem", pem(old) + pem(new))
    check_dates(read_certificates(path, FIELD), path, FIELD)
    with pytest.raises(ConfigError, match="expired"):
        check_dates([old, old], path, FIELD)


def test_a_file_must_have_the_form_that_its_reader_takes(tmp_path: Path) -> None:
    der = put(tmp_path, "server.der", certificate().public_bytes(Encoding.DER))
    assert read_certificates(der, FIELD, pem=False) == [decode_certificate(der.read_bytes())]
    text = put(tmp_path, "server.txt", pem())
    with pytest.raises(ConfigError, match="is PEM text, but must be DER; convert it"):
        read_certificates(text, FIELD, pem=False)
    assert decode_certificate(b"\xef\xbb\xbf" + text.read_bytes()) == decode_certificate(text.read_bytes())
    with pytest.raises(ConfigError, match="it is a folder"):
        read_certificates(tmp_path, FIELD)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=80), keep=st.integers(0, 800))
def test_any_bytes_are_a_certificate_and_a_key_or_refused(tmp_path: Path, data: bytes, keep: int) -> None:
    own, made = certificate(), put(tmp_path, "c", pem()[:keep] + data)
    for is_pem in (True, False):
        try:
            read_certificates(made, FIELD, pem=is_pem)
        except AsperityError as refused:
            assert FIELD in str(refused)
    try:
        check_key(put(tmp_path, "k", key_of()[:keep] + data), own, FIELD)
    except AsperityError as refused:
        assert str(tmp_path) in str(refused)
