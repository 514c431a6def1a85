"""``/api/v1``: state, results by number and commands, for programs that speak neither OPC UA nor MQTT.

A result's ``accept`` is what may pass at the moment of the answer; ``valid_ms`` says how long it may be used.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.http.requests import JSON, Answer, Request, RequestRefused, json_answer, problem
from asperity.runtime.gateways.link import Delivered, Item, Link
from asperity.runtime.gateways.log_ins.users import User
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.gateways.requests import NOT_FROM_A_GATEWAY, fields_to_ask, request_of
from asperity.runtime.gateways.state_message import state_message
from asperity.runtime.text.numbers import whole_number
from asperity.runtime.wire import OPERATIONS, encode_counters, encode_reply, encode_result_body
from asperity.runtime.wire import Request as Asked
from asperity.runtime.wire.common import fields_of

PREFIX = "/api/v1"
RESULTS_MAX = 1000
"""Items of one answer."""
COMMANDS = tuple(op for op in OPERATIONS if not op.startswith("get_") and op not in NOT_FROM_A_GATEWAY)
STATUS = {
    "OK": 200, "ACCEPTED": 202, "BAD_REQUEST": 400, "NOT_ALLOWED": 403, "UNKNOWN_OP": 404, "WRONG_STATION": 404,
    "BUSY": 409, "WRONG_STATE": 409, "REFUSED": 409, "TOO_OLD": 409, "FAILED": 500, "UNSUPPORTED": 501,
}  # fmt: skip
ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Route:
    """A path, and what may be done with it."""

    method: str
    path: str
    """Below PREFIX; ``{name}`` stands for one part of it."""
    call: Callable[[Request, User | None, str], Awaitable[Answer]]
    commands: bool = False
    """Only for users with the role operate."""


class Api:
    """The paths of one gateway, and the results they answer with."""

    def __init__(self, config: GatewayConfig, link: Link, document: Callable[[], object], plc: PlcClock) -> None:
        """``document``: the OpenAPI description."""
        self._config = config
        self._link = link
        self._document = document
        self._plc = plc
        self._parts = Parts(config.http.results_kept)
        self._items: deque[Item] = deque(maxlen=config.http.results_kept)
        self._arrived: deque[Item] = deque()  # not shown before the request of its trigger is answered
        self.routes = (
            Route("GET", "/state", self._state),
            Route("GET", "/results", self._results),
            Route("GET", "/results/{result_id}", self._result),
            Route("GET", "/counters", self._counters),
            Route("GET", "/openapi.json", self._described),
            Route("POST", "/commands/{op}", self._command, commands=True),
        )

    def take(self, items: list[Item]) -> list[Item]:
        """What the link handed on. The items that may be shown from now on, in order."""
        self._arrived.extend(items)
        shown = []
        while self._arrived and not self._parts.waits(self._arrived[0]):
            shown.append(self._parts.show(self._arrived.popleft()))
        self._items.extend(shown)
        return shown

    @property
    def room(self) -> bool:
        """False while results wait for a request's answer: the link keeps the others."""
        return len(self._arrived) < RESULTS_MAX

    def route(self, request: Request) -> tuple[Route, str] | Answer:
        """The route of a path below PREFIX with what stands for its ``{name}``, or why there is none."""
        path = request.path.removeprefix(PREFIX)
        found = [(one, value) for one in self.routes if (value := _matched(one.path, path)) is not None]
        method = "GET" if request.method == "HEAD" else request.method
        for one, value in found:
            if one.method == method:
                return one, value
        if found:
            methods = ", ".join(sorted({one.method for one, _ in found}))
            return problem(405, f"only {methods}", f"Allow: {methods}")
        return problem(404, f"there is no {request.path[:80]!a}; {PREFIX}/openapi.json describes what there is")

    async def _state(self, request: Request, user: User | None, value: str) -> Answer:
        state = state_message(self._config.station.name, self._link.view(), "", ())
        return json_answer({**state, "plc_offset_ms": self._plc.offset_ms})

    async def _results(self, request: Request, user: User | None, value: str) -> Answer:
        first = _number(request.query, "since", 0, ID_MAX)
        most = _number(request.query, "limit", RESULTS_MAX, RESULTS_MAX) or RESULTS_MAX
        kept = [item for item in self._items if _last_id(item) >= first]
        items = [self._shown(item) for item in kept[:most]]
        oldest = _first_id(self._items[0]) if self._items else None
        if "since" in request.query and oldest is not None and first < oldest:
            gap = {"kind": "gap", "first_id": first, "last_id": oldest - 1, "why": "not kept here, or from before the "
                   "gateway started; the station's journal may have it"}  # fmt: skip
            items = [gap, *items[: most - 1]]
        return json_answer({"station": self._config.station.name, "items": items})

    async def _result(self, request: Request, user: User | None, value: str) -> Answer:
        item = self._parts.get(_number({"result_id": value}, "result_id", 0, ID_MAX))
        if item is None:
            most = self._config.http.results_kept
            return problem(404, f"result {value} is not among the last {most} of this gateway ([http] results_kept)")
        return json_answer(self._shown(item))

    async def _counters(self, request: Request, user: User | None, value: str) -> Answer:
        counters = self._link.view().counters
        if counters is None:
            return problem(503, "the station has not published its counters since the gateway started")
        return Answer(200, encode_counters(counters)[1], JSON)

    async def _described(self, request: Request, user: User | None, value: str) -> Answer:
        return json_answer(self._document())

    async def _command(self, request: Request, user: User | None, op: str) -> Answer:
        asked = self._asked(request, op)
        if op == "prepare_recipe" and asked.recipe:
            self._parts.asked_for(asked.recipe)
        actor = f"http {user.name if user is not None else 'anonymous'}"
        sent_us = date_us(request.headers.get("date", ""))
        if sent_us is not None:
            self._plc.says(sent_us, actor)
        future = self._link.ask(op, actor=actor, **fields_to_ask(asked))
        if asked.trigger_id:
            self._parts.triggered(asked.trigger_id, future)
        try:
            reply = await asyncio.wrap_future(future)
        except StationError as error:
            return problem(504, str(error))
        except WireError as error:
            return problem(400, str(error))
        answer = msgspec.structs.replace(reply, id=asked.id, state=None, results=None)
        return Answer(STATUS.get(reply.code, 500), encode_reply(answer), JSON)

    def _asked(self, request: Request, op: str) -> Asked:
        """What a command asks of the station. Raises RequestRefused."""
        if op in NOT_FROM_A_GATEWAY:
            raise RequestRefused(problem(403, f"{op} is not available over HTTP; do it at the station"))
        if op not in COMMANDS:
            raise RequestRefused(
                problem(404, f"there is no operation {op[:40]!a}; there are {', '.join(COMMANDS)}")
            )
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            # A page of another site can make a browser send a form, but not this.
            raise RequestRefused(problem(415, f"send the fields as {JSON}; {{}} where there are none"))
        extra = sorted(set(_names(request.body)) - set(fields_of_command(op)))
        if extra:
            # On the wire an unknown field is left for later versions; here it is most likely a slip.
            known = ", ".join(fields_of_command(op)) or "none"
            raise RequestRefused(problem(400, f"{op} does not know the field {extra[0][:40]!a}; it knows {known}"))
        own = {"id": msgspec.Raw(msgspec.json.encode(str(uuid.uuid4()))), "actor": msgspec.Raw(b'""')}
        try:
            return request_of(op, request.body, own)
        except WireError as error:
            raise RequestRefused(problem(400, str(error))) from error

    def _shown(self, item: Item) -> dict[str, Any]:
        if isinstance(item, Gap):
            return {"kind": "gap", "first_id": item.first_id, "last_id": item.last_id, "why": item.why}
        held = self._parts.get(item.result.result_id) or item
        accept = self._link.may_pass(held)
        fields = msgspec.json.decode(encode_result_body(item.result))
        held_ms = (time.monotonic() - item.at_s) * 1000
        valid_ms = max(0, int(self._config.gateway.accept_hold_ms - held_ms)) if accept else 0
        return {"kind": "result", **fields, "accept": accept, "valid_ms": valid_ms}


