"""Endpoints and hosts: what ZeroMQ or the system would take for something else, or only refuse later, is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.text.addresses import check_endpoint, check_host
from asperity.runtime.text.encoding import TextRefused

GOOD = (
    "tcp://127.0.0.1:5560", "tcp://localhost:5560", "tcp://[::1]:5560", "tcp://[fe80::1%eth0]:5560", "tcp://eth0:5560",
    "tcp://plc-7.hall_2.example.:65535", "tcp://xn--bcher-kva.example:1", "ipc:///run/asperity/frames",
    "ipc:///home/jürgen/frames", "ipc://@abstract",
)  # fmt: skip
ONLY_TO_BIND = ("tcp://*:5560", "tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://*:*")
BAD = {
    "": "is empty",
    "127.0.0.1:5560": "write tcp://ADDRESS:PORT or ipc:///FOLDER/NAME",
    "[::1]:5000": "write tcp://ADDRESS:PORT",
    "http://127.0.0.1:5560": "write tcp://ADDRESS:PORT",
    "inproc://x": "write tcp://ADDRESS:PORT",
    "tcp:/127.0.0.1:5560": "write tcp://ADDRESS:PORT",
    "TCP://127.0.0.1:5560": "write tcp:// in small letters",
    "IPC:///x": "write ipc:// in small letters",
    "tcp://": "without a port",
    "tcp://127.0.0.1": "without a port",
    "tcp://[::1]": "without a port",
    "tcp://127.0.0.1:": "the port must be",
    "tcp://127.0.0.1:65536": "the port must be",
    "tcp://127.0.0.1:-1": "the port must be",
    "tcp://127.0.0.1:+5": "the port must be",
    "tcp://127.0.0.1:5_0": "the port must be",
    "tcp://127.0.0.1:5560/": "the port must be",
    "tcp://127.0.0.1:http": "the port must be",
    "tcp://127.0.0.1:" + "9" * 5000: "the port must be",
    "tcp://127.0.0.1:１２": "digits 0-9",
    "tcp://bücher.example:80": "letters a-z",
    "tcp://plс.example:80": "letters a-z",  # a Cyrillic letter
    " tcp://127.0.0.1:5560": "without blanks",
    "tcp://127.0.0.1:5560 ": "without blanks",
    "tcp://127.0.0.1:5560\n": "without blanks",
    "tcp://127.0.0.1\0:5560": "without blanks",
    "ipc:///tmp/\u200bx": "without blanks",
    "tcp://:5560": "write an IP address",
    "tcp://a b:5560": "write an IP address",
    "tcp://user@127.0.0.1:5560": "write an IP address",
    "tcp://::1:5000": r"put an IPv6 address in brackets: tcp://\[::1\]:5000",
    "tcp://[127.0.0.1]:5000": "only an IPv6 address is put in brackets",
    "tcp://[::1:5000": "not an IP address",
    "tcp://256.1.1.1:80": "not an IP address",
    "tcp://127.1:80": "not an IP address",
    "tcp://2130706433:80": "not an IP address",
    "tcp://0177.0.0.1:80": "not an IP address",
    "tcp://127.0.0.1:1;127.0.0.1:2": "not an IP address",
    "ipc://relative": "depends on the current folder",
    "ipc://~/x": "depends on the current folder",
}
BAD_HOSTS = {
    "": "write an IP address",
    "*": "write an IP address",
    " 127.0.0.1": "write an IP address",
    "127.0.0.1\0": "write an IP address",
    "tcp://127.0.0.1": "write the address alone, without tcp://",
    "mqtts://broker:8883": "write the address alone, without mqtts://",
    "127.0.0.1:502": "give the port by itself, in the key port",
    "broker:1883": "give the port by itself, in the key port",
    "[::1]": "not an IP address",
    "[::1]:502": "not an IP address",
    "１２７.0.0.1": "not an IP address",
    "127.0.0.1/8": "write an IP address",
    "bücher.example": "xn--",
    "a..b": "write an IP address",
    "-a": "write an IP address",
    "a" * 300: "write an IP address",
}


@pytest.mark.parametrize("text", GOOD)
def test_endpoints(text: str) -> None:
    check_endpoint(text)
    check_endpoint(text, binds=True)


@pytest.mark.parametrize("text", ONLY_TO_BIND)
def test_an_endpoint_of_this_process_may_be_open(text: str) -> None:
    check_endpoint(text, binds=True)
    with pytest.raises(TextRefused):
        check_endpoint(text)


@pytest.mark.parametrize("binds", [False, True])
@pytest.mark.parametrize(("text", "words"), BAD.items())
def test_what_is_not_an_endpoint_is_refused_with_the_remedy(text: str, words: str, binds: bool) -> None:
    with pytest.raises(TextRefused, match=words) as refused:
        check_endpoint(text, binds=binds)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0", "localhost", "a.example.", "BROKER"])
def test_hosts(text: str) -> None:
    check_host(text)


@pytest.mark.parametrize(("text", "words"), BAD_HOSTS.items())
def test_what_is_not_a_host_is_refused_with_the_remedy(text: str, words: str) -> None:
    with pytest.raises(TextRefused, match=words) as refused:
        check_host(text)
    assert str(refused.value).isprintable()


@given(st.text(max_size=40) | st.text(max_size=40).map("tcp://{}".format), st.booleans())
def test_any_text_is_an_endpoint_or_refused(text: str, binds: bool) -> None:
    try:
        check_endpoint(text, binds=binds)
    except TextRefused as refused:
        assert str(refused).isprintable()
