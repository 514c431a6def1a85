"""The constants of the client kits are those of the one list, and the record's layout is the wire's."""

from __future__ import annotations

import re
import runpy
import struct
from pathlib import Path

import pytest

from asperity.runtime.documents import receiver_constants as constants
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.runtime.wire import decode_record, encode_record, record
from tests.places import EXAMPLES

GENERATED = EXAMPLES / "generated"


@pytest.mark.parametrize("kit", sorted(path for path in EXAMPLES.glob("*/*") if path.suffix in (".c", ".mjs", ".py")))
def test_a_kit_is_short(kit: Path) -> None:
    if kit.parent != GENERATED:
        assert len(kit.read_text().splitlines()) <= 100


def test_every_code_is_there_and_nothing_else() -> None:
    own = runpy.run_path(str(GENERATED / "asperity_constants.py"))
    assert own["REASON"] == {reason.name: int(reason) for reason in Reason}
    assert own["STATE"] == {state.name: int(state) for state in State}
    assert own["VERDICT"] == {verdict.name: int(verdict) for verdict in Verdict}
    for name in ("asperity.h", "asperity.mjs", "asperity_gvl.st"):
        text = (GENERATED / name).read_text()
        found = dict(re.findall(r"(?:ASPERITY_REASON_|^  )([A-Z_]+)(?: : UINT :=| =|:) (\d+)[,;]", text, flags=re.M))
        assert {key: int(found[key]) for key in own["REASON"]} == own["REASON"], name


def test_the_record_can_be_read_by_the_table() -> None:
    fields = constants.record_fields()
    assert [(field.name, field.offset) for field in fields][:3] == [("magic", 0), ("version", 4), ("state", 5)]
    assert all(field.offset * 8 % int(field.kind[1:]) == 0 for field in fields), "aligned to its size"
    result = Result(
        station="st1",
        session="0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a",
        result_id=2**40 + 1,
        seq=2**33,
        trigger_id=7,
        part_id="4711",
        verdict=Verdict.NG,
        reason=Reason.SHAPE_OUT_OF_RANGE,
        score=0.25,
        threshold=0.5,
        t_exposure_us=1_790_000_000_000_001,
        latency_us={"total": 1234},
    )
    body = encode_record(result, state=State.READY, station_number=9)
    seen = decode_record(body)
    own = runpy.run_path(str(GENERATED / "asperity_constants.py"))
    values = dict(zip(own["RECORD"], struct.unpack(own["RECORD_FORMAT"], body), strict=True))
    assert (values["part_number"], values["station_number"], values["seq"]) == (4711, 9, 2**33)
    assert values == {name: getattr(seen, name, values[name]) for name in own["RECORD"]}
    assert set(own["RECORD"]) - {"magic", "crc"} == set(record.Record.__dataclass_fields__)
