"""The Structured Text of the examples as blocks to call: translated, or compiled by matiec."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, pack
from tests.examples.structured_text import Block, Program
from tests.places import EXAMPLES

GENERATED = EXAMPLES / "generated"
STATION = EXAMPLES / "plc" / "asperity_station.st"
SOURCES = (GENERATED / "asperity.st", GENERATED / "asperity_modbus.st", STATION)
HARNESS = r"""
#include <stdio.h>
#include <string.h>
#include "iec_std_lib.h"
#include "accessor.h"
TIME __CURRENT_TIME; BOOL __DEBUG;
#include "POUS.h"
#include "POUS.c"
int main(void) {
    static ASPERITY_STATION s; static ASPERITY_READ_RECORD r;
    char kind; long ms = 0;
    ASPERITY_STATION_init__(&s, 0); ASPERITY_READ_RECORD_init__(&r, 0);
    while (scanf(" %c", &kind) == 1) {
        unsigned a, b, c, d;
        if (kind == 'R') {
            for (int n = 0; n < 64; n++) { if (scanf("%u", &a) != 1) return 1; r.BYTES.value.table[n] = a; }
            if (scanf("%u", &a) != 1) return 1;
            r.ALLOW_SIMULATED.value = a;
            ASPERITY_READ_RECORD_body__(&r);
            ASPERITY_RECORD *v = &r.RECORD.value;
            printf("%d %d %u %u %llu %llu %lld %u %.9g %.9g %u %u\n", r.VALID.value, r.PASSES.value,
                   v->STATE, v->VERDICT, (unsigned long long)v->RESULT_ID, (unsigned long long)v->SEQ,
                   (long long)v->T_EXPOSURE_US, v->TRIGGER_ID, v->SCORE, v->THRESHOLD, v->REASON_CODE, v->PART_NUMBER);
        } else {
            if (scanf("%u %u %u %u", &a, &b, &c, &d) != 4) return 1;
            ms += a;
            __CURRENT_TIME.tv_sec = ms / 1000; __CURRENT_TIME.tv_nsec = ms % 1000 * 1000000;
            s.WORDS_READ.value = b; s.TRIGGER.value = c; s.ALLOW_SIMULATED.value = d; s.PART_NUMBER.value = 77;
            if (scanf("%u", &a) != 1) return 1;
            s.RECIPE.value = a;
            for (int n = 0; b && n < STATUS_WORDS; n++) {
                if (scanf("%u", &a) != 1) return 1;
                s.WORDS.value.table[n] = a;
            }
            ASPERITY_STATION_body__(&s);
            printf("%d %d %d %d %d %d %u %u %u %d %u\n", s.ACCEPT.value, s.ALIVE.value, s.BUSY.value, s.DONE.value,
                   s.TIMED_OUT.value, s.NEW_RESULT.value, s.LOST.value, s.RESULT_ACK.value, s.TRIGGER_REQUEST.value,
                   s.WRITE_ACK.value, s.TRIGGER_RECIPE.value);
        }
        fflush(stdout);
    }
    return 0;
}
"""
MAIN = """
PROGRAM everything
    VAR s : ASPERITY_STATION; r : ASPERITY_READ_RECORD; END_VAR
    s();
    r();
END_PROGRAM
CONFIGURATION c
    RESOURCE res ON PLC
        TASK t(INTERVAL := T#10ms, PRIORITY := 0);
        PROGRAM p WITH t : everything;
    END_RESOURCE
END_CONFIGURATION
"""
OUTPUTS = (
    "accept", "alive", "busy", "done", "timed_out", "new_result", "lost", "result_ack", "trigger_request", "write_ack",
    "trigger_recipe",
)  # fmt: skip


def words_of(status: dict[str, Any] | None) -> list[int]:
    """The registers of a status block."""
    return [] if status is None else list(struct.unpack(f">{STATUS_WORDS}H", pack(STATUS, status)))


class TranslatedPlc:
    """The station's block, translated, call by call."""

    def __init__(self) -> None:
        self._program = Program(*(path.read_text() for path in SOURCES))
        self._station = Block(self._program, "ASPERITY_STATION")

    def call(
        self,
        dt_ms: int,
        status: dict[str, Any] | None = None,
        trigger: bool = False,
        simulated: bool = False,
        recipe: int = 0,
    ) -> dict[str, int]:
        self._program.now_ms += dt_ms
        words = {} if status is None else {"words": words_of(status)}
        self._station(
            words_read=status is not None, trigger=trigger, allow_simulated=simulated, part_number=77, recipe=recipe,
            **words,
        )  # fmt: skip
        return {name: int(getattr(self._station, name)) for name in OUTPUTS}


class Plc:
    """The blocks, compiled, call by call."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, *numbers: object) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, numbers)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()

    def record(self, body: bytes, allow_simulated: bool = False) -> list[str]:
        return self._ask("R", *body, int(allow_simulated))

    def call(
        self,
        dt_ms: int,
        status: dict[str, Any] | None = None,
        trigger: bool = False,
        simulated: bool = False,
        recipe: int = 0,
    ) -> dict[str, int]:
        flags = (int(status is not None), int(trigger), int(simulated))
        told = self._ask("S", dt_ms, *flags, recipe, *words_of(status))
        return dict(zip(OUTPUTS, map(int, told), strict=True))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
