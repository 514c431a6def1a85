"""The OPC UA gateway's own certificate and those of its clients: checked before it serves."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from asyncua import Server
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, Opcua
from asperity.runtime.gateways.opcua.access import _fingerprints, certificate_files, secure


def begin(folder: Path, clients: str = "") -> None:
    async def served() -> None:
        server = Server()
        await server.init()
        await secure(server, GatewayConfig(opcua=Opcua(certificate_folder=str(folder), clients_folder=clients)))

    asyncio.run(served())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    files = certificate_files(tmp_path_factory.mktemp("made"), "urn:test", "st1")
    return files[0].read_bytes(), files[1].read_bytes()


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    (folder / name).chmod(0o600)


def test_a_certificate_or_key_that_cannot_be_used_ends_the_start(tmp_path: Path, made: tuple[bytes, bytes]) -> None:
    certificate, key = made
    pem = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
    loaded = load_pem_private_key(key, password=None)
    locked = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    for own, secret, words in (
        (pem, key, r"\[opcua\] certificate_folder: .*server\.der is PEM text, but must be DER; convert it"),
        (b"nonsense", key, r"server\.der holds no certificate"),
        (certificate, locked, r"server\.pem has a passphrase"),
        (certificate, b"nonsense", r"server\.pem holds no private key"),
    ):
        put(tmp_path, "server.der", own)
        put(tmp_path, "server.pem", secret)
        with pytest.raises(ConfigError, match=words):
            begin(tmp_path)


def test_a_file_that_admits_nobody_is_logged(
    tmp_path: Path, made: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = made
    put(tmp_path, "server.der", certificate)
    put(tmp_path, "server.pem", key)
    clients = tmp_path / "clients"
    with pytest.raises(ConfigError, match=r"\[opcua\] clients_folder: .*clients is not a folder"):
        begin(tmp_path, str(clients))
    clients.mkdir()
    found = x509.load_der_x509_certificate(certificate)
    put(clients, "notepad.crt", b"\xef\xbb\xbf" + found.public_bytes(Encoding.PEM).replace(b"\n", b"\r\n"))
    put(clients, "misnamed.pem", certificate)
    put(clients, "notes.txt", b"nonsense")
    with caplog.at_level(logging.WARNING, "asperity.gateway"):
        begin(tmp_path, str(clients))
    assert [record.getMessage() for record in caplog.records if "clients_folder" in record.getMessage()] == [
        f"[opcua] clients_folder: {clients / 'notes.txt'} is not a certificate, so it admits nobody; remove it"
    ]
    assert _fingerprints(clients) == {found.fingerprint(SHA256())}
