"""`asperity commission` itself: against its own simulation it passes, over each protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from asperity.runtime.cli import register
from asperity.runtime.commissioning.line import AskedLine
from asperity.runtime.commissioning.protocol import NOT_NEEDED, PASSED, verify
from asperity.runtime.commissioning.rows import ROWS
from asperity.runtime.errors import CommissioningError, NotCheckedError, UsageError
from asperity.runtime.security.private_files import KEYS_VARIABLE
from asperity.runtime.security.signing_keys import TrustStore
from tests.command_line import commands_of

pytestmark = pytest.mark.usefixtures("forked_starts")

WITHOUT = {"modbus": {"refused"}, "ethernetip": {"refused"}, "opcua": {"handshake"}, "http": {"handshake"}}
"""Rows that a protocol cannot have."""


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(KEYS_VARIABLE, str(tmp_path / "keys"))
    return tmp_path / "keys"


def commission(*arguments: str) -> tuple[str, BaseException | None]:
    found = CliRunner().invoke(commands_of(register), ["commission", *arguments])
    return found.output, found.exception


@pytest.mark.parametrize(
    "protocol",
    ["modbus", *(pytest.param(name, marks=pytest.mark.soak) for name in ("ethernetip", "opcua", "http"))],
)
def test_the_simulation_passes(protocol: str, tmp_path: Path, keys: Path) -> None:
    file = tmp_path / "protocol.json"
    said, error = commission("--simulated", "--protocol", protocol, "-o", str(file))
    assert error is None, (said, error)
    document, key = verify(file, TrustStore(keys))
    assert document.passed and document.simulated and len(document.gateway_config_sha256) == 64
    assert {row.key for row in document.rows if row.status == PASSED} == {row.key for row in ROWS} - WITHOUT[protocol]
    assert {row.key for row in document.rows if row.status == NOT_NEEDED} == WITHOUT[protocol]
    said, error = commission("verify", str(file))
    assert error is None and f"is whole, signed by key {key.key_id}" in said and said.endswith("passed\n")
    assert commission("verify", "--page", str(file))[0] == file.with_suffix(".md").read_text()


def test_rows_that_are_left_out_are_not_passed(tmp_path: Path) -> None:
    said, error = commission("--simulated", "--row", "beat", "-o", str(tmp_path / "p.json"))
    assert isinstance(error, NotCheckedError) and error.exit_code == 22
    assert f"1 passed, 0 failed, {len(ROWS) - 1} not checked" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "--gateway"),
        (("--simulated", "--gateway", "x:1"), "--gateway"),
        (("--gateway", "nowhere"), "HOST:PORT"),
        (("--simulated", "--row", "no such row"), "is not a row"),
    ],
)
def test_what_cannot_be_asked_for(arguments: tuple[str, ...], why: str) -> None:
    _, error = commission(*arguments)
    assert isinstance(error, UsageError) and why in str(error)


def test_exit_codes_differ() -> None:
    assert CommissioningError.exit_code != NotCheckedError.exit_code
    assert not AskedLine.simulated
