"""kill -9 at every step that publishes something, and every way a disk says no: the same command again ends right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.faulty import KILLED, Fault, count, run_with
from tests.support.run import files
from tests.support.thorough import sample
from tests.support.zoo import siblings, zoo
from transfer.streams import begin, publishing, sweep

CALLS = ("write", "fsync", "replace", "unlink")
DISK = {"ENOSPC": 23, "EDQUOT": 23, "EFBIG": 23, "EIO": 13, "EROFS": 13}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo().write(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def related(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return siblings().write(tmp_path_factory.mktemp("siblings"))


@pytest.fixture(scope="module")
def whole(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that an undisturbed export makes."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_with(None, folder / "log", *exporting(layout, folder / "b")).code == 0
    return folder / "b"


def exporting(layout: Path, bundle: Path) -> list[object]:
    return ["export", "--from", f"oci:{layout}", "-o", bundle, "-q", "--jobs", 1]


def importing(bundle: Path, target: str) -> list[object]:
    return ["import", bundle, "--to", target, "-q", "--jobs", 1]


def steps(total: int) -> list[int]:
    """Every call where there are few, about twenty of them spread out where there are many; eight where a sample will do."""
    return sample(sorted({*range(1, min(total, 6) + 1), *range(1, total + 1, max(1, total // 14)), total}), 8)


@pytest.mark.parametrize("how", ["kill-before", "kill-after"])
@pytest.mark.parametrize("call", CALLS)
def test_an_export_killed_anywhere_goes_on(layout: Path, whole: Path, tmp_path: Path, call: str, how: str) -> None:
    log = tmp_path / "log"
    for at in steps(count(call, log, *exporting(layout, tmp_path / "counted"))):
        bundle = tmp_path / f"{at}"
        assert run_with(Fault(call, at, how), log, *exporting(layout, bundle)).code == KILLED
        ended = run_with(None, log, *exporting(layout, bundle))
        assert ended.code == 0, (at, ended.said)
        assert files(bundle) == files(whole), at


@pytest.mark.parametrize("call", ["write", "replace"])
def test_so_does_one_whose_programs_are_patched_against_each_other(related: Path, tmp_path: Path, call: str) -> None:
    log, whole = tmp_path / "log", tmp_path / "whole"
    for at in steps(count(call, log, *exporting(related, whole))):
        bundle = tmp_path / f"{at}"
        assert run_with(Fault(call, at, "kill-before"), log, *exporting(related, bundle)).code == KILLED
        ended = run_with(None, log, *exporting(related, bundle))
        assert ended.code == 0, (at, ended.said)
        assert files(bundle) == files(whole), at


@pytest.mark.parametrize("how", ["kill-before", "kill-after"])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
def test_an_import_killed_anywhere_ends_right(whole: Path, tmp_path: Path, kind: str, call: str, how: str) -> None:
    log, sound = tmp_path / "log", tmp_path / "sound"
    assert run_with(None, log, *importing(whole, f"{kind}:{sound}")).code == 0
    for at in steps(count(call, log, *importing(whole, f"{kind}:{tmp_path / 'counted'}"))):
        place = tmp_path / f"{at}"
        target = f"{kind}:{place / 'o'}"
        place.mkdir()
        assert run_with(Fault(call, at, how), log, *importing(whole, target)).code == KILLED
        ended = run_with(None, log, *importing(whole, target))
        assert ended.code == 0, (at, ended.said)
        if kind == "oci":
            assert files(place / "o").keys() == files(sound).keys(), at
            assert run_with(None, log, "export", "--from", target, "-o", place / "again", "-q").code == 0
        else:
            assert files(place) == {"o": sound.read_bytes()}, at


def test_what_a_killed_run_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    fd, dead = begin(tmp_path / "layer")
    os.close(fd)
    other = tmp_path / ".layer.7.tmp"
    other.write_bytes(b"of somebody else")
    with publishing(tmp_path / "layer") as write:
        write(b"whole")
        sweep(tmp_path, "image")
        assert dead.exists()
        sweep(tmp_path, "layer")
        assert not dead.exists()
    assert files(tmp_path) == {"layer": b"whole", other.name: b"of somebody else"}


@pytest.mark.parametrize("error", DISK)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_says_no_is_told_and_nothing_is_lost(
    layout: Path, whole: Path, tmp_path: Path, call: str, error: str
) -> None:
    log = tmp_path / "log"
    total = count(call, log, *exporting(layout, tmp_path / "counted"))
    for at in sorted({1, 2, total // 2, total - 1, total}):
        bundle = tmp_path / f"{at}"
        ended = run_with(Fault(call, at, error), log, *exporting(layout, bundle))
        assert ended.code == DISK[error], (at, ended.said)
        assert ended.said.count("\n") == 2, ended.said
        assert "  -> " in ended.said
        assert str(bundle) in ended.said
        assert not (bundle / "index.json").exists() or at >= total - 1
        assert run_with(None, log, *exporting(layout, bundle)).code == 0
        assert files(bundle) == files(whole), at


@pytest.mark.parametrize("kind", ["oci", "docker-archive", "oci-archive"])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_at_import(whole: Path, tmp_path: Path, kind: str, call: str) -> None:
    log = tmp_path / "log"
    total = count(call, log, *importing(whole, f"{kind}:{tmp_path / 'counted'}"))
    for at in sorted({1, 2, total // 2, total}):
        place = tmp_path / f"{kind}{at}"
        place.mkdir()
        ended = run_with(Fault(call, at, "ENOSPC"), log, *importing(whole, f"{kind}:{place / 'o'}"))
        assert ended.code in (3, 23), (at, ended.said)
        assert "No space left" in ended.said
        assert not list(place.rglob("*.tmp"))
        if kind != "oci" and (place / "o").exists():
            assert [path.name for path in place.iterdir()] == ["o"]
            back = run_with(None, log, "export", "--from", f"{kind}:{place / 'o'}", "-o", place / "back", "-q")
            assert back.code == 0, (at, back.said)
        assert run_with(None, log, *importing(whole, f"{kind}:{place / 'o'}")).code == 0


def test_nothing_is_compressed_twice(layout: Path, whole: Path, tmp_path: Path) -> None:
    """After a kill at the very end, the next run takes every frame as it is."""
    import json

    log, bundle = tmp_path / "log", tmp_path / "b"
    total = count("replace", log, *exporting(layout, tmp_path / "counted"))
    assert run_with(Fault("replace", total, "kill-before"), log, *exporting(layout, bundle)).code == KILLED
    ended = run_with(None, log, *exporting(layout, bundle), "--json")
    done = json.loads(ended.said)
    assert (done["bytes_reused"], done["bytes_read"]) == (done["bytes_new"], 0)
    assert files(bundle) == files(whole)
