"""The gate: who may connect where, ask what and how often, by the list of clients as it stands at that moment."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import AccessError
from asperity.runtime.security.curve_keys import AllowedKey, ClientKeys, Role
from asperity.runtime.settings.station_toml import Security
from asperity.runtime.sockets.access import OPERATIONS_OF, REFUSALS, SOCKETS_OF, Access
from tests.runtime.inspector.station_floor import Floor

SOCKETS = ("frames", "results", "bulk", "control")


class Gate:
    """A gate, its keys, and a clock that the test moves."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.now_ns = 10**9
        self.keys = ClientKeys(folder)
        self.clients = {
            role.value: self.keys.admit(role.value, (role,), public_key=zmq.curve_keypair()[0].decode())[0]
            for role in Role
        }
        self.access = Access(Security(curve=True, keys=str(folder), **limits), lambda: Now(self.now_ns, 0))

    def connects(self, name: str, socket: str, connections: int = 0) -> str:
        said = self.access.connects(socket, z85.decode(self.clients[name].public_key), "10.0.0.7", connections)
        assert (said.user_id == self.clients[name].key_id) is (said.status == "200")
        return said.reason

    def later(self, ms: float = 1000) -> set[str]:
        self.now_ns += round(ms * MS)
        return self.access.changed()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "keys")


def test_each_role_opens_its_sockets_and_no_other(gate: Gate) -> None:
    opened = {role.value: {s for s in SOCKETS if gate.connects(role.value, s) == "OK"} for role in Role}
    reader = {"results", "bulk", "control"}
    assert opened == {"camera": {"frames"}, "read": reader, "operate": reader, "administer": reader}
    assert gate.access.refused == {"WRONG_SOCKET": 3 + 1 + 1 + 1}


def test_each_operation_has_a_role_and_each_role_only_its_own(gate: Gate) -> None:
    assert set(wire.OPERATIONS) == OPERATIONS_OF[Role.ADMINISTER]
    allowed = {
        role.value: {op for op in wire.OPERATIONS if not gate.access.asks(gate.clients[role.value].key_id, op)}
        for role in Role
    }
    assert allowed["camera"] == set()
    assert allowed["read"] == {"get_state", "get_result"}
    assert allowed["operate"] == set(wire.OPERATIONS) - {"set_threshold", "shutdown"}
    assert allowed["administer"] == set(wire.OPERATIONS)
    assert set(OPERATIONS_OF) == set(SOCKETS_OF) == set(Role)
    assert gate.access.asks(gate.clients["administer"].key_id, "no_such_op") == REFUSALS["ROLE"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.text(max_size=20))
def test_nobody_elses_key_or_name_opens_anything(
    tmp_path_factory: pytest.TempPathFactory, key: bytes, user: str
) -> None:
    gate = _kept(tmp_path_factory)
    for socket in SOCKETS:
        assert gate.access.connects(socket, key, "10.0.0.7", 0).status != "200"
    assert gate.access.asks(user, "get_state") and not gate.access.sends_frames(user)


_gates: list[Gate] = []


def _kept(factory: pytest.TempPathFactory) -> Gate:
    if not _gates:
        _gates.append(Gate(factory.mktemp("gate")))
    return _gates[0]


def test_revocation_acts_at_the_next_look_and_names_the_sockets_to_cut(gate: Gate) -> None:
    camera, reader = gate.clients["camera"].key_id, gate.clients["read"].key_id
    for name, socket in (("camera", "frames"), ("read", "results"), ("read", "control"), ("operate", "bulk")):
        assert gate.connects(name, socket) == "OK"
    assert gate.access.sends_frames(camera) and not gate.access.asks(reader, "get_state")
    assert gate.later() == set()
    gate.keys.revoke("read")
    assert gate.later() == {"results"}  # on bulk it never was, and control asks for each message
    assert gate.access.asks(reader, "get_state") == REFUSALS["REVOKED_KEY"]
    assert gate.connects("read", "results") == "REVOKED_KEY"
    gate.keys.revoke("camera")
    assert gate.later() == {"frames"}
    assert not gate.access.sends_frames(camera)
    assert gate.later() == set(), "cut once"
    gate.keys.revoke("administer")
    assert gate.later() == set(), "a key that is nowhere cuts nobody"


