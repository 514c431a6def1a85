"""Names of frames and folders, and parts.csv as people write it: one meaning, or a DataError with the remedy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.cameras.files.folders import list_samples, one_sample
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.files.samples import Sample
from asperity.runtime.errors import DataError

GOOD = "train/good"


def put(folder: Path, *names: str) -> None:
    """Frames whose files are empty: only their names are read here."""
    for name in names:
        path = folder / name
        for kind, suffix in (("rgb", ".png"), ("xyz", ".tiff")):
            (path.parent / kind).mkdir(parents=True, exist_ok=True)
            (path.parent / kind / f"{path.name}{suffix}").touch()


def listed(folder: Path) -> list[str]:
    return [sample.name for sample in list_samples(folder)]


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        list_samples(folder)
    return str(refused.value)


def test_names_that_looked_like_numbers_to_python(tmp_path: Path) -> None:
    put(tmp_path, *(f"{GOOD}/{name}" for name in ("1²", "2", "١", "01", "1", "001", "9" * 200)))
    assert [name.removeprefix(f"{GOOD}/") for name in listed(tmp_path)] == ["001", "01", "1", "1²", "2", "9" * 200, "١"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([os.fsdecode(b"a\xff")], r"'a\udcff' is not UTF-8"),
        (["a\nb"], r"'a\nb' holds characters that cannot be seen"),
        (["a\u202eb"], "cannot be seen"),
        (["a "], "a blank"),
        ([" a"], "a blank"),
        (["a."], "a dot"),
        (["A", "a"], "A and a differ only in case"),
        (["\xe9", "e\u0301"], r"'e\u0301' and '\xe9'"),
    ],
)
def test_names_are_checked_before_anything_is_read(tmp_path: Path, names: list[str], words: str) -> None:
    put(tmp_path, *(f"{GOOD}/{name}" for name in names))
    assert words in refusal(tmp_path) and "rename" in refusal(tmp_path)


@pytest.mark.parametrize("twin", ["rgb/003.PNG", "xyz/003.tif", "xyz/003.TIFF"])
def test_two_files_of_one_frame_are_refused(tmp_path: Path, twin: str) -> None:
    put(tmp_path, f"{GOOD}/003")
    (tmp_path / GOOD / twin).touch()
    assert "holds both" in refusal(tmp_path) and "remove one" in refusal(tmp_path)
    with pytest.raises(DataError, match="holds both"):
        one_sample(tmp_path / GOOD / "rgb/003.png")


def test_halves_that_only_look_alike_are_named(tmp_path: Path) -> None:
    put(tmp_path, f"{GOOD}/\xe9")
    (tmp_path / GOOD / "xyz/\xe9.tiff").rename(tmp_path / GOOD / "xyz/e\u0301.tiff")
    assert "differ only in case or in how an accent is written" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("Train/good", "'Train'; in this layout it is called train"),
        ("train /good", "'train '; in this layout it is called train"),
        ("train/Good", "'Good'; in this layout it is called good"),
        ("test/GOOD", "'GOOD'; in this layout it is called good"),
    ],
)
def test_a_folder_of_the_layout_that_is_spelt_in_another_way(tmp_path: Path, folder: str, words: str) -> None:
    put(tmp_path, "train/good/1", f"{folder}/2")
    assert words in refusal(tmp_path)


def test_a_leaf_whose_folders_are_spelt_in_another_way_is_not_left_out(tmp_path: Path) -> None:
    put(tmp_path, "train/good/1", "test/bump/2")
    (tmp_path / "test/bump/rgb").rename(tmp_path / "test/bump/RGB")
    assert "'RGB'; in this layout it is called rgb" in refusal(tmp_path)


def test_what_systems_leave_in_folders_is_not_looked_at(tmp_path: Path) -> None:
    put(tmp_path, f"{GOOD}/003")
    for name in ("rgb/._003.png", "rgb/Thumbs.db", "rgb/.DS_Store", "xyz/._003.tiff", "xyz/desktop.ini"):
        (tmp_path / GOOD / name).touch()
    (tmp_path / "notes .").mkdir()
    assert listed(tmp_path) == [f"{GOOD}/003"]


def test_a_folder_whose_path_is_not_utf8_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"line\xff")
    put(folder, "003")
    assert "is not UTF-8" in refusal(folder)


def test_one_frame_is_found_by_either_half(tmp_path: Path) -> None:
    put(tmp_path, "003")
    (tmp_path / "rgb/003.png").rename(tmp_path / "rgb/003.PNG")
    (tmp_path / "xyz/003.tiff").rename(tmp_path / "xyz/003.tif")
    rgb, xyz = tmp_path / "rgb/003.PNG", tmp_path / "xyz/003.tif"
    assert one_sample(rgb) == one_sample(xyz) == Sample("003", "", "", rgb, xyz, None)
    (tmp_path / "rgb/004.jpg").touch()
    with pytest.raises(DataError, match=r"is not a picture rgb/NAME\.png"):
        one_sample(tmp_path / "rgb/004.jpg")
    xyz.unlink()
    with pytest.raises(DataError, match=r"xyz/003\.tiff, is missing"):
        one_sample(rgb)


# --- parts.csv -------------------------------------------------------------------------------------------------------

TABLE = f"name,part_id\n{GOOD}/003,A\n{GOOD}/004,B\n"
PARTS = {f"{GOOD}/003": "A", f"{GOOD}/004": "B"}


def parts_of(folder: Path, table: str | bytes) -> dict[str, str]:
    put(folder, *PARTS)
    (folder / "parts.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return read_parts(folder, list_samples(folder))


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.replace(",", ";").replace("\n", "\r\n"),
        TABLE.replace("/", "\\"),
        TABLE.replace("003", "003.png").replace("004", "004.TIFF"),
        TABLE.replace("train", "./train"),
        TABLE.replace("good/", "good/rgb/"),
        TABLE.replace("train/good/003", ".\\train\\good\\rgb\\003.PNG"),
        TABLE + f"{GOOD}/999,Z\n",
    ],
)
def test_parts_as_people_write_them(tmp_path: Path, table: str | bytes) -> None:
    assert parts_of(tmp_path, table) == PARTS


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE + f"{GOOD}/003,C\n", ["names train/good/003 twice, in lines 2 and 4", "remove one"]),
        (TABLE + f"{GOOD}/003,A\n", ["names train/good/003 twice"]),
        (TABLE + ".\\train\\good\\003.png,A\n", ["names train/good/003 twice"]),
        (TABLE.replace("003", "3"), ["names no part for train/good/003", "no frame found for its rows train/good/3"]),
        (TABLE.replace(",A", ",1E+05"), ["1E+05 in line 2", "format the column as text"]),
        (TABLE.replace(",A", ",a\u200bb"), ["part_id is 'a\\u200bb'"]),
        (TABLE.replace(",A", "," + "A" * 257), ["257 bytes", "at most 256"]),
        (TABLE.split("\n", 1)[1], ["columns name and part_id", "its first line is"]),
        ("", ["columns name and part_id"]),
        (TABLE.replace(",A", ""), ["has no part_id in line 2"]),
        (TABLE.encode() + "x,ü\n".encode("cp1252"), ["line 4", "'ü' in Windows-1252", "save it as UTF-8"]),
        (TABLE + "\0", ["NUL byte in line 4"]),
    ],
)
def test_parts_that_leave_a_choice_are_refused(tmp_path: Path, table: str | bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        parts_of(tmp_path, table)
    assert all(word in str(refused.value) for word in ["parts.csv", *words]), refused.value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=60) | st.text("name,part_id;\t\"\n\r=sep.train/good003E+\\ \u200bÄ").map(str.encode))
def test_any_bytes_are_parts_or_a_data_error(tmp_path: Path, data: bytes) -> None:
    for table in (data, TABLE.encode() + data, data + TABLE.encode()):
        try:
            found = parts_of(tmp_path, table)
        except DataError as refused:
            assert "parts.csv" in str(refused)
        else:
            assert set(found) == set(PARTS)


@pytest.mark.parametrize("name", ["Parts.csv", "parts.csv.txt", "PARTS.CSV"])
def test_a_table_of_another_name_is_not_left_out(tmp_path: Path, name: str) -> None:
    parts_of(tmp_path, TABLE)
    (tmp_path / "parts.csv").rename(tmp_path / name)
    with pytest.raises(DataError, match=r"is not called parts\.csv; rename"):
        read_parts(tmp_path, list_samples(tmp_path))


def test_a_table_that_cannot_be_opened_is_not_left_out(tmp_path: Path) -> None:
    parts_of(tmp_path, TABLE)
    (tmp_path / "parts.csv").unlink()
    (tmp_path / "parts.csv").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="No such file"):
        read_parts(tmp_path, list_samples(tmp_path))
    (tmp_path / "parts.csv").unlink()
    (tmp_path / "parts.csv").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        read_parts(tmp_path, list_samples(tmp_path))
    shutil.rmtree(tmp_path / "parts.csv")
    assert read_parts(tmp_path, list_samples(tmp_path)) == {}
