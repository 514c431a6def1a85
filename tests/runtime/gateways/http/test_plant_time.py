"""Times on the page in the plant's zone, and who reads it."""

from __future__ import annotations

import asyncio
import base64
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import Gateway, GatewayConfig, Http, Users
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.gateways.http.plant_time import shown_time, zone_of
from asperity.runtime.gateways.http.requests import Answer, Request
from asperity.runtime.gateways.log_ins import users
from tests.runtime.gateways.floor import COUNTERS, FakeLink, result

PASSWORD = "correct horse"
TWICE = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
"""In Berlin it is half past two then, and an hour later again."""


def us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def gateway(*shown: int, accounts: Users | None = None, own: Gateway | None = None, **http: str) -> HttpGateway:
    """With results of these times."""
    link = FakeLink()
    link.counters = COUNTERS
    config = GatewayConfig(http=Http(**http), users=accounts or Users(), gateway=own or Gateway())  # type: ignore[arg-type]
    made = HttpGateway(config, link)  # type: ignore[arg-type]
    link.put(*(result(number, t_done_us=t_us) for number, t_us in enumerate(shown, 1)))
    made.refresh()
    return made


def get(made: HttpGateway, path: str = "/", user: str = "") -> Answer:
    coded = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    return asyncio.run(made._answer(Request("GET", path, {}, {"authorization": f"Basic {coded}"} if user else {}), "h"))


def test_the_hour_that_comes_twice_reads_as_two() -> None:
    text = get(gateway(us(TWICE), us(TWICE + timedelta(hours=1)), time_zone="Europe/Berlin")).body.decode()
    assert "2026-10-25 02:30:00.000 CEST" in text and "2026-10-25 02:30:00.000 CET" in text
    assert "yield since 2026-09-21 16:13:20 CEST" in text and "UTC" not in text


def test_without_a_zone_it_is_this_computers() -> None:
    here = TWICE.astimezone()
    assert shown_time(us(TWICE), zone_of("")) == f"{here:%Y-%m-%d %H:%M:%S}.000 {here:%Z}"
    assert shown_time(2**60, zone_of("Europe/Berlin")) == f"{2**60} us", "a clock beyond the calendar's end"


@pytest.mark.parametrize("name", ["Europe/Nowhere", "Europe", "../../etc/passwd", "/etc/localtime", "\0"])
def test_a_zone_that_is_not_known_is_refused_at_start_by_name_with_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError, match=r"time_zone is .*tzdata") as refused:
        gateway(time_zone=name)
    assert repr(name) in str(refused.value)


def test_without_the_list_of_zones_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["tzdata", *(name for name in sys.modules if name.startswith("tzdata"))]:
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=[])
    try:
        with pytest.raises(ConfigError, match="apt install tzdata"):
            zone_of("Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()


def test_the_page_says_who_reads_it_and_what_they_may_do(tmp_path: Path) -> None:
    file = tmp_path / "users"
    users.put_user(file, users.new_user("viewer", "read", PASSWORD))
    users.put_user(file, users.new_user("ann", "operate", PASSWORD))
    known = gateway(accounts=Users(file=str(file)))
    for user, said in (("", "nobody is logged in: read only"), ("viewer", "viewer, read: read only"),
                       ("ann", "ann, operate: may command the station")):  # fmt: skip
        text = get(known, user=user).body.decode()
        assert said in text and ("href=/log-in" in text) is (user == "")
    assert get(known, "/log-in").status == 401 and "WWW-Authenticate" in get(known, "/log-in").headers[0]
    assert "ann, operate" in get(known, "/log-in", "ann").body.decode()
    mute = gateway(accounts=Users(file=str(file)), own=Gateway(commands=False))
    assert "ann, operate: read only" in get(mute, user="ann").body.decode()
    assert "href=/log-in" not in get(gateway()).body.decode(), "without users there is nothing to log in to"
    for made in (known, mute):
        made._doorkeeper.close()
