"""Failures that come from around the program: bad sectors, short reads, interrupted calls, few descriptors, long names, odd
environments, wrong clocks, two commands at once, and images of kinds that engines refuse. (What has no test: docs/decisions/0010.)"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.run import alone, files, run, says
from tests.support.zoo import Layout, layer, noise, noisy
from transfer.bundle.reader import Bundle
from transfer.engines.memory import MemoryImages, MemorySink
from transfer.events import silent
from transfer.flows.load_images import Loaded, LoadOptions, load_images
from transfer.flows.verify import check


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, each with content of its own."""
    place = tmp_path_factory.mktemp("rows")
    made = Layout()
    for number in range(3):
        made.name(made.image([layer({f"f{n}": noise(10 * number + n, 3 << 20) for n in range(8)})]), f"app:{number}")
    run("export", "--from", f"oci:{made.write(place / 'oci')}", "-o", place / "b", "-q", "--no-store")
    return place / "b"


def imported(folder: Path) -> tuple[Loaded, MemoryImages]:
    held = MemoryImages()
    with Bundle(folder) as opened:
        return load_images(
            opened, opened.images, tuple, MemorySink(held), options=LoadOptions(jobs=0), observer=silent
        ), held


def test_a_bad_sector_costs_the_images_that_need_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bundle(bundle) as opened:
        mine, *others = [set(each) for each in opened.header.needs]
        number = min(mine.difference(*others))
        bad = opened.catalog().frames[number].offset + 5000
        inode = (bundle / opened.header.packs[opened.catalog().frames[number].pack].path).stat().st_ino
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if offset <= bad < offset + size and os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    done, held = imported(bundle)
    assert [each.image.names[0] for each in done.failed] == ["app:0"]
    assert done.failed[0].error.exit_code == 13
    assert "blobs/sha256/" in done.failed[0].error.message
    assert len(held.roots) == 2


def test_a_filesystem_may_read_less_at_a_time(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: real(fd, min(size, 70_001), offset))
    assert check(bundle, deep=True, jobs=0, observer=silent).sound
    done, held = imported(bundle)
    assert not done.failed
    assert len(held.roots) == 3


def test_interrupted_calls_are_made_again(bundle: Path) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        done, _ = imported(bundle)
        assert check(bundle, deep=True, jobs=2, observer=silent).sound
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not done.failed


def test_few_descriptors_will_do(bundle: Path, tmp_path: Path) -> None:
    words = ["import", bundle, "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s"]
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr


def test_none_left_is_told(bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "transfer", "import", str(bundle), "--to", f"oci:{tmp_path}/o", "--no-store"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)),
    )
    assert done.returncode not in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert "Too many open files" in done.stderr


@pytest.mark.parametrize("name", ["n" * 300, "n" * 200 + "/" + "m" * 4000])
def test_names_that_are_too_long_are_told(bundle: Path, tmp_path: Path, name: str) -> None:
    for words in (["verify", tmp_path / name], ["import", bundle, "--to", f"oci:{tmp_path / name}"]):
        code, said = says(*words)
        assert code not in (0, 1), said
        assert "transfer:" in said


@pytest.mark.parametrize("odd", [{"LC_ALL": "C", "LANG": "C", "HOME": ""}, {"HOME": "/nonexistent", "PYTHONUTF8": "0"}])
def test_odd_environments(bundle: Path, tmp_path: Path, odd: dict[str, str]) -> None:
    run("verify", bundle, env=odd)
    run("import", bundle, "--to", f"oci:{tmp_path}/ö", "--store", tmp_path / "s", env=odd)
    run("import", bundle, "--to", f"oci:{tmp_path}/ö", "--no-store", env=odd)


