"""Certificates and their keys as files: checked at start, so that a gateway does not fail at its first connection.

A certificate that has expired needs a person (ConfigError). One that is not valid yet rather means that this computer's
clock is not set yet, so it is a GatewayError, after which a supervisor tries again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.files import read_file
from asperity.runtime.security.private_files import MAX_SECRET_BYTES, read_secret
from asperity.runtime.text.encoding import SAVE_AS_UTF8

MAX_CERTIFICATES_NBYTES = 4 * 2**20
"""The systems' lists of authorities have some 200 kB."""
_PEM = b"-----BEGIN"


def decode_certificate(data: bytes) -> x509.Certificate:
    """The first certificate of a file, PEM or DER, whatever the file's name says. Raises ValueError."""
    at = data.find(_PEM)
    return x509.load_der_x509_certificate(data) if at < 0 else x509.load_pem_x509_certificate(data[at:])


def read_certificates(path: Path, field: str, *, pem: bool = True) -> list[x509.Certificate]:
    """The certificates of a file that a library reads after us, so in the form that it reads. Raises ConfigError."""
    try:
        data = read_file(path, MAX_CERTIFICATES_NBYTES, follow=True)
    except OSError as error:
        raise ConfigError(f"{field}: {path} cannot be read: {error.strerror}; name a certificate's file") from error
    if not pem and _PEM in data:
        remedy = f"convert it: openssl x509 -in {path.name} -outform der -out NEW.der"
        raise ConfigError(f"{field}: {path} is PEM text, but must be DER; {remedy}")
    if pem and data[:1] == b"\x30":
        remedy = f"convert it: openssl x509 -inform der -in {path.name} -out NEW.pem"
        raise ConfigError(f"{field}: {path} is DER, but must be PEM text; {remedy}")
    _refuse_utf16(data, path, field)
    try:
        if not pem:
            return [x509.load_der_x509_certificate(data)]
        return x509.load_pem_x509_certificates(data[max(0, data.find(_PEM)) :])
    except ValueError:
        raise ConfigError(f"{field}: {path} holds no certificate or a damaged one; copy or create it again") from None


def check_dates(certificates: Sequence[x509.Certificate], path: Path, field: str) -> None:
    """Raises ConfigError when all certificates have expired, GatewayError when none is valid yet."""
    now = datetime.now(tz=timezone.utc)
    last = max(_aware(one, "not_valid_after") for one in certificates)
    first = min(_aware(one, "not_valid_before") for one in certificates)
    if last < now:
        raise ConfigError(f"{field}: {path} expired on {last:%Y-%m-%d}; renew the certificate")
    if now < first:
        raise GatewayError(
            f"{field}: {path} is valid only from {first:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC here; "
            "set this computer's clock, or create the certificate again"
        )


def check_key(path: Path, certificate: x509.Certificate, field: str) -> None:
    """Raises ConfigError when the file is not the certificate's private key in PEM text without passphrase."""
    text = read_secret(path)
    _refuse_utf16(read_file(path, MAX_SECRET_BYTES, follow=True), path, field)
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise ConfigError(
            f"{field}: the private key in {path} has a passphrase, which nobody could type in at a start; remove it: "
            f"openssl pkey -in {path.name} -out NEW.pem"
        ) from None
    except ValueError:
        raise ConfigError(f"{field}: {path} holds no private key in PEM text; give the certificate's key") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ConfigError(f"{field}: the private key in {path} belongs to another certificate; give the matching key")


def _refuse_utf16(data: bytes, path: Path, field: str) -> None:
    """``read_secret`` reads it, and the library that reads the file after us does not."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{field}: {path} is UTF-16; {SAVE_AS_UTF8}")


def _aware(certificate: x509.Certificate, which: str) -> datetime:
    """A date of the certificate with its time zone, which older versions of cryptography leave out."""
    found = getattr(certificate, f"{which}_utc", None)
    return found if isinstance(found, datetime) else getattr(certificate, which).replace(tzinfo=timezone.utc)
