"""A store among people: what a hostile or unlucky bundle leaves in it jams nothing, poisons nothing, and can be got rid of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support import hostile
from tests.support.hostile import building_on_nothing, carrying, changed
from tests.support.measured import measured
from tests.support.run import run, says
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.reader import Bundle
from transfer.errors import Locked
from transfer.store import locks
from transfer.store.store import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle m1, two deltas on it, m2 and m3, and an unrelated one, `other`."""
    folder = tmp_path_factory.mktemp("place")
    contents = {f"f{n}": noise(n, 3000) for n in range(20)}
    for number in (1, 2, 3):
        made = Layout()
        made.name(made.image([layer(contents)]), f"app:{number}")
        made.write(folder / f"l{number}")
        base = ["--base", folder / "m1"] if number > 1 else []
        run("export", "--from", f"oci:{folder}/l{number}", "-o", folder / f"m{number}", "-q", "--no-store", *base)
        contents["f0"] = contents["f0"][:1500] + b"changed%d" % number + contents["f0"][1508:]
    hostile.sound(folder).rename(folder / "other")
    return folder


def rows(store: Path) -> list[dict[str, object]]:
    found = json.loads(run("store", "ls", "--json", "--store", store))["bundles"]
    assert isinstance(found, list)
    return found


def test_catalogs_that_nobody_can_read_are_tried_once(place: Path, tmp_path: Path) -> None:
    """Nine of them would be tried in 9! orders; also once they are in a store, staged by a medium without packs."""
    for number in range(1, 10):
        changed(place / "other", tmp_path / f"h{number}", building_on_nothing(number))
    seeds = [word for number in range(2, 10) for word in ("--seed", tmp_path / f"h{number}")]
    out = f"oci:{tmp_path / 'o'}"
    assert measured("import", tmp_path / "h1", *seeds, "--to", out, "--no-store").code == 14
    for number in range(1, 10):
        words = ["--to", out, "--store", tmp_path / "s", "--stage"]
        run("import", tmp_path / f"h{number}", *words, "-q")
    found = measured("import", place / "m2", "--to", out, "--store", tmp_path / "s")
    assert (found.code, "depends on" in found.said) == (14, True)
    assert measured("store", "prune", "--keep-last", 1, "--store", tmp_path / "s").code == 0
    assert measured("store", "check", "--store", tmp_path / "s").code == 0
    run("import", place / "m1", "--to", out, "--store", tmp_path / "s", "-q")
    run("import", place / "m2", "--to", out, "--store", tmp_path / "s", "-q")


def test_false_chunks_of_one_bundle_are_not_taken_for_another(place: Path, tmp_path: Path) -> None:
    """The names of public images' chunks can be computed by anyone. The true base lies in the store as well."""
    with Bundle(place / "m1") as base:
        catalog = base.catalog()
        false = {catalog.name_of(number): bytes(catalog.size_of[number]) for number in range(catalog.chunks)}
    bad = changed(place / "other", tmp_path / "bad", carrying(false))
    store, out = tmp_path / "s", f"oci:{tmp_path / 'o'}"
    run("verify", "--deep", bad, "-q")
    run("import", bad, "--to", out, "--store", store, "-q")
    run("store", "check", "--rebuild", "--store", store)  # it is indexed first
    run("import", place / "m1", "--to", out, "--store", store, "-q")
    code, said = says("import", place / "m2", "--to", out, "--store", store)
    assert (code, "do not match their names" in said) == (0, True), said
    code, said = says("import", place / "m3", "--to", f"oci:{tmp_path / 'p'}", "--store", store)
    assert (code, "failed" in said) == (0, False), said
    run("store", "check", "--store", store)