def test_the_umask_takes_nothing_away(bundle: Path, tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        run("export", "--from", f"oci:{bundle.parent}/oci", "-o", tmp_path / "b", "--store", tmp_path / "s", "-q")
        run("import", tmp_path / "b", "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "far")
    finally:
        os.umask(before)
    assert files(tmp_path / "b") == files(bundle)


@pytest.mark.parametrize("now", [0.0, 4e9])
def test_the_clock_decides_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    """Files from the far future or past, as after a dead battery: the same bytes, and nothing is removed that is in use."""
    run("import", bundle, "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s", "-q")
    for path in [*(tmp_path / "s").rglob("*"), *(tmp_path / "o").rglob("*")]:
        os.utime(path, (now, now))
    run("store", "check", "--store", tmp_path / "s")
    run("store", "prune", "--keep-last", "1", "--store", tmp_path / "s")
    run("import", bundle, "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s", "-q")
    run("store", "check", "--store", tmp_path / "s")
    monkeypatch.setattr(time, "time", lambda: now)
    assert check(bundle, deep=True, jobs=0, observer=silent).sound


def test_a_prune_beside_an_export_and_an_import(bundle: Path, tmp_path: Path) -> None:
    """All of one store, again and again: each ends right or waits, and the store is sound in the end."""
    store, source = tmp_path / "s", f"oci:{noisy(2).write(tmp_path / 'oci')}"
    command = [sys.executable, "-m", "transfer"]
    jobs = [
        [*command, "export", "--from", source, "-o", str(tmp_path / "e"), "--base", str(bundle), "--store", str(store)],
        [*command, "import", str(bundle), "--to", f"oci:{tmp_path}/o", "--store", str(store)],
        *([[*command, "store", "prune", "--keep-last", "1", "--store", str(store)]] * 3),
    ]
    for _ in range(2):
        running = [subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for job in jobs]
        for process in running:
            _, said = process.communicate()
            assert process.returncode in (0, 10), said  # 10: a prune before there is a store
    run("store", "check", "--store", store)
    run("verify", tmp_path / "e")


def odd_images() -> Iterator[tuple[str, Layout, str]]:
    """Kinds of images that this program carries as they are."""
    data = noise(7, 50_000)
    for kind in (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ):
        made = Layout()
        made.name(made.image([data], layer_kind=kind), "odd:1")
        yield kind, made, "linux"
    made = Layout()
    config = {
        "architecture": "amd64",
        "os": "windows",
        "os.version": "10.0.20348.1970",
        "rootfs": {"type": "layers", "diff_ids": [made.blob(layer({"Files/a": b"a"}), "x")["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": made.document(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [made.blob(layer({"Files/a": b"a"}), "application/vnd.oci.image.layer.v1.tar")],
    }
    made.name(made.document(manifest, str(manifest["mediaType"])), "odd:1")
    yield "windows", made, "windows"


@pytest.mark.parametrize(("kind", "made", "system"), list(odd_images()), ids=lambda each: str(each)[-20:])
def test_odd_kinds_travel_as_they_are(kind: str, made: Layout, system: str, tmp_path: Path) -> None:
    run("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "-q", "--no-store")
    (image,) = json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
    assert image["platforms"][0].startswith(system)
    run("verify", tmp_path / "b", "--deep")
    run("import", tmp_path / "b", "--to", f"oci:{tmp_path}/c", "-q", "--no-store")
    assert files(tmp_path / "c" / "blobs") == {
        name: data for name, data in files(tmp_path / "a" / "blobs").items() if name in files(tmp_path / "c" / "blobs")
    }
    assert f'"{image["layers"][0]["digest"]}"'.encode() in b"".join(files(tmp_path / "c" / "blobs").values())


def test_a_foreign_layer_that_is_not_there_is_told(tmp_path: Path) -> None:
    made = Layout()
    image = made.image([noise(1, 1000)], layer_kind="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    made.name(image, "win:1")
    manifest = json.loads(made.blobs[image["digest"]])
    del made.blobs[manifest["layers"][0]["digest"]]
    code, said = says("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "--no-store")
    assert (code, "foreign layer" in said) == (10, True), said


def test_schema_1_is_refused_with_the_way_out(tmp_path: Path) -> None:
    made = Layout()
    old = {"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [{"blobSum": "sha256:" + "0" * 64}], "history": []}
    made.name(made.document(old, "application/vnd.docker.distribution.manifest.v1+prettyjws"), "old:1")
    code, said = says("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "--no-store")
    assert (code, "schema 1" in said, "skopeo copy --format v2s2" in said) == (13, True, True), said


def test_images_under_sha512_go_every_way(tmp_path: Path) -> None:
    made = Layout()
    data = layer({"a": noise(3, 5000)})

    def long(value: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha512(value).hexdigest()
        place = tmp_path / "a" / "blobs" / "sha512"
        place.mkdir(parents=True, exist_ok=True)
        (place / digest).write_bytes(value)
        return {"mediaType": kind, "digest": f"sha512:{digest}", "size": len(value)}

    ids = [f"sha256:{hashlib.sha256(data).hexdigest()}"]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": long(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [long(data, "application/vnd.oci.image.layer.v1.tar")],
    }
    root = long(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    made.name(root)
    run("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "-q", "--no-store")
    run("verify", tmp_path / "b", "--deep")
    for to in ("oci:" + str(tmp_path / "o"), f"oci-archive:{tmp_path}/o.tar", f"docker-archive:{tmp_path}/d.tar"):
        run("import", tmp_path / "b", "--to", to, "--no-store", "-q")
    for source in (f"oci:{tmp_path}/o", f"oci-archive:{tmp_path}/o.tar"):
        (found,) = json.loads(run("images", "--from", source, "--json"))["images"]
        assert (found["id"], found["size"]) == (root["digest"], len(data))
    with tarfile.open(tmp_path / "d.tar") as tar:
        stream = tar.extractfile(json.load(tar.extractfile("manifest.json") or io.BytesIO())[0]["Layers"][0])
        assert stream is not None
        assert stream.read() == data
    if shutil.which("zstd") or sys.version_info >= (3, 14):
        assert alone(tmp_path / "b", "--rebuild", tmp_path / "r") == 0
        assert files(tmp_path / "r" / "blobs") == files(tmp_path / "a" / "blobs")
