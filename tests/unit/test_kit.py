"""`transfer kit`: wrong wishes, folders that are not free, kits of somebody else, programs that are no programs. (Real kits: tests/e2e.)"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.run import run, says
from tests.support.zoo import zoo
from transfer.bundle.reader import Bundle
from transfer.errors import Damaged, FormatError, NotFound, TransferError, UsageError
from transfer.flows import itself
from transfer.kits import packed, tree
from transfer.kits.elf import read_elf
from transfer.kits.folder import SUMS, UNFINISHED, KitFolder, listed
from transfer.kits.releases import RELEASES


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--arch", "sparc64"], 2, "write one of x86_64, aarch64"),
        (["--engine", "docker"], 2, "write docker.io or podman"),
        (["--engine", "docker.io"], 2, "--for debian:12"),
        (["--engine", "docker.io", "--for", "debian:99"], 2, "write one of debian:11"),
        (["--engine", "docker.io", "--for", "rhel:9"], 2, "dnf download --resolve"),
        (["--for", "debian:12"], 2, "add --engine"),
        (["--installed", "/var/lib/dpkg/status"], 2, "add --engine"),
        (["--engine-files", "/tmp"], 2, "add --engine"),
        (["--engine", "docker.io", "--engine-files", "/nowhere"], 2, "holds no *.rpm"),
        (["--engine", "docker.io", "--engine-files", "/tmp", "--for", "debian:12"], 2, "leave one out"),
        (["--bundle", "/nowhere"], 10, "/nowhere"),
        (["--sites", "/nowhere"], 2, "holds no site file"),
        (["--python-from", "/nowhere"], 10, "name the folder of a kit"),
        (["--cache", "/proc/x"], 10, "/proc/x"),
    ],
)
def test_a_wrong_wish_is_said_before_anything_is_made(words: list[str], code: int, told: str, tmp_path: Path) -> None:
    got, said = says("kit", "-o", tmp_path / "KIT", "--cache", tmp_path / "cache", *words)
    assert (got, told in said, "\n  -> " in said) == (code, True, True), said
    assert not (tmp_path / "KIT").exists()


def test_a_damaged_bundle_does_not_come_into_a_kit(tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    with Bundle(tmp_path / "b") as bundle:
        pack = tmp_path / "b" / bundle.header.packs[0].path
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    code, said = says("kit", "-o", tmp_path / "KIT", "--cache", tmp_path / "cache", "--bundle", tmp_path / "b")
    assert code == 13 and "transfer verify" in said
    assert not (tmp_path / "KIT").exists()


def test_a_folder_that_is_not_free_is_left_alone(tmp_path: Path) -> None:
    kit = tmp_path / "stick"
    kit.mkdir()
    (kit / "photos").mkdir()
    with pytest.raises(UsageError, match="photos"):
        KitFolder(kit).begin()
    (kit / "photos").rmdir()
    folder = KitFolder(kit)
    folder.begin()
    folder.put("docs/a.txt", b"a")
    assert (kit / UNFINISHED).is_file() and not (kit / SUMS).exists()
    (kit / "photos").mkdir()
    with pytest.raises(UsageError, match="photos"):
        KitFolder(kit).begin()
    (kit / "photos").rmdir()
    for name in (f".{SUMS}.12.0123abcd.tmp", SUMS):  # killed while it ended
        (kit / name).write_text("")
    again = KitFolder(kit)  # what a stopped run left is done again
    again.begin()
    assert not (kit / "docs").exists()
    again.put("docs/b.txt", b"b")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/index.json").write_text("{}")
    again.copy(tmp_path / "bundle", "bundles/bundle", summed=False)
    total = again.end()
    assert (kit / SUMS).read_text() == f"{hashlib.sha256(b'b').hexdigest()}  docs/b.txt\n"
    assert total == hashlib.sha256((kit / SUMS).read_bytes()).hexdigest()
    assert again.size == 3 and not (kit / UNFINISHED).exists()
    with pytest.raises(UsageError, match="is a kit already"):
        KitFolder(kit).begin()
    assert listed(kit, "docs/b.txt") == kit / "docs/b.txt"
    (kit / "docs/b.txt").write_bytes(b"x")
    with pytest.raises(Damaged, match=SUMS):
        listed(kit, "docs/b.txt")
    with pytest.raises(NotFound):
        listed(kit, "docs/c.txt")


def test_a_folder_is_packed_the_same_each_time_and_comes_back(tmp_path: Path) -> None:
    first = tmp_path / "first"
    for name, data in {"bin/transfer": b"#!/bin/sh\n", "lib/ld-linux-x86-64.so.2": b"x", "lib/a/b.py": b"1"}.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_bytes(data)
    out = []
    for _ in range(2):
        file = io.BytesIO()
        packed.pack(first, file.write, 5)
        out.append(file.getvalue())
        (first / "lib/a/b.py").touch()
        (first / "bin/transfer").chmod(0o700)
    assert out[0] == out[1]
    (tmp_path / "tree.tar.gz").write_bytes(out[0])
    packed.unpack_kit(tmp_path / "tree.tar.gz", tmp_path / "second")
    assert packed.identity(tmp_path / "second") == packed.identity(first)
    assert (tmp_path / "second/bin/transfer").stat().st_mode & 0o777 == 0o755
    (tmp_path / "tree.tar.gz").write_bytes(out[0][:-20])
    with pytest.raises(Damaged, match="not whole"):
        packed.unpack_kit(tmp_path / "tree.tar.gz", tmp_path / "third")


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "hard link", "device", "twice", "too much"])
def test_a_kit_of_somebody_else_cannot_write_elsewhere(kind: str, tmp_path: Path) -> None:
    name = {"above": "bin/../../evil", "absolute": str(tmp_path / "evil")}.get(kind, "evil")
    member = tarfile.TarInfo(name)
    member.type = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}.get(
        kind, tarfile.REGTYPE
    )
    member.linkname = "/etc/passwd"
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.addfile(member, io.BytesIO())
        if kind == "twice":
            archive.addfile(member, io.BytesIO())
    if kind == "too much":
        member.size = packed.UNPACKED_MAX + 1
        (tmp_path / "t.tar.gz").write_bytes(gzip.compress(member.tobuf() + bytes(10_000)))
    with pytest.raises(FormatError, match="evil"):
        packed.unpack_kit(tmp_path / "t.tar.gz", tmp_path / "root")
    assert not (tmp_path / "evil").exists()


def test_programs_say_what_they_need(tmp_path: Path) -> None:
    """And what only looks like one does not stop anybody: every byte of a header is broken once."""
    path = Path(sys.executable).resolve()
    found = read_elf(path)
    assert found and found.machine and any(name.startswith("libc.so") for name in found.needed)
    data = path.read_bytes()[:4096]
    for at in range(128):
        (tmp_path / "x").write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        read_elf(tmp_path / "x")
        (tmp_path / "x").write_bytes(data[:at])
        assert read_elf(tmp_path / "x") is None or at >= 64
    (tmp_path / "x").write_text("#!/bin/sh\n")
    assert read_elf(tmp_path / "x") is None


def test_names_of_versions_have_one_length() -> None:
    """One is written over another in a program."""
    from transfer.flows.kit import _version

    assert len(_version("a" * 64)) == len(tree.UNNAMED) == tree.VERSION_LENGTH


def test_sources_are_checked_by_keys_of_the_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transfer.kits.releases._KEYRINGS", tmp_path)
    with pytest.raises(TransferError, match="cannot be checked"):
        RELEASES["ubuntu:24.04"].sources("x86_64")
    for name in ("ubuntu", "debian"):
        (tmp_path / f"{name}-archive-keyring.gpg").write_bytes(b"")
    lines = RELEASES["ubuntu:24.04"].sources("aarch64").splitlines()
    assert all("ports.ubuntu.com" in line and "signed-by=" in line for line in lines)
    monkeypatch.setenv("TRANSFER_DEBIAN_MIRROR", "http://mirror.hq/debian")
    lines = RELEASES["debian:12"].sources("x86_64").splitlines()
    assert [line.split()[2] for line in lines] == ["http://mirror.hq/debian"] * 2 + ["http://mirror.hq/debian-security"]


def test_a_process_of_its_own_takes_no_modules_from_the_working_folder() -> None:
    assert itself.command("import", "x") == [sys.executable, "-P", "-m", "transfer", "import", "x"]


def test_doctor_says_whether_an_offline_host_is_ready(tmp_path: Path) -> None:
    """A line each; what is not ready has what to do behind an arrow, and the exit code says so."""
    store = ["--store", tmp_path / "s"]
    code, said = says("doctor", "--offline", *store)
    lines = said.splitlines()
    assert code == 2
    assert [line[11:].split()[0] for line in lines] == ["Python", "store", "engine", "room", "clock", "units", "site"]
    assert all(line.startswith("not ready  ") == (" -> " in line) for line in lines)
    assert "transfer receipt --site NAME" in lines[-1]
    run("receipt", "--site", "plant-7", *store)
    assert says("doctor", "--offline", *store)[1].splitlines()[-1] == "ready      site    plant-7"
