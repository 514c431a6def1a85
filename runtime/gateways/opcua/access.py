"""Who may connect to the OPC UA gateway, as which user, and which certificate the gateway presents."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.cert_gen import dump_private_key_as_pem, generate_private_key, generate_self_signed_app_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from asperity.runtime.errors import ConfigError
from asperity.runtime.files import read_file
from asperity.runtime.folders import configuration_folder
from asperity.runtime.gateways.config import GatewayConfig, Opcua, Users
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.opcua.session import Client
from asperity.runtime.security.certificates import check_dates, check_key, decode_certificate, read_certificates
from asperity.runtime.security.private_files import read_secret, write_private
from asperity.runtime.text.names import host_name

log = logging.getLogger("asperity.gateway")
CERTIFICATE_DAYS = 10 * 365
MAX_CERTIFICATE_BYTES = 64 * 1024
CERTIFICATE_FIELD = "[opcua] certificate_folder"
HOST = re.compile(r"[A-Za-z0-9._-]+")
"""Names that a certificate can hold as they are."""
URI = "urn:asperity:gateway:"
"""Of a gateway as an application, followed by its station."""


CHECKED: ContextVar[Client | None] = ContextVar("checked", default=None)
"""Whose name and password were checked, for the session that is being activated."""


class Accounts(UserManager):
    """The file of users; without one, any client that can connect may call."""

    def __init__(self, config: Users) -> None:
        self.known = users.read_users(Path(config.file)) if config.file else None
        self._anonymous_read = config.anonymous_read

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """The client behind a name; None: refused. The password was checked before (``CHECKED``): it takes time."""
        if self.known is None:
            return Client(UserRole.User, None, may_operate=True)  # nobody checked the name
        if username is None:
            return Client(UserRole.User, None) if self._anonymous_read else None
        checked = CHECKED.get()
        return checked if checked is not None and checked.name == username else None


def check(config: Opcua, users_file: str, loopback: bool) -> None:
    """Raises ConfigError for what others on the network could misuse."""
    if loopback or config.insecure_lan:
        return
    if config.encryption != "required":
        raise ConfigError(
            f"[opcua] host is {config.host}, which other hosts on the network can reach, and encryption is only "
            "offered; "
            'set encryption = "required"'
        )
    if not users_file:
        raise ConfigError(
            f"[opcua] host is {config.host}, which other hosts on the network can reach, and [users] file is empty, so "
            "anyone could call methods; create one with: asperity gateway user FILE NAME"
        )


async def secure(server: Server, config: GatewayConfig) -> None:
    """Endpoints, certificate, identities and sizes of a server not started yet. Raises AsperityError, OSError."""
    own = config.opcua
    uri = URI + config.station.name
    certificate, key = certificate_files(_folder(own, uri, config.station.name), uri, config.station.name)
    own_certificate = read_certificates(certificate, CERTIFICATE_FIELD, pem=False)
    check_dates(own_certificate, certificate, CERTIFICATE_FIELD)
    check_key(key, own_certificate[0], CERTIFICATE_FIELD)
    # A client compares both, and refuses the connection (BadCertificateUriInvalid) unless they are the same.
    await server.set_application_uri(_uri_of(own_certificate[0]) or uri)
    await server.load_certificate(certificate)
    await server.load_private_key(read_secret(key).encode(), format="pem")
    policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    if own.encryption == "offered":
        policies.append(ua.SecurityPolicyType.NoSecurity)
    server.set_security_policy(policies)
    tokens: list[type] = [ua.UserNameIdentityToken]
    if not config.users.file or config.users.anonymous_read:
        tokens.append(ua.AnonymousIdentityToken)
    server.set_identity_tokens(tokens)
    if own.clients_folder:
        folder = Path(own.clients_folder)
        if not folder.is_dir():
            raise ConfigError(f"[opcua] clients_folder: {folder} is not a folder; create it or leave the key empty")
        for path in sorted(folder.glob("*")):
            if _certificate(path) is None:
                log.warning("[opcua] clients_folder: %s is not a certificate, so it admits nobody; remove it", path)

        async def validate(met: x509.Certificate, description: ua.ApplicationDescription) -> None:
            if met.fingerprint(SHA256()) not in _fingerprints(folder):
                raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

        server.set_certificate_validator(validate)


def certificate_files(folder: Path, uri: str, station: str) -> tuple[Path, Path]:
    """``server.der`` and ``server.pem``, made if neither is there. Raises ConfigError, UsageError."""
    certificate, key = folder / "server.der", folder / "server.pem"
    if certificate.exists() != key.exists():
        lone, gone = (certificate, key) if certificate.exists() else (key, certificate)
        raise ConfigError(f"{lone} exists without {gone.name}; provide both, or remove it and both are created")
    if not key.exists():
        private, host = generate_private_key(), host_name()
        host = host if HOST.fullmatch(host) else "localhost"
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), x509.DNSName(host)]
        made = generate_self_signed_app_certificate(
            private,
            f"Asperity gateway {station}",
            {"organizationName": "Asperity"},
            names,
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            days=CERTIFICATE_DAYS,
        )
        remedy = "free space or set [opcua] certificate_folder"
        write_private(key, dump_private_key_as_pem(private), remedy)
        write_private(certificate, made.public_bytes(Encoding.DER), remedy)
    return certificate, key


def _folder(config: Opcua, uri: str, station: str) -> Path:
    """The configured folder, or this user's; if that has the certificate of another station, one for this station."""
    if config.certificate_folder:
        return Path(config.certificate_folder)
    usual = configuration_folder(CERTIFICATE_FIELD) / "opcua"
    found = _certificate(usual / "server.der")
    other = "" if found is None else _uri_of(found)
    if other == uri or not other.startswith(URI):  # ours, or one that the user provided
        return usual
    log.info("%s is that of %s, so this station's is in %s", usual / "server.der", other, usual / station)
    return usual / station


def _uri_of(certificate: x509.Certificate) -> str:
    """The application URI in a certificate; empty: it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def _fingerprints(folder: Path) -> set[bytes]:
    """Of every certificate in the folder, read again so that one taken away is refused from then on."""
    found = (_certificate(path) for path in sorted(folder.glob("*")))
    return {certificate.fingerprint(SHA256()) for certificate in found if certificate is not None}


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        return decode_certificate(read_file(path, MAX_CERTIFICATE_BYTES, follow=True))
    except (OSError, ValueError):
        return None