def test_staged_bundles_that_never_get_complete_can_be_dropped(place: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "s", f"oci:{tmp_path / 'o'}"
    for name in ("m2", "m3"):
        run("import", place / name, "--to", out, "--store", store, "--stage", "-q")
    run("import", place / "other", "--to", out, "--store", store, "-q")
    held = next(str(row["digest"])[7:19] for row in rows(store) if row["role"] == "held")
    freed = json.loads(run("store", "prune", "--keep-last", 0, "--dry-run", "--json", "--store", store, code=2) or "{}")
    assert not freed
    run("store", "drop", held, "--store", store)
    for row in rows(store):
        assert row["role"] == "staged"
        run("store", "drop", str(row["digest"])[7:19], "--store", store)
    assert rows(store) == []


def test_what_a_held_bundle_needs_is_not_dropped(place: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "s", f"oci:{tmp_path / 'o'}"
    for name in ("m1", "m2"):
        run("import", place / name, "--to", out, "--store", store, "-q")
    with Bundle(place / "m1") as base:
        assert says("store", "drop", base.manifest.digest.short, "--store", store)[0] == 2


def test_a_dry_run_of_prune_says_what_it_frees(place: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "s", f"oci:{tmp_path / 'o'}"
    for name in ("other", "m1"):
        run("import", place / name, "--to", out, "--store", store, "-q")
    words = ["store", "prune", "--keep-last", 1, "--json", "--store", store]
    dry, real = (json.loads(run(*words, *more))["bytes_freed"] for more in (["--dry-run"], []))
    assert dry == real > 0


@pytest.mark.parametrize("what", ["digest", "index", "cut", "role"])
def test_an_entry_that_was_hurt_is_mended_or_dropped(place: Path, tmp_path: Path, what: str) -> None:
    store, out = tmp_path / "s", f"oci:{tmp_path / 'o'}"
    run("import", place / "m1", "--to", out, "--store", store, "-q")
    path = next((store / "bundles").iterdir())
    whole = path.read_text()
    digest = path.stem
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    hurt = {
        "digest": whole.replace(f'"digest": "sha256:{digest}"', f'"digest": "sha256:{other}"'),
        "index": whole.replace(f"sha256:{digest}", f"sha256:{other}", 1) if whole.index(digest) else whole,
        "cut": whole[: len(whole) // 2],
        "role": whole.replace('"held"', '"lost"'),
    }[what]
    assert hurt != whole
    path.write_text(hurt)
    assert says("store", "check", "--store", store)[0] == 13
    run("import", place / "m1", "--to", out, "--store", store, "-q")
    run("store", "check", "--store", store)
    path.write_text(hurt)
    run("store", "drop", digest[:12], "--store", store)
    run("store", "check", "--store", store)
    run("import", place / "m1", "--to", out, "--store", store, "-q")
    run("store", "check", "--store", store)


def test_the_first_import_into_a_store_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not exist yet: a prune must not come between what an import takes in and what it enters."""
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    first, second = Store(tmp_path / "s"), Store(tmp_path / "s")
    with first.reading(adopting=True), pytest.raises(Locked), second.removing():
        pass
    with second.removing():
        pass
    with first, second:
        pass


def test_a_receipt_cannot_run_far_ahead(place: Path, tmp_path: Path) -> None:
    def receipt(serial: int) -> Path:
        value = {
            "format": "transfer.receipt",
            "version": 1,
            "site": "plant-7",
            "serial": serial,
            "bundles": [],
            "roots": [],
        }
        (tmp_path / "r").write_text(json.dumps(value))
        return tmp_path / "r"

    store = ["--store", tmp_path / "s"]
    run("receipt", "accept", receipt(1), *store)
    for serial in ((1 << 53) - 1, 1002):
        run("receipt", "accept", receipt(serial), *store, code=15)
    run("receipt", "accept", receipt(2), *store)
    run("receipt", "accept", receipt(5000), "--anew", *store)
    run("receipt", "accept", receipt(5001), *store)


def test_a_bundle_is_imported_before_what_builds_on_it(place: Path, tmp_path: Path) -> None:
    """Whatever their names and times are."""
    spool = tmp_path / "spool"
    spool.mkdir()
    for name, as_name in (("m2", "a"), ("m3", "b"), ("m1", "z")):
        shutil.copytree(place / name, spool / as_name)
    run("import", f"spool:{spool}", "--to", f"oci:{tmp_path / 'o'}", "--store", tmp_path / "s", "-q")
    assert len(rows(tmp_path / "s")) == 3


@pytest.mark.parametrize("inner", ["incoming", "sites", "compacting", "blobs"])
def test_a_link_in_a_store_leads_nowhere(place: Path, tmp_path: Path, inner: str) -> None:
    """In a folder that somebody else filled: nothing is made, changed or removed where the link leads."""
    other, store = tmp_path / "other", tmp_path / "s"
    (other / "docs").mkdir(parents=True)
    (other / "docs" / "x").write_bytes(b"mine")
    run("import", place / "m1", "--to", f"oci:{tmp_path}/o", "--store", store, "-q")
    slip = tmp_path / "slip"
    run("receipt", "--site", "docs", "--store", store, "-o", slip)
    shutil.rmtree(store / inner, ignore_errors=True)
    (store / inner).symlink_to(other)
    for words in (
        ["store", "prune", "--keep-last", 1],
        ["store", "compact"],
        ["receipt", "accept", slip],
        ["import", place / "m2", "--to", f"oci:{tmp_path}/o"],
    ):
        code, said = says(*words, "--store", store)
        assert (code, f"{inner} is a link" in said) == (2, True), said
    assert [str(each.relative_to(other)) for each in sorted(other.rglob("*"))] == ["docs", "docs/x"]


@pytest.mark.parametrize("name", ["damaged", "disowned"])
def test_a_fifo_in_a_store_holds_nobody_up(place: Path, tmp_path: Path, name: str) -> None:
    store = tmp_path / "s"
    store.mkdir()
    os.mkfifo(store / name)
    run("import", place / "m1", "--to", f"oci:{tmp_path}/o", "--store", store, "-q")
    run("store", "check", "--store", store)


def test_an_entry_that_is_no_file_is_mended_by_importing_again(place: Path, tmp_path: Path) -> None:
    words = ["import", place / "m1", "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s", "-q"]
    run(*words)
    (entry,) = (tmp_path / "s" / "bundles").iterdir()
    entry.unlink()
    os.mkfifo(entry)
    run(*words)
    assert len(rows(tmp_path / "s")) == 1
    run("store", "check", "--store", tmp_path / "s")


def test_a_folder_with_other_things_is_no_store(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (other / "letter").write_bytes(b"mine")
    code, said = says("import", place / "m1", "--to", f"oci:{tmp_path}/o", "--store", other)
    assert (code, "is not a store" in said) == (2, True), said
    assert (oct(other.stat().st_mode)[-3:], [each.name for each in other.iterdir()]) == ("755", ["letter"])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("how", ["owner", "mode"])
def test_what_others_may_change_is_copied_and_not_linked(place: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(place / "m1", tmp_path / "theirs")
    for path in (tmp_path / "theirs").rglob("*"):
        if how == "owner":
            os.chown(path, 65534, 65534)
        elif path.is_file():
            path.chmod(0o666)
    run("import", tmp_path / "theirs", "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s", "-q")
    for path in (tmp_path / "s" / "blobs" / "sha256").iterdir():
        found = path.stat()
        assert (found.st_uid, found.st_nlink, found.st_mode & 0o077) == (0, 1, 0)
