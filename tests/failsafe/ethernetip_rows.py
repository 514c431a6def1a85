"""The rows of docs/failsafe.md about EtherNet/IP: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.gateway_rows import NO_BASELINE
from tests.failsafe.rows import Off, off
from tests.failsafe.station_rows import TRUST_FOR_EVER

TABLE: dict[str, dict[str, list[Off]]] = {
    "The gateways": {
        "... EtherNet/IP": [
            off("runtime/gateways/test_fault_table.py::test_a_stopped_or_killed_inspector_takes_accept_away_over_every_protocol",
                "the fall of accept did not come", *TRUST_FOR_EVER),
            off("runtime/gateways/ethernetip/test_eip_cyclic.py::test_accept_falls_in_the_cycle_whatever_was_sent_before",
                "assert 1 == 0", ("gateways/modbus/registers.py", '"accept": view.good\n                and record', '"accept": record'),
                ("gateways/modbus/registers.py", "and self._link.may_pass(shown.item)", "and shown.item.accept")),
        ],
        "the EtherNet/IP gateway is restarted, and the controller holds old requests": [
            off("runtime/gateways/ethernetip/test_eip_client.py::test_what_stood_in_the_controller_as_the_gateway_started_is_not_done",
                "== (21, 21, [])", NO_BASELINE),
        ],
        "the EtherNet/IP controller goes to program mode, its cyclic data stop, repeat or come from elsewhere": [
            off("runtime/gateways/ethernetip/test_eip_cyclic.py::test_a_controller_in_program_mode_asks_for_nothing",
                "1 == 5", ("gateways/ethernetip/connections.py", "self.count, self.running = count, bool(run & 1)", "self.count, self.running = count, True"),
                ("gateways/ethernetip/connections.py", "new = bool(run & 1) and (", "new = (")),
            off("runtime/gateways/ethernetip/test_eip_cyclic.py"
                "::test_a_connection_of_which_nothing_comes_is_closed_and_another_may_own",
                "the end of the connection did not come", ("gateways/ethernetip/connections.py", "if now_s > cyclic.ends_s]", "if False]")),
            off("runtime/gateways/ethernetip/test_eip_cyclic.py::test_who_owns_writes_alone",
                "== []", ("gateways/ethernetip/connections.py", "if self.came >= 0 and not 0 < (number - self.came) & 0xFFFFFFFF < 1 << 31:", "if False:")),
        ],
        "invalid data, silence, reconnections: Modbus, EtherNet/IP, HTTP": [
            off("runtime/gateways/ethernetip/test_eip_server.py"
                "::test_a_message_that_claims_too_much_costs_its_sender_the_connection_and_nobody_else",
                "timed out", ("gateways/ethernetip/encapsulation.py", "if nbytes > DATA_MAX_NBYTES:", "if False:")),
        ],
    },
}  # fmt: skip
