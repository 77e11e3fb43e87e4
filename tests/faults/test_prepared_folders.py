"""Folders that somebody else prepared: links that lead to our user's files, hard links to them, and folders of another owner."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.run import files, run, says
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.journal import Journal

NOBODY = 65534


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Layout()
    made.name(made.image([layer({"a": noise(1, 5000)})]), "app:1")
    return made.write(tmp_path_factory.mktemp("layout"))


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """Files that nobody may touch."""
    place = tmp_path / "home" / "precious"
    place.mkdir(parents=True)
    names = ["thesis.tex", "0" * 64, "pack-00001.part", ".x.1.00000000.tmp", "lock", "journal"]
    for name in names:
        (place / name).write_text("years of work")
    yield place
    assert {path.name: path.read_text() for path in place.iterdir()} == dict.fromkeys(names, "years of work")


def export(layout: Path, output: Path) -> tuple[int, str]:
    return says("export", "--from", f"oci:{layout}", "-o", output, "-q", "--no-store")


@pytest.mark.parametrize("where", [".transfer", "blobs", "blobs/sha256"])
def test_an_export_goes_through_no_link(layout: Path, precious: Path, tmp_path: Path, where: str) -> None:
    out = tmp_path / "night.bundle"
    (out / ".transfer").mkdir(parents=True)
    (out / where).parent.mkdir(parents=True, exist_ok=True)
    if (out / where).is_dir():
        (out / where).rmdir()
    (out / where).symlink_to(precious)
    if where == "blobs":
        (precious.parent / "sha256").symlink_to(precious)
    code, said = export(layout, out)
    assert (code, "link" in said or "unfinished" in said) == (2, True), said


@pytest.mark.parametrize("name", ["journal", "lock"])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_an_exports_notes_are_plain_files(layout: Path, precious: Path, tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / "night.bundle"
    (out / ".transfer").mkdir(parents=True)
    note = out / ".transfer" / name
    if kind == "link":
        note.symlink_to(precious / "thesis.tex")
    elif kind == "hard link":
        os.link(precious / "thesis.tex", note)
    elif kind == "fifo":
        os.mkfifo(note)
    else:
        note.mkdir()
    code, said = export(layout, out)
    assert code in (2, 24), said
    assert str(note) in said


def test_only_files_of_ours_go_when_an_export_begins_anew(layout: Path, tmp_path: Path) -> None:
    out = tmp_path / "night.bundle"
    (out / ".transfer").mkdir(parents=True)
    (out / "blobs" / "sha256").mkdir(parents=True)
    strange = [out / "blobs" / "sha256" / "thesis.tex", out / ".transfer" / "thesis.tex", out / "thesis.tex"]
    for path in strange:
        path.write_text("years of work")
    ours = out / "blobs" / "sha256" / ("0" * 64)
    ours.write_text("a pack of another export")
    assert export(layout, out)[0] == 0
    assert [path.read_text() for path in strange] == ["years of work"] * 3
    assert not ours.exists()
    run("verify", out, "--deep", "-q")


def test_a_finished_bundle_behind_a_link_is_not_cleared_up(layout: Path, precious: Path, tmp_path: Path) -> None:
    out = tmp_path / "night.bundle"
    assert export(layout, out)[0] == 0
    shutil.copytree(out / "blobs" / "sha256", precious.parent / "blobs")
    (precious.parent / "blobs" / "thesis.tex").write_text("years of work")
    (precious.parent / "blobs" / ("f" * 64)).write_text("mine")
    shutil.rmtree(out / "blobs" / "sha256")
    (out / "blobs" / "sha256").symlink_to(precious.parent / "blobs")
    assert export(layout, out)[0] == 0
    assert (precious.parent / "blobs" / ("f" * 64)).read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["", ".transfer", "blobs", "blobs/sha256"])
def test_a_folder_of_another_user_is_refused_by_root_too(layout: Path, tmp_path: Path, whose: str) -> None:
    out = tmp_path / "night.bundle"
    for name in (".transfer", "blobs/sha256"):
        (out / name).mkdir(parents=True)
    os.chown(out / whose, NOBODY, NOBODY)
    code, said = export(layout, out)
    assert (code, "another user" in said) == (2, True), said


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_the_lock_of_a_shipment_is_a_plain_file(layout: Path, precious: Path, tmp_path: Path, kind: str) -> None:
    out, place = tmp_path / "night.bundle", tmp_path / "usb"
    assert export(layout, out)[0] == 0
    (place / "night.bundle").mkdir(parents=True)
    lock = place / "night.bundle" / ".transfer-ship.lock"
    if kind == "link":
        lock.symlink_to(precious / "thesis.tex")
    elif kind == "hard link":
        os.link(precious / "thesis.tex", lock)
    else:
        os.mkfifo(lock)
    code, said = says("ship", out, place)
    assert code == 13, said


def test_recovery_files_go_through_no_link(layout: Path, precious: Path, tmp_path: Path) -> None:
    out, place = tmp_path / "night.bundle", tmp_path / "usb"
    assert export(layout, out)[0] == 0
    place.mkdir()
    (out / "recovery").symlink_to(precious)
    assert says("ship", out, place, "--parity", "30%")[0] == 2


def test_an_import_goes_through_no_link(layout: Path, precious: Path, tmp_path: Path) -> None:
    out = tmp_path / "night.bundle"
    assert export(layout, out)[0] == 0
    for where in ("o/blobs", "p/blobs/sha256", "s/blobs", "t/bundles", "u/blobs/sha256"):
        (tmp_path / where).parent.mkdir(parents=True)
        (tmp_path / where).symlink_to(precious)
    for to in ("o", "p"):
        assert says("import", out, "--to", f"oci:{tmp_path / to}", "--no-store")[0] == 2
    for store in ("s", "t", "u"):
        words = ["--to", f"oci:{tmp_path / 'fine'}", "--store", tmp_path / store]
        assert says("import", out, *words)[0] == 2
        says("store", "prune", "--keep-last", 1, "--store", tmp_path / store)


def test_what_lies_in_a_temporary_folder_ends_no_import(tmp_path: Path) -> None:
    """A delta whose base is cut again out of a layout: TMPDIR is full of what other users left there."""
    contents = {f"f{n}": noise(n, 3000) for n in range(20)}
    for number in (1, 2):
        made = Layout()
        made.name(made.image([layer(contents)]), f"app:{number}")
        made.write(tmp_path / f"l{number}")
        contents["f0"] = contents["f0"][:100] + b"changed" + contents["f0"][107:]
    run("export", "--from", f"oci:{tmp_path}/l1", "-o", tmp_path / "m1", "-q")
    run("export", "--from", f"oci:{tmp_path}/l2", "-o", tmp_path / "m2", "--base", tmp_path / "m1", "-q")
    run("import", tmp_path / "m1", "--to", f"oci:{tmp_path}/far", "-q")
    place = tmp_path / "tmp"
    place.mkdir()
    (place / ".transfer-base-x").symlink_to("/nowhere")
    (place / ".transfer-base-y").symlink_to(tmp_path / "l1")
    (place / ".transfer-base-z").write_text("a file")
    old, busy = place / ".transfer-base-old", place / ".transfer-base-busy"
    for folder in (old, busy):
        folder.mkdir()
        os.utime(folder, (0, 0))
    held = os.open(busy, os.O_RDONLY)
    import fcntl

    fcntl.flock(held, fcntl.LOCK_SH)
    run("import", tmp_path / "m2", "--to", f"oci:{tmp_path}/far", "-q", env={"TMPDIR": str(place)})
    os.close(held)
    assert sorted(path.name[15:] for path in place.iterdir()) == ["busy", "x", "y", "z"]
    assert files(tmp_path / "l1")


def test_a_store_is_for_its_owner_alone(layout: Path, tmp_path: Path) -> None:
    out, store = tmp_path / "night.bundle", tmp_path / "s"
    assert export(layout, out)[0] == 0
    before = os.umask(0o022)
    try:
        for to in ("o", "p"):
            run("import", out, "--to", f"oci:{tmp_path / to}", "--store", store, "-q")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in [store, *store.iterdir()]}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
    assert "in-use" in modes
    store.chmod(0o755)  # as earlier versions made it
    run("import", out, "--to", f"oci:{tmp_path / 'q'}", "--store", store, "-q")
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert json.loads(run("store", "check", "--store", store, "--json"))["sound"]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"digest":"sha256:%s","size":1,"encoding":0,"parts":[["","",[%d]]],"new":[],"like":null,"before":""}'
        % (b"0" * 64, 1 << 70),
        b'{"digest":5,"size":{},"encoding":0,"parts":[],"new":[],"like":null,"before":""}',
        b'"nonsense"',
    ],
)
def test_a_prepared_journal_is_not_believed(tmp_path: Path, line: bytes) -> None:
    lines = [b'{"level":3}', line]
    data = b"".join(b"%08x %s\n" % (zlib.crc32(each), each) for each in lines)
    (tmp_path / "journal").write_bytes(data)
    journal = Journal(tmp_path / "journal", {"level": 3})
    journal.close()
    assert (journal.resumed, journal.seen) == (True, {})
