"""The OPC UA gateway's own certificate and those of its clients: checked before it serves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from asyncua import Server
from asyncua.crypto.cert_gen import generate_private_key
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, GatewayStation, Opcua
from asperity.runtime.gateways.opcua.access import _fingerprints, certificate_files, secure
from tests.runtime.gateways.floor import Loop, looping


class Start:
    """The part of a gateway's start that is tested here, on one server: to build its nodes takes most of the time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._server = Server()
        loop.run(self._server.init())

    def begin(self, folder: Path, clients: str = "") -> None:
        opcua = Opcua(certificate_folder=str(folder), clients_folder=clients)
        self._loop.run(secure(self._server, GatewayConfig(opcua=opcua)))

    def served(self, name: str, folder: str = "") -> tuple[str, str]:
        """The application URI of a station's gateway, and that of its certificate."""
        self._server.iserver.certificate = None
        config = GatewayConfig(station=GatewayStation(name=name), opcua=Opcua(certificate_folder=folder))
        self._loop.run(secure(self._server, config))
        assert self._server.iserver.certificate is not None
        names = self._server.iserver.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return self._server._application_uri, names.get_values_for_type(x509.UniformResourceIdentifier)[0]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with looping() as loop:
        yield Start(loop)


@pytest.fixture(autouse=True, scope="module")
def one_key() -> Iterator[None]:
    """Keys take seconds to make, and it does not matter here whose they are."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        key = generate_private_key()
        monkeypatch.setattr("asperity.runtime.gateways.opcua.access.generate_private_key", lambda: key)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    files = certificate_files(tmp_path_factory.mktemp("made"), "urn:test", "st1")
    return files[0].read_bytes(), files[1].read_bytes()


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    (folder / name).chmod(0o600)


def test_a_certificate_or_key_that_cannot_be_used_ends_the_start(
    start: Start, tmp_path: Path, made: tuple[bytes, bytes]
) -> None:
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
            start.begin(tmp_path)


def test_a_file_that_admits_nobody_is_logged(
    start: Start, tmp_path: Path, made: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = made
    put(tmp_path, "server.der", certificate)
    put(tmp_path, "server.pem", key)
    clients = tmp_path / "clients"
    with pytest.raises(ConfigError, match=r"\[opcua\] clients_folder: .*clients is not a folder"):
        start.begin(tmp_path, str(clients))
    clients.mkdir()
    found = x509.load_der_x509_certificate(certificate)
    put(clients, "notepad.crt", b"\xef\xbb\xbf" + found.public_bytes(Encoding.PEM).replace(b"\n", b"\r\n"))
    put(clients, "misnamed.pem", certificate)
    put(clients, "notes.txt", b"nonsense")
    with caplog.at_level(logging.WARNING, "asperity.gateway"):
        start.begin(tmp_path, str(clients))
    assert [record.getMessage() for record in caplog.records if "clients_folder" in record.getMessage()] == [
        f"[opcua] clients_folder: {clients / 'notes.txt'} is not a certificate, so it admits nobody; remove it"
    ]
    assert _fingerprints(clients) == {found.fingerprint(SHA256())}


# ------------------------------------------------------------------ the certificate names its application


def test_each_station_of_a_user_has_a_certificate_of_its_name(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second one, or a renamed one, must not present the first one's: BadCertificateUriInvalid."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("left", "right", "left"):
        assert start.served(name) == (f"urn:asperity:gateway:{name}",) * 2
    assert {path.parent.name for path in tmp_path.rglob("server.der")} == {"opcua", "right"}


def test_the_application_is_the_one_of_a_certificate_that_was_provided(start: Start, tmp_path: Path) -> None:
    certificate_files(tmp_path / "own", "urn:plant:vision:7", "any")
    assert start.served("left", str(tmp_path / "own")) == ("urn:plant:vision:7",) * 2


def test_one_provided_in_the_usual_folder_is_used(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    certificate_files(tmp_path / "asperity" / "opcua", "urn:plant:vision:7", "any")
    assert start.served("left") == ("urn:plant:vision:7",) * 2
