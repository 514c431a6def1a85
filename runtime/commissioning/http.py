"""A program that asks the HTTP gateway's ``/api/v1``."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

from asperity.runtime.commissioning.messages import outcome_of_change, shown_of
from asperity.runtime.commissioning.plc_side import Counted, NoAnswer, Reading, Shown
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import StationState

JSON = "application/json"
MAX_ANSWER_NBYTES = 1 << 20
"""An answer is read so far; a longer one is cut, and so refused."""


class HttpSide:
    """As ``PlcSide``. Each request is a connection."""

    cycle_s = 0.05
    handshake = False
    users = True

    def __init__(self, host: str, port: int, timeout_s: float, user: tuple[str, str] | None) -> None:
        """``user``: name and password, of the role operate."""
        self._where, self.timeout_s = (host, port), timeout_s
        self._user = user
        self._last: Shown | None = None
        self._since = 0
        self._triggers = ""
        self.again()

    def again(self) -> None:
        """As ``PlcSide.again``: what is there already is not this PLC's."""
        self._last = None
        kept = self._results(0)
        self._since = max([self._since, *(item.get("result_id", item.get("last_id", 0)) + 1 for item in kept)])

    def read(self) -> Reading:
        """As ``PlcSide.read``."""
        new = []
        missing, last_id = 0, self._since - 1
        items = self._results(last_id if self._last is not None else self._since)
        if self._last is not None:
            self._last = self._last._replace(accept=False)  # unless this answer says otherwise
        for item in items:
            if item["kind"] == "gap":
                if item["last_id"] >= self._since:
                    missing += item["last_id"] - max(item["first_id"], self._since) + 1
                continue
            shown = shown_of(item, missing)
            if item["result_id"] < self._since:
                self._last = shown  # the one before, with its accept of now
                continue
            new.append(shown)
            self._last, self._since, missing = shown, item["result_id"] + 1, 0
        state = self._state()
        accept = self._last is not None and self._last.accept
        if accept and not state["trusted"]:
            state = self._state()  # two answers are of two moments
        self._triggers = str(state.get("triggers", ""))
        change = state.get("recipe_change") or {}
        return Reading(
            beat=int(state.get("beat", 0)),
            accept=accept,
            quality=state["trusted"] is True,
            state=int(state.get("state", 0)),
            session=str(state.get("session", "")),
            shown=self._last,
            new=tuple(new),
            recipe_change=str(change.get("status", "")),
        )

    def acknowledge(self, shown: Shown) -> None:
        """As ``PlcSide.acknowledge``; there is no such thing."""

    def trigger(self, trigger_id: int, part_id: str, timeout_ms: int) -> str:
        """As ``PlcSide.trigger``."""
        op = "expect" if self._triggers == "hard_wired" else "trigger"
        fields: dict[str, Any] = {"trigger_id": trigger_id, "part_id": part_id}
        return str(self._command(op, {**fields, "timeout_ms": timeout_ms} if op == "trigger" else fields)["code"])

    def repeat_trigger(self) -> str:
        """As ``PlcSide.repeat_trigger``; a request is sent once."""
        return ""

    def command(self, op: str) -> str:
        """As ``PlcSide.command``."""
        return str(self._command(op, {})["code"])

    def set_batch(self, batch: Batch) -> str:
        """As ``PlcSide.set_batch``."""
        return str(self._command("set_batch", batch._asdict())["code"])

    def want_recipe(self, name: str) -> str:
        """As ``PlcSide.want_recipe``."""
        reply = self._command("prepare_recipe", {"recipe": name})
        if not reply["ok"]:
            return "failed"

        def look() -> tuple[int, str]:
            change = self._state().get("recipe_change") or {}
            return int(change.get("number", 0)), str(change.get("status", ""))

        return outcome_of_change(int(reply["recipe_change"]), look)

    def counters(self) -> Counted:
        """As ``PlcSide.counters``."""
        fields = self._get("/api/v1/counters")
        return Counted(*(int(fields.get(name, 0)) for name in Counted._fields))

    def identity(self, state: StationState) -> list[tuple[str, str, str]]:
        """As ``PlcSide.identity``."""
        seen = self._state()
        names = ("station", "session", "triggers", "beat_timeout_ms", "recipe", "bundle")
        return [(name, str(getattr(state, name)), str(seen.get(name, ""))) for name in names]

    def command_without_role(self) -> str:
        """As ``PlcSide.command_without_role``."""
        status, body = self._ask("POST", "/api/v1/commands/stop", b"{}", None)
        return "" if status < 400 else f"stop without a user: HTTP {status}, {body.get('detail', '')}"

    def close(self) -> None:
        """As ``PlcSide.close``; nothing is open."""

    def _results(self, since: int) -> list[dict[str, Any]]:
        items = self._get(f"/api/v1/results?since={max(since, 0)}")["items"]
        return list(items)

    def _state(self) -> dict[str, Any]:
        return self._get("/api/v1/state")

    def _get(self, path: str) -> dict[str, Any]:
        status, body = self._ask("GET", path, None, self._user)
        if status != 200:
            raise NoAnswer(f"GET {path}: HTTP {status}, {body.get('detail', '')}")
        return body

    def _command(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        status, body = self._ask("POST", f"/api/v1/commands/{op}", json.dumps(fields).encode(), self._user)
        if "code" not in body:
            raise NoAnswer(f"{op}: HTTP {status}, {body.get('detail', '')}")
        return body

    def _ask(
        self, method: str, path: str, body: bytes | None, user: tuple[str, str] | None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": JSON} if body is not None else {}
        if user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
        connection = http.client.HTTPConnection(*self._where, timeout=self.timeout_s)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_NBYTES)
            fields = decode_json(data, dict[str, Any]) if data else {}
        except (OSError, http.client.HTTPException, TextRefused) as error:
            host, port = self._where
            raise NoAnswer(f"no answer from http://{host}:{port}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return answer.status, fields
