"""The cache of built networks: whole or absent, nobody else's, bounded; int8 only where it was seen to gain."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec
import pytest

from asperity.runtime.cuda.environment import Gpu
from asperity.runtime.engines.tensorrt.plan_cache import (
    DRAFT_PREFIX,
    MAX_TIMINGS,
    OLD_DRAFT_S,
    PlanCache,
    PlanFile,
    PlanKey,
    PlanSet,
    Precision,
    Softmax,
    Trial,
    find_served,
)
from asperity.runtime.errors import EngineError, UsageError

ORIN = Gpu("Orin", "8.7", "540.4.0", "12.6")


def key(bundle: str = "b" * 64, precision: Precision = "fp16", softmax: Softmax = "half", **other: object) -> PlanKey:
    made = PlanKey(
        bundle=bundle, precision=precision, softmax=softmax, library="tensorrt", version="10.3.0", gpu=ORIN
    )  # fmt: skip
    return msgspec.structs.replace(made, **other)


def store(cache: PlanCache, at: PlanKey, nbytes: int = 1000) -> PlanSet:
    plans = {}
    for graph in ("rgb", "points"):
        data = (graph.encode() + at.name.encode()) * nbytes
        data = data[:nbytes]
        plans[graph] = data, PlanFile(graph, nbytes, hashlib.sha256(data).hexdigest(), "0" * 64, 1.5)
    return cache.store(at, plans, "0.1")


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "state" / "engines", 10_000)


def test_what_is_stored_is_found_by_exactly_its_key(cache: PlanCache) -> None:
    assert cache.find(key()) is None and cache.survey() == ([], {})
    store(cache, key())
    found = cache.find(key())
    assert found is not None and found.graphs == ("rgb", "points") and found.nbytes == 2000
    assert found.read("rgb").startswith(b"rgb") and len(found.read("points")) == 1000
    for other in (
        key(bundle="c" * 64), key(precision="int8"), key(softmax="fp32"), key(library="tensorrt-rtx"),
        key(version="10.7.0"), key(gpu=None), key(gpu=msgspec.structs.replace(ORIN, driver="541.0")),
        key(gpu=msgspec.structs.replace(ORIN, capability="8.6")), key(gpu=msgspec.structs.replace(ORIN, cuda="12.7")),
        key(gpu=msgspec.structs.replace(ORIN, name="Orin Nano")), key(format=2),
    ):  # fmt: skip
        assert cache.find(other) is None, other
    with pytest.raises(EngineError, match="holds no network adaptor_rgb"):
        found.read("adaptor_rgb")


def test_files_are_this_users_alone(cache: PlanCache) -> None:
    found = store(cache, key())
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (cache.folder, found.folder)}
    assert set(modes.values()) == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in found.folder.iterdir()} == {"0o600"}


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda found: (found.folder / "rgb.plan").write_bytes(b"x" * 1000), "damaged .its sha256 differs.*remove"),
        (lambda found: (found.folder / "rgb.plan").write_bytes(b"rgb"), "damaged"),
        (lambda found: (found.folder / "rgb.plan").unlink(), "cannot be read"),
        (lambda found: (found.folder / "rgb.plan").chmod(0o620), "other users may write.*remove it and build again"),
        (lambda found: found.folder.chmod(0o770), "other users may write.*chmod 700"),
        (lambda found: found.folder.parent.chmod(0o777), "other users may write.*chmod 700"),
        (lambda found: (found.folder / "record.json").write_bytes(b"{}"), r"record\.json cannot be read"),
        (lambda found: (found.folder / "record.json").chmod(0o602), "other users may write"),
    ],
)
def test_a_set_that_is_damaged_or_open_to_others_is_not_used(cache: PlanCache, harm: object, told: str) -> None:
    found = store(cache, key())
    harm(found)  # type: ignore[operator]
    with pytest.raises(EngineError, match=told):
        again = cache.find(key())
        assert again is not None
        again.read("rgb")


def test_a_link_in_the_place_of_a_plan_is_not_followed(cache: PlanCache, tmp_path: Path) -> None:
    found = store(cache, key())
    (found.folder / "rgb.plan").rename(tmp_path / "elsewhere")
    (found.folder / "rgb.plan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="cannot be read"):
        found.read("rgb")
    moved = tmp_path / "moved"
    found.folder.rename(moved)
    found.folder.symlink_to(moved)
    with pytest.raises(EngineError, match="is a link"):
        cache.find(key())


def test_another_users_files_are_not_used(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cache, key())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EngineError, match="belongs to another user"):
        cache.find(key())


def test_a_write_that_fails_leaves_the_old_set_and_no_part_of_a_new_one(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store(cache, key())
    written: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_bytes(data)

    monkeypatch.setattr("asperity.runtime.engines.tensorrt.plan_cache.write_whole", full)
    with pytest.raises(EngineError, match=r"No space left on device.*\[engine\] cache"):
        store(cache, key(bundle="d" * 64))
    assert [path.name for path in cache.folder.iterdir()] == [before.folder.name]
    assert cache.find(key()) is not None


def test_the_sets_used_longest_ago_go_first_and_the_new_one_never(cache: PlanCache) -> None:
    keys = [key(bundle=digit * 64) for digit in "1234"]
    for age, one in enumerate(keys):
        found = store(cache, one, 1200)
        past = time.time() - 100 + age
        os.utime(found.folder / "record.json", (past, past))
    # Four sets of 2.4 kB and their records are more than 10 kB: the first went, and one that is used now stays.
    assert cache.find(keys[0]) is None
    assert cache.find(keys[1]) is not None
    store(cache, key(bundle="5" * 64), 1200)
    assert [cache.find(one) is not None for one in keys] == [False, True, False, True]
    with pytest.raises(EngineError, match=r"take 0 MB and \[engine\] cache_max_mbytes allows"):
        store(cache, key(bundle="6" * 64), 6000)
    assert cache.find(key(bundle="6" * 64)) is None


def test_drafts_of_builds_that_were_cut_short_go_when_they_are_old(cache: PlanCache) -> None:
    store(cache, key())
    old, fresh = cache.folder / f"{DRAFT_PREFIX}old", cache.folder / f"{DRAFT_PREFIX}fresh"
    for draft in (old, fresh):
        draft.mkdir()
        (draft / "rgb.plan").write_bytes(b"half of it")
    past = time.time() - OLD_DRAFT_S - 10
    os.utime(old, (past, past))
    store(cache, key(bundle="e" * 64))
    assert not old.exists() and fresh.exists()
    assert len(cache.survey()[0]) == 2  # drafts are no sets


def test_the_other_softmax_gives_way(cache: PlanCache) -> None:
    store(cache, key(softmax="half"))
    store(cache, key(softmax="fp32"))
    assert cache.find(key(softmax="half")) is None
    assert find_served(cache, key()).record.key.softmax == "fp32"


def test_a_set_that_cannot_be_read_is_shown_and_removed_by_its_name(cache: PlanCache) -> None:
    good, bad = store(cache, key()), store(cache, key(bundle="f" * 64))
    (bad.folder / "record.json").write_bytes(b"no json")
    sets, unusable = cache.survey()
    assert [found.folder for found in sets] == [good.folder] and list(unusable) == [bad.folder.name]
    cache.remove(bad.folder.name)
    assert cache.survey()[1] == {}
    for name in (bad.folder.name, "..", "", "../engines"):
        with pytest.raises(UsageError, match="there are no built networks"):
            cache.remove(name)
    assert cache.find(key()) is not None


def test_int8_is_served_only_where_it_was_seen_to_be_faster(cache: PlanCache) -> None:
    wanted = key(precision="int8")
    found = store(cache, wanted)
    with pytest.raises(EngineError, match="not been tested on this GPU yet"):
        find_served(cache, wanted)
    for int8_ms, fp16_ms, served in (
        (2.0, 1.5, False),
        (1.5, 1.5, False),
        (float("nan"), 1.5, False),
        (1.4, 1.5, True),
    ):
        found = cache.note_trial(found, Trial(frame_ms=int8_ms, rival="fp16", rival_frame_ms=fp16_ms))
        if served:
            assert find_served(cache, wanted).record.trial is not None
        else:
            with pytest.raises(EngineError):
                find_served(cache, wanted)


def test_where_nothing_is_built_the_sentence_says_what_to_run(cache: PlanCache) -> None:
    with pytest.raises(
        EngineError, match=r"Orin and its driver 540\.4\.0.*asperity engines build BUNDLE --precision fp16"
    ):
        find_served(cache, key())


def test_kernel_timings_are_kept_for_the_same_library_and_gpu(cache: PlanCache) -> None:
    assert cache.timing(key()) == b""
    cache.store_timing(key(), b"timings")
    assert cache.timing(key(bundle="0" * 64, precision="fp32")) == b"timings"
    assert cache.timing(key(version="10.7.0")) == b""
    for number in range(20):
        cache.store_timing(key(version=f"10.{number}.1"), b"timings")
    store(cache, key())
    assert len(list(cache.folder.glob("timing-*"))) == MAX_TIMINGS
    cache.store_timing(key(), b"timings")
    for path in cache.folder.glob("timing-*"):
        path.chmod(0o666)
    with pytest.raises(EngineError, match="other users may write"):
        cache.timing(key())
