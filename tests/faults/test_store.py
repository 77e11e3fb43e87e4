"""kill -9 and full disks around the store and deltas: what is committed stays whole, and the same command again ends right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.test_crash import steps
from tests.support.faulty import KILLED, Fault, count, run_with
from tests.support.months import blobs_of, rebuilds, write_months
from tests.support.run import files
from transfer.store.entry import Role
from transfer.store.store import Store

CALLS = ("write", "fsync", "replace", "unlink", "link")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months: layouts, a full bundle and two deltas, all of them small."""
    folder = tmp_path_factory.mktemp("months")
    layouts = write_months(folder, 3, big=False)
    log = folder / "log"
    base: list[object] = []
    for number, layout in enumerate(layouts, 1):
        made = folder / f"b{number}"
        assert run_with(None, log, "export", "--from", f"oci:{layout}", "-o", made, "-q", "-j", 1, *base).code == 0
        base = ["--base", made, *(["--seed", folder / "b1"] if number > 1 else [])]
    return folder


def importing(bundle: Path, place: Path) -> list[object]:
    return ["import", bundle, "--to", f"oci:{place / 'o'}", "--store", place / "store", "-q", "--jobs", 1]


def filled(place: Path, folder: Path, log: Path, count_: int = 3) -> Path:
    """A store with the first bundles in it."""
    model = place / f"model{count_}"
    if not model.exists():
        for number in range(1, count_ + 1):
            ended = run_with(None, log, *importing(place / f"b{number}", model))
            assert ended.code == 0, ended.said
    shutil.copytree(model, folder)
    return folder / "store"


def whole(store: Path) -> None:
    """Every held bundle of the store rebuilds exactly."""
    opened = Store(store)
    for entry in opened.entries():
        if entry.role is Role.HELD:
            bundle = opened.bundle(entry.digest)
            assert bundle
            assert rebuilds(bundle, opened)


@pytest.mark.parametrize("how", ["kill-before", "kill-after"])
@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_delta_export_killed_anywhere_goes_on(place: Path, tmp_path: Path, call: str, how: str) -> None:
    log = tmp_path / "log"
    words = ["export", "--from", f"oci:{place / 'layout2'}", "-q", "-j", 1, "--base", place / "b1", "-o"]
    for at in steps(count(call, log, *words, tmp_path / "counted"))[::2]:
        bundle = tmp_path / f"{at}"
        assert run_with(Fault(call, at, how), log, *words, bundle).code == KILLED
        ended = run_with(None, log, *words, bundle)
        assert ended.code == 0, (at, ended.said)
        assert files(bundle) == files(place / "b2"), at


@pytest.mark.parametrize("how", ["kill-before", "kill-after"])
@pytest.mark.parametrize("call", CALLS)
def test_an_import_into_a_store_killed_anywhere_ends_right(place: Path, tmp_path: Path, call: str, how: str) -> None:
    log = tmp_path / "log"
    filled(place, tmp_path / "counted", log, 1)
    for at in steps(count(call, log, *importing(place / "b2", tmp_path / "counted")))[::2]:
        here = tmp_path / f"{at}"
        filled(place, here, log, 1)
        assert run_with(Fault(call, at, how), log, *importing(place / "b2", here)).code == KILLED
        whole(here / "store")
        ended = run_with(None, log, *importing(place / "b2", here))
        assert ended.code == 0, (at, ended.said)
        assert run_with(None, log, "store", "check", "--store", here / "store").code == 0
        assert len(Store(here / "store").entries()) == 2
        whole(here / "store")


@pytest.mark.parametrize("how", ["kill-before", "kill-after", "ENOSPC"])
@pytest.mark.parametrize("work", ["prune", "compact", "check"])
def test_upkeep_broken_off_anywhere_loses_nothing(place: Path, tmp_path: Path, work: str, how: str) -> None:
    log = tmp_path / "log"
    words: list[object] = {
        "prune": ["store", "prune", "--keep-last", 1, "--store"],
        "compact": ["store", "compact", "--jobs", 1, "--store"],
        "check": ["store", "check", "--rebuild", "--jobs", 1, "--store"],
    }[work]

    def prepared(here: Path) -> Path:
        store = filled(place, here, log)
        if work == "compact":
            pruned = place / "pruned"
            if not pruned.exists():
                assert run_with(None, log, "store", "prune", "--keep-last", 1, "--store", store).code == 0
                shutil.copytree(store, pruned)
            shutil.rmtree(store)
            shutil.copytree(pruned, store)
        return store

    for call in ("write", "replace", "unlink"):
        total = count(call, log, *words, prepared(tmp_path / f"{call}counted"))
        for at in sorted({1, total // 2, total} & set(range(1, total + 1))):
            store = prepared(tmp_path / f"{call}{at}")
            assert run_with(Fault(call, at, how), log, *words, store).code in (KILLED, 23, 0)
            whole(store)
            ended = run_with(None, log, *words, store)
            assert ended.code == 0, (call, at, ended.said)
            assert run_with(None, log, "store", "check", "--store", store).code == 0
            whole(store)
            fresh = store.parent / "fresh"
            again = ["import", place / "b3", "--to", f"oci:{fresh}", "--store", store, "-q", "-j", 1]
            assert run_with(None, log, *again).code == 0
            assert blobs_of(fresh).items() >= blobs_of(place / "layout3").items()


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_says_no_to_the_store(place: Path, tmp_path: Path, call: str, error: str) -> None:
    log = tmp_path / "log"
    total = count(call, log, *importing(place / "b1", tmp_path / "counted"))
    for at in sorted({1, 2, total // 2, total - 1, total}):
        here = tmp_path / f"{at}"
        ended = run_with(Fault(call, at, error), log, *importing(place / "b1", here))
        history = call in ("write", "fsync") and at == total  # all is in place, and only the line that says so is lost
        assert ended.code in ((0,) if history else (3, 13, 23)), (at, ended.said)
        assert history or "  -> " in ended.said
        whole(here / "store")
        ended = run_with(None, log, *importing(place / "b1", here))
        assert ended.code == 0, (at, ended.said)
        whole(here / "store")
        assert len(Store(here / "store").entries()) == 1