def test_a_client_that_loses_a_role_is_cut_where_it_was_let_in_by_it(gate: Gate) -> None:
    path = gate.keys.folder / "allowed" / "both.json"
    entry, _ = gate.keys.admit("both", (Role.CAMERA, Role.READ), public_key=zmq.curve_keypair()[0].decode())
    gate.clients["both"] = entry
    gate.later()
    assert (gate.connects("both", "frames"), gate.connects("both", "results")) == ("OK", "OK")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(entry, roles=(Role.READ,))))
    # Some kernels' file times tick more coarsely than a test goes on.
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert gate.later() == {"frames"}
    assert gate.connects("both", "frames") == "WRONG_SOCKET"


def test_a_folder_that_cannot_be_believed_lets_nobody_in(gate: Gate, tmp_path: Path) -> None:
    assert gate.connects("read", "results") == "OK"
    allowed = gate.keys.folder / "allowed"
    allowed.chmod(0o777)
    assert gate.later() == {"results"}
    assert gate.connects("read", "results") == "KEYS"
    assert gate.access.asks(gate.clients["read"].key_id, "get_state") == REFUSALS["KEYS"]
    with pytest.raises(AccessError, match="chmod go-w"):
        Access(Security(curve=True, keys=str(tmp_path / "keys")))
    allowed.chmod(0o700)
    gate.later()
    assert gate.connects("read", "results") == "OK"


def test_limits_are_of_each_client_and_refill_with_time(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "keys", requests_per_s=10, connects_per_min=3, connections=5)
    reader, operator = gate.clients["read"].key_id, gate.clients["operate"].key_id
    assert [gate.access.overasks(reader, b"", 100) for _ in range(10)] == [""] * 10
    assert "more than 10 requests" in gate.access.overasks(reader, b"", 100)
    assert gate.access.overasks(operator, b"", 100) == ""
    gate.later(100)
    assert gate.access.overasks(reader, b"", 100) == ""
    assert gate.access.overasks(reader, b"", 100)
    assert gate.access.refused["RATE"] == 2
    assert [gate.connects("read", "results") for _ in range(4)] == ["OK", "OK", "OK", "CONNECTIONS"]
    assert gate.connects("operate", "results", connections=5) == "CONNECTIONS"
    gate.later(20_000)
    assert gate.connects("read", "results") == "OK"


def test_bytes_are_limited_too(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "keys", request_nbytes_per_s=wire.MAX_CONTROL_BYTES)
    reader = gate.clients["read"].key_id
    assert gate.access.overasks(reader, b"", wire.MAX_CONTROL_BYTES) == ""
    assert gate.access.overasks(reader, b"", 1000)


def test_what_is_remembered_of_clients_is_bounded(tmp_path: Path) -> None:
    access = Access(Security(requests_per_s=1))
    for number in range(5000):
        access.overasks("", number.to_bytes(4, "big"), 10)
        access.overasks("", b"known", 10)
    assert len(access._buckets) < 1000 and len(access._news) < 100
    assert access.overasks("", b"known", 10)


def test_without_curve_the_endpoint_is_the_limit() -> None:
    access = Access(Security())
    assert access.asks("", "shutdown") == "" and access.sends_frames("") and access.changed() == set()


def test_the_desk_refuses_by_role_before_it_looks_at_what_was_answered_before(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "keys")
    floor = Floor(tmp_path / "journal", security={"curve": True, "keys": str(tmp_path / "keys")})

    def ask(client: AllowedKey | None) -> wire.Reply:

        body = wire.encode_request(wire.Request(id="same", op="stop"))
        reply = floor.desk.requests.answer([b"x"], [body], client.key_id if client else "")[1]
        return wire.decode_reply(reply)

    assert ask(gate.clients["read"]).code == "NOT_ALLOWED"
    assert ask(gate.clients["camera"]).code == "NOT_ALLOWED"
    assert ask(None).code == "NOT_ALLOWED"
    assert ask(gate.clients["operate"]).code == "OK"
    assert ask(gate.clients["read"]).code == "NOT_ALLOWED"
    floor.desk.turn()
    assert floor.desk.sockets.access.refused == {"ROLE": 3, "UNKNOWN_KEY": 1}
    assert {event.code for event in floor.events if event.code.startswith("REFUSED")} == {
        "REFUSED ROLE read",
        "REFUSED ROLE camera",
        "REFUSED UNKNOWN_KEY somebody",
    }
    floor.close()


def test_no_secret_can_get_into_a_log(gate: Gate) -> None:
    secret = gate.keys.station().secret_key
    assert secret not in repr(vars(gate.access)) and secret not in str(gate.access.station_key)
