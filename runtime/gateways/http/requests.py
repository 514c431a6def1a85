"""HTTP/1.1 requests from any client, bounded before they are read, and their answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from asperity.runtime.text.numbers import whole_number

PLAIN, HTML, JSON = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"
PNG, BYTES = "image/png", "application/octet-stream"
PROBLEM = "application/problem+json"
"""RFC 9457."""
QUERY_MAX = 8
"""Names in a query."""
HEADERS = (
    "Connection: close",
    "Cache-Control: no-store",
    "X-Content-Type-Options: nosniff",
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
)
PHRASES = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes
    content_type: str = PLAIN
    headers: tuple[str, ...] = ()


class Request(NamedTuple):
    """A request as a path's function sees it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""


class RequestRefused(Exception):
    """It is not read further; ``args[0]`` is the Answer."""


def problem(status: int, detail: str, *headers: str) -> Answer:
    """Why not, for programs and people (RFC 9457)."""
    body = msgspec.json.encode({"title": PHRASES[status], "status": status, "detail": detail})
    return Answer(status, body, PROBLEM, headers)


def json_answer(value: object, status: int = 200) -> Answer:
    """A value as JSON."""
    return Answer(status, msgspec.json.encode(value), JSON)


def not_allowed(*methods: str) -> Answer:
    """For another method than these."""
    words = " and ".join(methods)
    return Answer(405, f"only {words}\n".encode(), headers=(f"Allow: {', '.join(methods)}",))


async def read_request(reader: asyncio.StreamReader, header_max_nbytes: int, body_max_nbytes: int) -> Request:
    """Raises RequestRefused, and what ``reader`` raises where the client ends early."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise RequestRefused(Answer(431, f"a request has at most {header_max_nbytes} bytes\n".encode())) from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise RequestRefused(Answer(400, b"this is not an HTTP/1.1 request\n"))
    method, target, _ = words
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        name, found, value = line.partition(":")
        if not found or not name or name != name.strip() or name.lower() in headers:
            raise RequestRefused(Answer(400, f"the header {line[:80]!a} is malformed or twice\n".encode()))
        headers[name.lower()] = value.strip()
    path, _, query = target.partition("?")
    request = Request(method, path, _query(query), headers)
    if method != "POST":
        return request
    return request._replace(body=await reader.readexactly(_length(headers, body_max_nbytes)))


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=QUERY_MAX) if text else []
    except ValueError as error:
        raise RequestRefused(problem(400, f"the query is malformed: {error}")) from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestRefused(problem(400, "the query names a parameter twice"))
    return found


def _length(headers: Mapping[str, str], most: int) -> int:
    """Bytes of a body. Raises RequestRefused."""
    text = headers.get("content-length", "")
    if "transfer-encoding" in headers or not text:
        raise RequestRefused(problem(411, "send the body with a Content-Length"))
    nbytes = whole_number(text)
    if nbytes is None or nbytes < 0:
        raise RequestRefused(problem(400, f"Content-Length {text[:20]!a} is not a number"))
    if nbytes > most:
        raise RequestRefused(problem(413, f"a body has at most {most} bytes ([http] body_max_nbytes)"))
    return nbytes


def name_and_password(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Of HTTP Basic (RFC 7617); None: there are none. Raises RequestRefused."""
    given = headers.get("authorization")
    if given is None:
        return None
    kind, _, coded = given.partition(" ")
    try:
        if kind.lower() != "basic":
            raise ValueError
        name, colon, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error):
        raise RequestRefused(problem(400, "Authorization is not Basic with a user name and a password")) from None
    return name, password


def encode(answer: Answer, *, head_only: bool) -> bytes:
    """Bytes of the whole answer; without its body for HEAD."""
    lines = [
        f"HTTP/1.1 {answer.status} {PHRASES[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *answer.headers,
        *HEADERS,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + (b"" if head_only else answer.body)
