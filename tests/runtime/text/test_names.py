"""Names of files and folders, and paths in settings."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.names import check_apart, check_name, has_stray_bytes, host_name, natural_key, path_from

NAMES = st.text(st.characters() | st.sampled_from("0123456789²١１"), max_size=12)


@given(st.lists(NAMES, max_size=6))
def test_any_names_have_one_order(names: list[str]) -> None:
    ordered = sorted(set(names), key=natural_key)
    assert ordered == sorted(reversed(ordered), key=natural_key)
    for one, other in itertools.pairwise(ordered):
        assert natural_key(one) < natural_key(other)


def test_numbers_are_ordered_as_people_count() -> None:
    names = ["10", "9", "1²", "001", "01", "1", "part10", "part9", "1" * 5000, "part", "١"]
    assert sorted(names, key=natural_key) == [
        "001", "01", "1", "1²", "9", "10", "1" * 5000, "part", "part9", "part10", "١",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["003", "grün", "a b", "a.b", "é", "部品", "a" * 255, ".hidden"])
def test_names_that_may_be(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\udcff", "is not UTF-8"),
        ("a\nb", "cannot be seen"),
        ("a\x1b[2Jb", "cannot be seen"),
        ("a\u202eb", "cannot be seen"),
        ("a\u200bb", "cannot be seen"),
        ("a\u00a0b", "cannot be seen"),
        ("a ", "a blank"),
        (" a", "a blank"),
        ("a.", "a dot"),
    ],
)
def test_names_that_no_report_could_hold(name: str, words: str) -> None:
    with pytest.raises(TextRefused, match=words) as refused:
        check_name(name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("\xe9", "e\u0301"), ("\xc9", "e\u0301"), ("ß", "SS")])
def test_names_that_only_a_computer_keeps_apart(one: str, other: str) -> None:
    with pytest.raises(TextRefused, match="differ only in case or in how an accent is written"):
        check_apart([one, "b", other])
    check_apart([one, one, "b"])


@given(st.text() | st.binary(max_size=10).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_any_name_is_taken_or_refused(name: str) -> None:
    try:
        check_name(name)
    except TextRefused:
        return
    assert name.encode().decode() == name and not has_stray_bytes(name)


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/line")
    base = Path("/etc/asperity")
    for text, path in {
        "a": "/etc/asperity/a", "../a/": "/etc/asperity/../a", "/a/b": "/a/b", "~": "/home/line", "~/a": "/home/line/a",
        "a~": "/etc/asperity/a~", "grün": "/etc/asperity/grün", "a\\b": "/etc/asperity/a\\b",
    }.items():  # fmt: skip
        assert path_from(text, base) == Path(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("~line/a", "write the whole path"),
        ("$HOME/a", "variables are not replaced"),
        ("${HOME}/a", "variables are not replaced"),
        ("%USERPROFILE%\\a", "variables are not replaced"),
        ("C:\\a", "a path of Windows"),
        ("c:/a", "a path of Windows"),
        ("\\\\server\\share", "a path of Windows"),
        ("a\0b", "cannot be seen"),
        ("a\n", "cannot be seen"),
        ("a\udcff", "cannot be seen"),
        (" a", "blank"),
    ],
)
def test_paths_that_would_lead_elsewhere(text: str, words: str) -> None:
    with pytest.raises(TextRefused, match=words) as refused:
        path_from(text, Path("/etc"))
    assert str(refused.value).isprintable()


def test_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in (None, "", "/", "//", "home"):  # containers set "/" for a user they do not know
        monkeypatch.delenv("HOME", raising=False) if home is None else monkeypatch.setenv("HOME", home)
        with pytest.raises(TextRefused, match="home folder is not known"):
            path_from("~/a", Path("/etc"))


@pytest.mark.parametrize(
    ("name", "said"), [(b"line1", "line1"), (b"pr\xfcf", r"pr\xfcf"), ("工場".encode(), "工場"), (b"", "")]
)
def test_any_name_of_a_computer_can_be_written(name: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=os.fsdecode(name)))
    assert host_name() == said
