"""What a broker says by its codes, and why it cannot be reached, as sentences with a remedy. Pure."""

from __future__ import annotations

import errno
import socket
import ssl

from asperity.runtime.files import shown
from asperity.runtime.gateways.config import Mqtt

REFUSED_BY_3 = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""CONNACK of MQTT 3.1.1 -> the same reason in MQTT 5."""
TAKEN_OVER = 0x8E
TOO_LARGE = 0x95
WORDS = {
    0x00: "normal disconnection",
    0x04: "disconnection with the last will",
    0x10: "no matching subscribers",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}
"""Reason codes of MQTT 5: CONNACK, PUBACK, SUBACK and DISCONNECT."""
RIGHTS = "check what the broker allows this user and client id (its ACL)"
REMEDIES = {
    0x84: "set [mqtt] version to one that the broker speaks",
    0x85: "set [mqtt] client_id to one that the broker allows",
    0x86: "check [mqtt] user and password_file",
    0x87: RIGHTS,
    0x8A: "the broker's operator must lift the ban",
    0x8C: "the gateway logs in by user name and password or by certificate only",
    0x8E: "another client uses the same client id: set [mqtt] client_id",
    0x90: "set another [mqtt] prefix",
    0x95: "raise the packet limit of the broker",
    0x96: "raise the message rate that the broker allows",
    0x97: "raise the quota of this client at the broker",
    0x9A: "the gateway needs a broker that retains messages",
    0x9B: "the gateway needs a broker that accepts QoS 1",
    0x9C: "set [mqtt] host to the server to use",
    0x9D: "set [mqtt] host to the server to use",
    0x9F: "the broker limits how often clients may connect; raise [mqtt] retry_min_ms",
}
TEXT_MAX = 200
"""Of a text from the broker."""


def reason(code: int, said: str = "") -> str:
    """A reason code in words, with a remedy where there is one. ``said``: the broker's own text."""
    return _sentence(f"0x{code:02X}", code, said)


def refusal(code: int, said: str = "") -> str:
    """The code of a CONNACK in words. One of 1 to 5 is of MQTT 3.1.1, whichever version was asked for."""
    return _sentence(str(code), REFUSED_BY_3[code], said) if code in REFUSED_BY_3 else reason(code, said)


def _sentence(shown_code: str, code: int, said: str) -> str:
    text = f"{WORDS.get(code, 'an unknown reason')} (code {shown_code})"
    text += f' "{shown(said[:TEXT_MAX])}"' if said else ""
    return f"{text}; {REMEDIES[code]}" if code in REMEDIES else text


def cannot_connect(error: Exception, own: Mqtt) -> str:
    """Why there is no connection to the broker."""
    unroutable = f"there is no route to {own.host} ({error}); check the network and [mqtt] host"
    barred = f"this system does not allow it ({error}); check the firewall and IPAddressAllow of the systemd unit"
    by_number = {
        errno.ECONNREFUSED: f"nobody listens at {own.host} port {own.port} (connection refused); start the broker, or "
        "correct [mqtt] host and port",
        errno.ENETUNREACH: unroutable,
        errno.EHOSTUNREACH: unroutable,
        errno.EACCES: barred,
        errno.EPERM: barred,
        errno.ECONNRESET: f"the connection was reset before the broker answered; {speaks_other(own)}",
    }
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error}; check [mqtt] ca_file and host"
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS failed: {error}; check that port {own.port} expects TLS (usually 8883), and [mqtt] ca_file, "
            "certificate_file and key_file"
        )
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"the name {own.host!r} cannot be resolved ({error}); check [mqtt] host and the name server"
    if isinstance(error, TimeoutError) and own.tls and "handshake" in str(error):
        return (
            f"port {own.port} does not answer TLS within {own.connect_ms} ms; check that it expects TLS (usually 8883)"
        )
    if isinstance(error, TimeoutError):
        return f"no answer within {own.connect_ms} ms; check [mqtt] host and port, the network and firewalls"
    number = error.errno if isinstance(error, OSError) else None
    return by_number.get(number or 0, f"{error}; check [mqtt] host and port")


def refuses_tls(error: ssl.SSLError) -> str:
    """After its own part of the handshake a broker says so, of TLS 1.3, in place of a first answer."""
    return f"the broker refused TLS: {error}; check [mqtt] certificate_file and key_file, and the broker's log"


def closed_unanswered(own: Mqtt) -> str:
    """The broker closed the connection after CONNECT, so after any handshake of TLS."""
    why = "the broker closed the connection without an answer"
    if own.tls:
        return f"{why}; check that port {own.port} is that of an MQTT broker, and [mqtt] certificate_file"
    return f"{why}; {speaks_other(own)}"


def speaks_other(own: Mqtt) -> str:
    """Advice where something answers that does not speak as expected."""
    tls = "without TLS: set [mqtt] tls = false" if own.tls else "with TLS: set [mqtt] tls = true"
    return f"check that port {own.port} is that of an MQTT broker, and whether it listens {tls}"
