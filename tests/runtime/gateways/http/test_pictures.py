"""Maps and pictures over REST, read by Pillow: of the last results, within bounds, and words where there is none."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from PIL import Image

from asperity.runtime.frame import Window
from asperity.runtime.gateways.config import GatewayStation
from asperity.runtime.gateways.http.api import PREFIX
from asperity.runtime.wire import Bulk, encode_bulk
from asperity.testing import PATIENCE_S, STATION
from tests.runtime.gateways.floor import SESSION, result, until
from tests.runtime.gateways.http.http_floor import Floor

CELLS = np.linspace(0, 9, 28 * 28, dtype=np.float32).reshape(28, 28)


class BulkSocket:
    """What an inspector publishes on its bulk socket, when the test says so."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")

    def await_subscriber(self) -> None:
        for _ in ("map", "picture"):
            assert self._socket.poll(round(1000 * PATIENCE_S))
            self._socket.recv()

    def say(self, result_id: int, kind: str = "map", session: str = SESSION, cells: np.ndarray = CELLS) -> None:
        array = cells if kind == "map" else np.full((8, 12, 3), result_id, np.uint8)
        bulk = Bulk(kind, STATION, session, result_id, array, window=Window(4, -2, 224))  # type: ignore[arg-type]
        self._socket.send_multipart(encode_bulk(bulk))

    def say_rubbish(self) -> None:
        self._socket.send_multipart([f"map/{STATION}/".encode(), b"{", b""])

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def bulk() -> Iterator[BulkSocket]:
    bulk = BulkSocket()
    yield bulk
    bulk.close()


@pytest.fixture
def floor(make: Callable[..., Floor], bulk: BulkSocket) -> Floor:
    station = GatewayStation(name=STATION, bulk=f"tcp://127.0.0.1:{bulk.port}")
    floor = make(station=station, pictures_kept=4, pictures_max_nbytes=65_536)
    bulk.await_subscriber()
    floor.show(*(result(number) for number in range(1, 13)))
    return floor


def get(floor: Floor, path: str, accept: str = "") -> tuple[int, bytes, dict[str, str]]:
    floor.show()
    request = urllib.request.Request(floor.url + PREFIX[1:] + path, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def comes(floor: Floor, path: str) -> bytes:
    """Once it has come."""
    until(lambda: get(floor, path)[0] == 200, path)
    return get(floor, path)[1]


def test_a_map_is_a_png_that_others_read_and_raw_numbers(floor: Floor, bulk: BulkSocket) -> None:
    bulk.say_rubbish()
    bulk.say(7)
    drawn = Image.open(io.BytesIO(comes(floor, "/results/7/map")))
    drawn.load()
    assert drawn.size == (224, 224) and drawn.mode == "RGB"
    (low_red, _, _), (high_red, _, high_blue) = drawn.getpixel((0, 0)), drawn.getpixel((223, 223))  # type: ignore[misc]
    assert low_red < 20 and high_red > 100 > high_blue, "dark is normal, red is not"
    for path, accept in (("/results/7/map?form=raw", ""), ("/results/7/map", "application/octet-stream")):
        status, body, headers = get(floor, path, accept)
        assert status == 200 and headers["Asperity-Shape"] == "28 28" and headers["Asperity-Window"] == "4 -2 224"
        assert np.array_equal(np.frombuffer(body, "<f4").reshape(28, 28), CELLS)
    bulk.say(7, "picture")
    picture = Image.open(io.BytesIO(comes(floor, "/results/7/picture")))
    assert picture.size == (12, 8) and picture.getpixel((3, 3)) == (7, 7, 7)


def test_what_is_not_kept_is_refused_in_words(floor: Floor, bulk: BulkSocket, make: Callable[..., Floor]) -> None:
    assert get(floor, "/results/99/map")[0] == 404 and b"results_kept" in get(floor, "/results/99/map")[1]
    assert b"pictures_kept" in get(floor, "/results/7/map")[1]
    assert get(floor, "/results/7/map?form=gif")[0] == get(floor, "/results/x/map")[0] == 400
    for number in range(1, 7):
        bulk.say(number)
    comes(floor, "/results/6/map")
    assert [get(floor, f"/results/{number}/map")[0] for number in range(1, 7)] == [404, 404, 200, 200, 200, 200]
    bulk.say(8, cells=np.ones((128, 127), np.float32))  # 65 024 of 65 536 bytes
    comes(floor, "/results/8/map")
    assert get(floor, "/results/6/map")[0] == 404, "no room for both"
    bulk.say(9, session="0" * 8 + SESSION[8:])
    until(lambda: get(floor, "/results/8/map")[0] == 404, "another session's numbers")
    assert get(floor, "/results/9/map")[0] == 404, "it is of another session than the result"
    alone = make()
    alone.show(result(1))
    assert b"[station] bulk" in get(alone, "/results/1/map")[1]
