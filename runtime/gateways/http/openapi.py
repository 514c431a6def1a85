"""The OpenAPI 3.1 description of ``/api/v1``, made from the message types themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from asperity.runtime import __version__
from asperity.runtime.gateways.http.requests import JSON, PHRASES, PROBLEM
from asperity.runtime.wire import OPERATIONS, Counters, Reply, Request, StationState
from asperity.runtime.wire.result import ResultMessage

REF = "#/components/schemas/{name}"
ID = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


class Described(Protocol):
    """What of a route is described."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def commands(self) -> bool: ...


class ShownResult(ResultMessage, frozen=True):
    """A result with ``accept`` as it is now. ``accept`` may be used for ``valid_ms`` from the answer on, not longer."""

    kind: str = "result"
    valid_ms: int = 0


class ShownGap(msgspec.Struct, frozen=True):
    """Results of these numbers are not here."""

    kind: str
    first_id: int
    last_id: int
    why: str


class Results(msgspec.Struct, frozen=True):
    """Results and gaps, ascending by number."""

    station: str
    items: list[Any]


class State(StationState, frozen=True):
    """The station's state as the gateway sees it: an old one has ``trusted`` and ``ready`` false."""

    trusted: bool = False
    why: str = ""
    plc_offset_ms: float | None = None


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not answered (RFC 9457)."""

    title: str
    status: int
    detail: str


def document(prefix: str, routes: Iterable[Described], commands: Iterable[str]) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in routes:
        for path, item in _paths(route, commands):
            paths.setdefault(prefix + path, {})[route.method.lower()] = item
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Asperity station", "version": __version__,
            "description": "State, results and commands of one inspection station. Read `accept` as false once "
            "`valid_ms` have passed, or when no answer comes.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }  # fmt: skip


def _paths(route: Described, commands: Iterable[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    if not route.commands:
        yield route.path, {**_READS[route.path], "security": [{}, {"basic": []}]}
        return
    for op in commands:
        operation = OPERATIONS[op]
        fields = _fields()
        body = {
            "type": "object", "required": list(operation.required), "additionalProperties": False,
            "properties": {
                **{name: _not_null(fields[name]) for name in operation.required},
                **{name: fields[name] for name in operation.optional},
            },
        }  # fmt: skip
        yield route.path.replace("{op}", op), {
            "operationId": op, "summary": operation.meaning, "security": [{"basic": []}],
            "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
            "responses": {
                **{str(status): _answer(PHRASES[status], "Reply") for status in (200, 202, 409, 500, 501)},
                **{str(status): _problem(status) for status in (400, 401, 403, 404, 411, 413, 415, 429, 504)},
            },
        }  # fmt: skip


def _answer(text: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": {"$ref": REF.format(name=schema)}}}}


def _problem(status: int) -> dict[str, Any]:
    content = {PROBLEM: {"schema": {"$ref": REF.format(name="Problem")}}}
    if status in (400, 403, 404):  # the station may say so too
        content[JSON] = {"schema": {"$ref": REF.format(name="Reply")}}
    return {"description": PHRASES[status], "content": content}


def _read(summary: str, schema: str, *problems: int, **more: Any) -> dict[str, Any]:
    return {
        "summary": summary, **more,
        "responses": {
            "200": _answer(PHRASES[200], schema),
            **{str(status): _problem(status) for status in (400, 401, 429, *problems)},
        },
    }  # fmt: skip


def _given(name: str, where: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "description": meaning, "schema": schema}


_READS = {
    "/state": _read("the station as the gateway sees it", "State", operationId="state"),
    "/results": _read(
        "results and gaps that are kept, ascending", "Results", operationId="results",
        parameters=[
            _given("since", "query", "the first result wanted; what is no longer kept comes as a gap", ID),
            _given("limit", "query", "at most this many; 0 or absent: 1000", {**ID, "maximum": 1000}),
        ],
    ),
    "/results/{result_id}": _read(
        "one result", "ShownResult", 404, operationId="result",
        parameters=[_given("result_id", "path", "its number", ID)],
    ),
    "/counters": _read("what the station has counted since the last reset", "Counters", 503, operationId="counters"),
    "/openapi.json": _read("this description", "Any", operationId="openapi"),
}  # fmt: skip


def _fields() -> dict[str, Any]:
    _, components = msgspec.json.schema_components([Request], ref_template=REF)
    fields: dict[str, Any] = _portable(components["Request"]["properties"])
    return fields


def _schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        [State, ShownResult, ShownGap, Results, Counters, Reply, Problem], ref_template=REF
    )
    found: dict[str, Any] = _portable(components)
    found["Results"]["properties"]["items"]["items"] = {
        "oneOf": [{"$ref": REF.format(name=name)} for name in ("ShownResult", "ShownGap")]
    }
    for name, kind in (("ShownResult", "result"), ("ShownGap", "gap")):
        found[name]["properties"]["kind"] = {"const": kind}
        found[name]["required"] = sorted({*found[name].get("required", ()), "kind"})
    found["Any"] = {"type": "object"}
    return found


def _not_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field that must be given."""
    kinds: list[dict[str, Any]] = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    return kinds[0]


def _portable(value: Any) -> Any:
    r"""Patterns as ECMA 262 has them: Python's ``\A`` and ``\Z`` mean something else there."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\A", "^").replace(r"\Z", "$") if key == "pattern" else _portable(one)
            for key, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value