def date_us(text: str) -> int | None:
    """The middle of the second that a header Date (RFC 9110) names; None: it names none."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    utc = found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
    return round(utc.timestamp() * 1_000_000) + 500_000


def fields_of_command(op: str) -> tuple[str, ...]:
    """What the body of a command may have."""
    operation = OPERATIONS[op]
    return (*operation.required, *operation.optional)


def _names(body: bytes) -> list[str]:
    """Of the fields of an object; none where it is not one, which ``request_of`` says."""
    try:
        return list(fields_of(body))
    except (ValueError, RecursionError):
        return []


def _matched(pattern: str, path: str) -> str | None:
    """What stands for ``{name}``; empty: the pattern has none; None: another path."""
    fixed, brace, _ = pattern.partition("{")
    if not brace:
        return "" if path == pattern else None
    rest = path.removeprefix(fixed)
    return rest if path.startswith(fixed) and rest and "/" not in rest else None


def _number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number in decimal. Raises RequestRefused."""
    text = given.get(name)
    if text is None:
        return default
    number = whole_number(text)
    if number is None or not 0 <= number <= most:
        raise RequestRefused(problem(400, f"{name} is {text[:20]!a}; give a whole number from 0 to {most}"))
    return number


def _first_id(item: Item) -> int:
    return item.result.result_id if isinstance(item, Delivered) else item.first_id


def _last_id(item: Item) -> int:
    return item.result.result_id if isinstance(item, Delivered) else item.last_id
