"""Stores that were damaged, filled out of order, or lied to: each of these once lost data or blocked every command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.months import blobs_of, month, rebuilds, write_months
from tests.support.run import run, says
from transfer.bundle.reader import Bundle
from transfer.store.entry import Role
from transfer.store.store import Store
from transfer.streams import canonical_json, sha256


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four months: layouts, b1 whole, b2 on b1, b3 on b2, b4 on b3."""
    folder = tmp_path_factory.mktemp("months")
    made: list[Path] = []
    for number, layout in enumerate(write_months(folder, 4, big=False), 1):
        bundle = folder / f"b{number}"
        seeds = [word for each in made for word in ("--seed", each)]
        run("export", "--from", f"oci:{layout}", "-o", bundle, "-q", *(["--base", made[-1]] if made else []), *seeds)
        made.append(bundle)
    return folder


def import_(place: Path, here: Path, *numbers: int, words: tuple[object, ...] = (), code: int = 0) -> str:
    said = ""
    for number in numbers:
        target = f"oci:{here / 'o'}"
        found, said = says("import", place / f"b{number}", "--to", target, "--store", here / "s", *words)
        assert found == code, said
    return said


def fresh(place: Path, here: Path, number: int) -> None:
    """The month rebuilt from the store alone."""
    out = here / f"fresh{os.urandom(3).hex()}"
    run("import", place / f"b{number}", "--to", f"oci:{out}", "--store", here / "s", "-q")
    assert blobs_of(out).items() >= blobs_of(place / f"layout{number}").items()


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_prune_trusts_no_index(place: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    import_(place, tmp_path, 1, 2, 3)
    run("store", "prune", "--keep-last", 1, "--store", store)
    run("store", "compact", "--store", store)
    with contextlib.closing(sqlite3.connect(store / "index.sqlite")) as db, db:
        db.execute("delete from chunk where number % 2")
    run("store", "prune", "--keep-last", 1, "--store", store)
    fresh(place, tmp_path, 3)


def test_prune_keeps_what_a_staged_bundle_needs(place: Path, tmp_path: Path) -> None:
    """A staged one on b3 and on another that has not come: the compacted chunks stay for it."""
    store, other = tmp_path / "s", tmp_path / "other"
    month(9, big=False).write(tmp_path / "layout9")
    run("export", "--from", f"oci:{tmp_path / 'layout9'}", "-o", other, "-q")
    both = tmp_path / "both"
    both.mkdir()
    merged = month(4, big=False)
    merged.write(both)
    index = json.loads((both / "index.json").read_text())
    nine = month(9, big=False).write(tmp_path / "nine")
    shutil.copytree(nine / "blobs", both / "blobs", dirs_exist_ok=True)
    index["manifests"] += json.loads((nine / "index.json").read_text())["manifests"]
    (both / "index.json").write_text(json.dumps(index))
    seeds = [word for n in (1, 2) for word in ("--seed", place / f"b{n}")]
    base = ["--base", place / "b3", "--base", other]
    run("export", "--from", f"oci:{both}", "-o", tmp_path / "staged", "-q", *base, *seeds)
    import_(place, tmp_path, 1, 2, 3)
    run("store", "prune", "--keep-last", 1, "--store", store)
    run("store", "compact", "--store", store)
    out = f"oci:{tmp_path / 'x'}"
    run("import", tmp_path / "staged", "--to", out, "--store", store, "--stage", "-q")
    import_(place, tmp_path, 1)
    run("store", "prune", "--keep-last", 1, "--store", store)
    done = json.loads(run("import", other, "--to", out, "--store", store, "--json", "-q"))
    assert len(done["completed"]) == 6
    assert blobs_of(tmp_path / "x").items() >= blobs_of(both).items()


def test_the_newest_is_the_one_that_was_imported_last(place: Path, tmp_path: Path) -> None:
    import_(place, tmp_path, 3, words=("--stage",))
    import_(place, tmp_path, 2, words=("--stage",))
    import_(place, tmp_path, 1)
    run("store", "prune", "--keep-last", 1, "--store", tmp_path / "s")
    entries = {entry.digest: entry.role for entry in Store(tmp_path / "s").entries()}
    with Bundle(place / "b3") as newest:
        assert entries[newest.manifest.digest] is Role.HELD
    fresh(place, tmp_path, 3)


@pytest.mark.parametrize("what", ["pack", "pack gone", "catalog", "header", "manifest", "entry"])
def test_bringing_a_bundle_again_mends_the_store(place: Path, tmp_path: Path, what: str) -> None:
    store = tmp_path / "s"
    import_(place, tmp_path, 1, 2)
    with Bundle(place / "b1") as bundle:
        paths = {
            "pack": bundle.header.packs[0].path,
            "pack gone": bundle.header.packs[0].path,
            "catalog": bundle.header.catalog[0].path,
            "header": f"blobs/sha256/{bundle.config.digest.hex}",
            "manifest": f"blobs/sha256/{bundle.manifest.digest.hex}",
            "entry": f"bundles/{bundle.manifest.digest.hex}.json",
        }
    path = store / paths[what]
    if what == "pack gone":
        path.unlink()
    else:
        flip(path)
    for words in (["ls"], ["prune", "--keep-last", 5], ["check"]):
        code, said = says("store", *words, "--store", store)
        assert code in (0, 13), said
        assert code == 0 or "  -> " in said
    code, said = says("import", place / "b2", "--to", f"oci:{tmp_path / 'x'}", "--store", store)
    assert code in (3, 13, 14), said
    assert "again" in said or "import bundle" in said
    import_(place, tmp_path, 1)
    run("store", "check", "--store", store)
    fresh(place, tmp_path, 2)


def test_use_alone_tells_what_to_bring_again(place: Path, tmp_path: Path) -> None:
    """No check in between: what an import stumbles on is replaced by the next that brings it."""
    import_(place, tmp_path, 1, 2)
    with Bundle(place / "b1") as bundle:
        flip(tmp_path / "s" / bundle.header.packs[0].path)
    code, said = says("import", place / "b2", "--to", f"oci:{tmp_path / 'x'}", "--store", tmp_path / "s")
    assert code in (3, 13), said
    import_(place, tmp_path, 1)
    fresh(place, tmp_path, 2)


@pytest.mark.parametrize("seed", range(4))
def test_a_spoiled_index_is_made_anew(place: Path, tmp_path: Path, seed: int) -> None:
    import_(place, tmp_path, 1, 2)
    index = tmp_path / "s" / "index.sqlite"
    data = bytearray(index.read_bytes())
    if seed == 0:
        data[4096:] = b"\xa5" * (len(data) - 4096)
    for n in range(30 * seed):
        data[(4096 + seed * 7919 * (n + 1)) % len(data)] ^= 1 << (n % 8)
    index.write_bytes(data)
    fresh(place, tmp_path, 2)
    if seed == 3:
        with contextlib.closing(sqlite3.connect(index)) as db, db:
            db.execute("delete from chunk")
        fresh(place, tmp_path, 2)
        index.unlink()
        index.mkdir()
        fresh(place, tmp_path, 2)


def test_a_staged_bundle_that_is_broken_blocks_nothing(place: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(place / "b2", bad)
    with Bundle(bad) as bundle:
        config, manifest = bundle.config, bundle.manifest
    blobs = bad / "blobs" / "sha256"
    header = json.loads((blobs / config.digest.hex).read_bytes())
    for each in header["images"]:
        each["config_digest"] = "sha256:" + "5" * 64
    data = canonical_json(header)
    value = json.loads((blobs / manifest.digest.hex).read_bytes())
    value["config"] |= {"digest": str(sha256(data)), "size": len(data)}
    (blobs / sha256(data).hex).write_bytes(data)
    top = canonical_json(value)
    (blobs / sha256(top).hex).write_bytes(top)
    index = json.loads((bad / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": str(sha256(top)), "size": len(top)}
    (bad / "index.json").write_bytes(canonical_json(index))
    run("import", bad, "--to", f"oci:{tmp_path / 'o'}", "--store", tmp_path / "s", "--stage", "-q")
    said = import_(place, tmp_path, 1)
    assert "store drop" in said
    import_(place, tmp_path, 2)
    run("store", "drop", sha256(top).hex[:12], "--store", tmp_path / "s")
    assert [entry.role for entry in Store(tmp_path / "s").entries()] == [Role.HELD] * 2
    with Bundle(place / "b1") as needed:
        run("store", "drop", needed.manifest.digest.short, "--store", tmp_path / "s", code=2)


def test_four_imports_at_once_after_the_index_is_stale(place: Path, tmp_path: Path) -> None:
    import_(place, tmp_path, 1)
    (tmp_path / "s" / "index.sqlite").unlink(missing_ok=True)
    words = [sys.executable, "-m", "transfer", "import", "-q", "--store", str(tmp_path / "s"), str(place / "b2")]
    runs = [subprocess.Popen([*words, "--to", f"oci:{tmp_path / f'p{n}'}"], stderr=subprocess.PIPE) for n in range(4)]
    for each in runs:
        _, said = each.communicate()
        assert each.returncode == 0, said
    run("store", "check", "--store", tmp_path / "s")


def test_odd_names_and_places(place: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/n\xff"
    subprocess.run([b"cp", b"-r", os.fsencode(place / "b1"), odd], check=True)
    command = [sys.executable, "-m", "transfer", "import", os.fsdecode(odd), "--to", f"oci:{tmp_path / 'o'}"]
    subprocess.run([*command, "--store", str(tmp_path / "s"), "-q"], check=True)
    run("store", "ls", "--store", tmp_path / "s")
    padded = tmp_path / "padded"
    shutil.copytree(place / "b2", padded)
    data = (padded / "index.json").read_bytes().rstrip()
    (padded / "index.json").write_bytes(data[:-1] + b" " * (3 << 20) + b"}\n")
    run("import", padded, "--to", f"oci:{tmp_path / 'o'}", "--store", tmp_path / "s", "-q")
    run("store", "check", "--rebuild", "--store", tmp_path / "s")
    (tmp_path / "file").write_text("x")
    for words in (["store", "ls"], ["store", "check"], ["inventory"], ["receipt"]):
        run(*words, "--store", tmp_path / "file", code=2)
        run(*words, "--store", place / "b1", code=2)
    run("verify", place / "b1", "--request", ".", code=2)
    run("export", "--from", f"oci:{place / 'layout1'}", "-o", tmp_path / "e", "--site", "a b", code=2)


def test_receipts_are_believed_to_the_letter(place: Path, tmp_path: Path) -> None:
    near, slip = tmp_path / "near", tmp_path / "slip"
    import_(place, tmp_path, 1, 2)
    sheet = run("receipt", "--text", "--site", "OSLO-1", "--store", tmp_path / "s")
    for wrong in ("RECEIPT 0S1O-1 1 2", "RECEIPT OSLO- 11 2", "RECEIPT oslo-1 1 2"):
        check = sheet.splitlines()[0].rsplit(" ", 1)[1]
        slip.write_text(f"{wrong} {check}\n" + "\n".join(sheet.splitlines()[1:]) + "\n")
        code, said = says("receipt", "accept", slip, "--store", near)
        assert (code, "line 1" in said) == (13, True)
    slip.write_text(sheet)
    run("receipt", "accept", slip, "--store", near)
    # the bundles become known later: the same receipt confirms them then
    run("export", "--from", f"oci:{place / 'layout1'}", "-o", tmp_path / "known", "-q", "--store", near)
    done = json.loads(run("receipt", "accept", slip, "--store", near, "--json"))
    assert (done["new"], len(done["confirmed"])) == (True, 1)
    assert not json.loads(run("receipt", "accept", slip, "--store", near, "--json"))["new"]
    value = json.loads(run("receipt", "--store", tmp_path / "s"))
    value["bundles"][0] = "sha256:" + "7" * 64
    slip.write_text(json.dumps(value))
    run("receipt", "accept", slip, "--store", near, code=15)
    slip.write_text(json.dumps(value | {"site": None}))
    run("receipt", "accept", slip, "--store", near, code=13)


def test_a_store_that_cannot_be_written_is_read(place: Path, tmp_path: Path) -> None:
    """A read-only mount; as root a folder without write permission is none."""
    import_(place, tmp_path, 1, 2)
    store, mount = tmp_path / "s", tmp_path / "ro"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "--bind", "-o", "ro", store, mount], check=False).returncode:
        pytest.skip("needs root and mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mount], check=True)
        run("store", "check", "--store", mount)
        out = tmp_path / "x"
        code, said = says("import", place / "b2", "--to", f"oci:{out}", "--store", mount)
        assert code in (0, 13), said
        assert blobs_of(out).items() >= blobs_of(place / "layout2").items()
    finally:
        subprocess.run(["umount", mount], check=True)
    opened = Store(store)
    assert all(rebuilds(bundle, opened) for bundle in opened.bundles())


def test_prune_removes_what_killed_writers_left_anywhere(place: Path, tmp_path: Path) -> None:
    import_(place, tmp_path, 1)
    store = tmp_path / "s"
    (store / "out").mkdir(exist_ok=True)
    for folder in ("", "bundles", "blobs/sha256", "sites", "out"):
        (store / folder).mkdir(exist_ok=True)
        (store / folder / ".leaving.json.4743.540df611.tmp").write_bytes(b"half")
        (store / folder / "notes.tmp").write_bytes(b"not ours")
    run("store", "prune", "--keep-last", "1", "--store", store)
    assert not list(store.rglob(".leaving*.tmp"))
    assert len(list(store.rglob("notes.tmp"))) == 5
