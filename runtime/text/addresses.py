"""Endpoints (``tcp://ADDRESS:PORT``, ``ipc://PATH``) and addresses of hosts, as settings and options give them."""

from __future__ import annotations

import ipaddress
import re

from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.numbers import whole_number

PORT_MAX = 65_535
FORMS = "tcp://ADDRESS:PORT or ipc:///FOLDER/NAME"
_LABEL = "[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


def check_endpoint(text: str, *, binds: bool = False) -> None:
    """Raises TextRefused for what is not an endpoint. ``binds``: here, so that ``*`` may be address or port, and 0."""
    if not text:
        raise TextRefused(f"is empty; write {FORMS}")
    if not text.isprintable() or text != text.strip() or not (text.isascii() or text.startswith("ipc://")):
        raise TextRefused(f"is {text!r}; write {FORMS} without blanks, with letters a-z and digits 0-9")
    scheme, separator, place = text.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        close = scheme.lower() if separator and scheme.lower() in ("tcp", "ipc") else ""
        raise TextRefused(f"is {text!r}; write {f'{close}:// in small letters' if close else FORMS}")
    if scheme == "ipc":
        if place[:1] not in ("/", "@", "*", ""):
            raise TextRefused(f"is {text!r}, which depends on the current folder; write ipc:/// and the whole path")
        return
    host, colon, port = place.rpartition(":")
    if not colon or "]" in port:
        raise TextRefused(f"is {text!r}, without a port; write tcp://ADDRESS:PORT")
    if not (binds and host == "*"):
        check_host(host[1:-1] if host.startswith("[") and host.endswith("]") else host, text)
        if ":" in host and not host.startswith("["):
            raise TextRefused(f"is {text!r}; put an IPv6 address in brackets: tcp://[{host}]:{port}")
        if host.startswith("[") and ":" not in host:
            raise TextRefused(f"is {text!r}; only an IPv6 address is put in brackets")
    if not (binds and port == "*"):
        number = whole_number(port) if port.isdecimal() else None
        if number is None or not (0 if binds else 1) <= number <= PORT_MAX:
            raise TextRefused(f"is {text!r}; the port must be {0 if binds else 1} to {PORT_MAX}")


def check_host(host: str, whole: str = "") -> None:
    """Raises TextRefused for what is neither an IP address nor a host's name. ``whole``: the text it stands in."""
    said = f"is {whole or host!r}"
    if "://" in host:
        raise TextRefused(f"{said}; write the address alone, without {host.partition('://')[0]}://")
    numeric = ":" in host or host.replace(".", "").isdigit()
    try:
        if numeric:
            ipaddress.ip_address(host)
    except ValueError:
        name, _, port = host.rpartition(":")
        if not whole and port.isdecimal() and name.count(":") == 0:
            raise TextRefused(f"{said}; give the port by itself, in the key port") from None
        raise TextRefused(f"{said}, which is not an IP address; write for example 127.0.0.1 or ::1") from None
    if not numeric and not _NAME.fullmatch(host):
        raise TextRefused(
            f"{said}; write an IP address, or a name of letters a-z, digits, dots and hyphens (one with other letters "
            "in its xn-- form)"
        )
