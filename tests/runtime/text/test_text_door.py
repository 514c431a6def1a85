"""The door for text: any bytes give a value or TextRefused, and what an editor or a spreadsheet saves is read alike."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asperity.runtime.text.encoding import TextRefused, decode
from asperity.runtime.text.formats import decode_json, decode_toml
from asperity.runtime.text.numbers import decimal_number, number_fault, whole_number
from asperity.runtime.text.tables import decode_table
from tests.places import ROOT

COLUMNS = ("name", "part_id")
READERS: dict[str, Callable[[bytes], Any]] = {
    "text": decode,
    "toml": decode_toml,
    "json": lambda data: decode_json(data, dict[str, Any]),
    "table": lambda data: decode_table(data, COLUMNS),
}
PLAIN: dict[str, str] = {
    "text": "a\nü\n",
    "toml": '[station]\nname = "ü"\nnumber = 3\n',
    "json": '{"a": 1,\n "b": "ü"}\n',
    "table": "name,part_id\ntrain/ü/003,A 7\n",
}
SAVED: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32 LE": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "mixed": lambda text: text.replace("\n", "\r\n", 1).encode(),
}


def value_of(read: Callable[[bytes], Any], data: bytes) -> Any:
    """What it reads; the message of its refusal is one printable line."""
    try:
        return read(data)
    except TextRefused as error:
        assert str(error), "a reason is given"
        return TextRefused


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("way", SAVED)
def test_what_an_editor_saves_is_read_as_the_plain_file(kind: str, way: str) -> None:
    assert READERS[kind](SAVED[way](PLAIN[kind])) == READERS[kind](PLAIN[kind].encode())


@pytest.mark.parametrize("kind", READERS)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(data=b"[" * 100_000)
@example(data=b"a=" + b"[" * 3000)
@example(data=b'{"a":' * 100_000)
@example(data=b"a = " + b"9" * 5000)
@example(data=b'{"a": ' + b"9" * 5000 + b"}")
@example(data=b'{"a": 1e999}')
@example(data=b"a = 2024-13-45")
@example(data=b"a = 1979-05-27T00:32:00.9999999999999+99:99")
@example(data=b"sep=\r\nname,part_id\n")
@example(data=b"sep=\n")
@example(data=b'sep="\nname"part_id\n')
@example(data=b"\xff\xfe\x00")
def test_any_bytes_are_read_or_refused(kind: str, data: bytes) -> None:
    value_of(READERS[kind], data)


@given(edits=st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=3)), max_size=4))
@pytest.mark.parametrize("kind", ["toml", "json", "table"])
def test_any_damage_to_a_good_file_is_read_or_refused(kind: str, edits: list[tuple[int, bytes]]) -> None:
    data = PLAIN[kind].encode()
    for at, put in edits:
        data = data[:at] + put + data[at + 1 :]
    value_of(READERS[kind], data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("ok\ngrün\n".encode("cp1252"), ["line 2", "0xfc", "'ü' in Windows-1252", "save it as UTF-8"]),
        ("a\r\nb\r\nä".encode("latin-1"), ["line 3", "0xe4"]),
        ("[station]\n".encode("utf-16-le"), ["UTF-16 without a byte order mark", "save it as UTF-8"]),
        ("[station]\n".encode("utf-16-be"), ["UTF-16 without a byte order mark"]),
        (codecs.BOM_UTF16_LE + b"a\0b", ["UTF-16", "damaged after 2 bytes"]),
        (b"a\nb\0c", ["NUL byte in line 2"]),
    ],
)
def test_another_encoding_is_named_with_the_remedy(data: bytes, words: list[str]) -> None:
    with pytest.raises(TextRefused) as refused:
        decode(data)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": {"b": 1, "b": 1}}', "has the key 'b' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1e999}', "range"),
        ('{"a": 1,}', "line 1, column 9"),
        ("[1]", "does not hold what it should"),
        ("[" * 100_000, "nested too deeply"),
        ("", "is not JSON"),
    ],
)
def test_json_that_leaves_a_choice_is_refused(text: str, words: str) -> None:
    with pytest.raises(TextRefused, match=words):
        decode_json(text.encode(), dict[str, Any])


@given(value=st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(allow_nan=False,
                             allow_infinity=False) | st.lists(st.booleans())))  # fmt: skip
def test_json_comes_back_as_it_was_written(value: dict[str, Any]) -> None:
    assert decode_json(json.dumps(value).encode(), dict[str, Any]) == value


TABLE = "name,part_id\ntrain/good/003,A\ntrain/good/004,B\n"
ROWS = [("train/good/003", "A"), ("train/good/004", "B")]


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        "sep=;\n" + TABLE.replace(",", ";"),
        '"sep=|"\n' + TABLE.replace(",", "|"),
        "sep=;;\n" + TABLE.replace(",", ";"),
        TABLE.replace("name,part_id", "Name ,Part_ID"),
        TABLE.replace("name,part_id", " NAME,part id"),
        TABLE.replace("\n", ",,\n") + ",,,\n\n , \n",
        "\n\n" + TABLE,
        '"name","part_id"\n"train/good/003","A"\n"train/good/004","B"\n',
        "defect,part_id,name\n,A,train/good/003\nbump,B,train/good/004\n",
        TABLE.rstrip("\n"),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(text: str) -> None:
    assert [(row["name"], row["part_id"]) for _, row in decode_table(text.encode(), COLUMNS)] == ROWS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns name and part_id"),
        ("train/good/003,A\n", "its first line is 'train/good/003,A'"),
        ("frame;part\n", "its first line is 'frame;part'"),
        ("name,part_id,name\n", "has the column name 2 times"),
        ("name;part_id;x,name,part_id\n", "is not a table"),
        (TABLE + "train/good/005\n", "has no part_id in line 4"),
        (TABLE + ",C\n", "has no name in line 4"),
        (TABLE + "train/good/005,C,D\n", "3 values in line 4, but 2 columns"),
        (TABLE + '"train/good/005,C\n', "line 4: unexpected end"),
        (TABLE.replace(",A", ",1E+05"), "1E\\+05 in line 2, as a spreadsheet shortens"),
        (TABLE.replace(",A", ',"1,23457E+11"'), "1,23457E\\+11 in line 2"),
        *((TABLE.replace(",A", f",{day}"), f"{day} in line 2, a date") for day in ("3-Apr", "03-Apr-2026", "Mar-01")),
        *((TABLE.replace(",A", f",{cell}"), "line 2, a formula") for cell in ("#N/A", "#NAME?", "#BEZUG!", "=B2")),
        ("sep=;\nname;part_id\nx;\n", "no part_id in line 3"),
        ("name,part_id\n" + "a" * 200_000 + ",b\n", "line 2: field larger"),
    ],
)
def test_a_table_that_leaves_a_choice_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(TextRefused, match=words):
        decode_table(text.encode(), COLUMNS)


def test_ids_and_names_that_only_look_a_little_like_it_are_kept() -> None:
    rows = [("3-Apr", "#12"), ("#N/A1", "3-4"), ("x", "APR-3-X"), ("y", "A=B")]
    data = "name,part_id\n" + "".join(f"{name},{part}\n" for name, part in rows)
    assert [(row["name"], row["part_id"]) for _, row in decode_table(data.encode(), COLUMNS)] == rows


@given(st.integers(-(10**18) + 1, 10**18 - 1))
def test_whole_numbers_come_back(number: int) -> None:
    assert whole_number(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_numbers_come_back(number: float) -> None:
    assert decimal_number(repr(number)) == number


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1_0", "１２", "1²", "²", "١", "+", "9" * 5000, "nan", "inf", "1e9999", "--1", "1\n"]
)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    assert whole_number(text) is None
    assert decimal_number(text) is None or text == "9" * 5000 or decimal_number(text) == float(text)


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_not(text: str) -> None:
    assert whole_number(text) is None or text.isascii()
    assert decimal_number(text) is None or text.isascii()


@given(st.text(max_size=20) | st.from_regex(r"[-+]?[0-9]{1,3}[.,eE%x]?[0-9a-z]{0,3}", fullmatch=True))
def test_what_is_not_a_number_is_named_with_the_remedy(text: str) -> None:
    for whole, number in ((True, whole_number(text.removesuffix(".0"))), (False, decimal_number(text))):
        fault = number_fault(text, whole=whole)
        assert (fault == "") == (number is not None), text
        assert not fault or ascii(text)[1:-1][:1] in ascii(fault), fault


@pytest.mark.parametrize(
    ("text", "whole", "remedy"),
    [
        ("0,02", False, "write a decimal point"),
        ("1,000", False, "nothing between thousands"),
        ("1,000", True, "write digits only"),
        ("2%", False, "write the share itself, 0.02"),
        ("0.5 %", False, "digits 0 to 9"),
        ("5mm", False, "write 5 alone, without a unit"),
        ("5 mm/s", False, "write 5 alone, without a unit"),
        ("30fps", True, "write 30 alone, without a unit"),
        ("0x10", True, "digits 0 to 9"),
        ("1e400", False, "it is too large"),
        ("9" * 40, True, "at most 18 digits"),
        ("½", False, "digits 0 to 9"),
        ("\u22120.02", False, "digits 0 to 9"),
    ],
)
def test_the_remedy_fits_what_was_written(text: str, whole: bool, remedy: str) -> None:
    assert remedy in number_fault(text, whole=whole)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0,02", "'0,02' is not a number that can be used; write a decimal point"),
        ("5mm # wide", "'5mm' is not a number"),
        ("30 fps", "write 30 alone"),
        ("[1 2", "is not TOML"),
        ("5" * 3000 + "x", "is not TOML"),
    ],
)
def test_a_number_that_toml_does_not_know_is_named(value: str, words: str) -> None:
    with pytest.raises(TextRefused, match=re.escape(words)) as refused:
        decode_toml(f"a = 1\nb = {value}\nc = 2\n".encode())
    assert len(str(refused.value)) < 400


# --- nobody passes by it ---------------------------------------------------------------------------------------------

PAST_THE_DOOR = re.compile(
    r"\btomllib\.|csv\.(?:reader|DictReader)|\bjson\.loads?\(|\.isdigit\(|\.isdecimal\(|\.isnumeric\(|\.read_text\("
    r"|expanduser\(|\burlparse\(|\burlsplit\("
)
NOT_FROM_OUTSIDE = {
    "calibration/adaptation/trainer.py": "its own checkpoint",
    "calibration/networks/weights.py": "a file of this package",
    "runtime/client/presence.py": "the kernel's tables of sockets",
    "runtime/cuda/build.py": "a stamp that it wrote",
    "runtime/cuda/environment.py": "the driver's version",
    "runtime/doctor/": "what the kernel and the driver say",
    "runtime/documents/everything.py": "the pages of this repository",
    "runtime/engines/cpu.py": "/proc/cpuinfo",
    "runtime/engines/simulated.py": "ASCII is asked first",
    "runtime/gateways/modbus/registers.py": "ASCII is asked first",
    "runtime/process/": "systemd, and the log of a process of ours",
    "runtime/records/journal.py": "the kernel's boot id",
    "runtime/text/": "the door",
}


def test_text_from_outside_is_read_here_alone() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("runtime", "calibration", "export")
        for path in (ROOT / package).rglob("*.py")
        if PAST_THE_DOOR.search(path.read_text())
    }
    assert not [name for name in sorted(found) if not name.startswith(tuple(NOT_FROM_OUTSIDE))]
    assert not [name for name in NOT_FROM_OUTSIDE if not any(one.startswith(name) for one in found)], "nothing there"
