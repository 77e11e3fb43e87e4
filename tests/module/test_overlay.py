"""Layers out of a Docker daemon's own files: the same bytes as before they were unpacked, or a clear word why not."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.dockerdata import files_of, put, record_of, write_data
from tests.support.zoo import Layout, layer, noise
from transfer.engines.base import ResolvedImage
from transfer.engines.overlay import OverlayImages
from transfer.errors import EngineError, TransferError
from transfer.model import Digest
from transfer.streams import blocks

BASE = {"etc/base": b"base\n" * 50, "bin/tool": b"\x7fELF" + noise(1, 900), "usr/lib/deep/er/x": b"x", "usr/empty": b""}


def images() -> Layout:
    out = Layout()
    base = layer(BASE)
    odd = layer({"app/m\udce9": b"not UTF-8", "a" * 180 + "/" + "b" * 90: b"long names", ".wh.gone": b""}, stamp=1)
    out.name(out.image([base]), "one:1")
    out.name(out.image([base, odd, layer({"blob": noise(3, 9 << 20), "after": b"."})]), "two:1")
    out.name(out.image([layer({"solo": b"1"}), layer({"solo": b"2"}), layer({})]), "three:1")
    return out


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Layout, list[ResolvedImage]]:
    held = images()
    return tmp_path, held, write_data(tmp_path, held)


def read_all(root: Path, found: list[ResolvedImage]) -> dict[Digest, bytes]:
    return {offer.digest: b"".join(blocks(offer.open(0))) for offer in OverlayImages(root).read(found) if offer.digest}


def test_every_layer_comes_out_as_it_went_in_and_once(place: tuple[Path, Layout, list[ResolvedImage]]) -> None:
    root, held, found = place
    source = OverlayImages(root)
    assert source.lacks(found) == ""
    offers = [offer.digest for offer in source.read(found)]
    assert len(offers) == len(set(offers)) == 3 + 6
    for digest, data in read_all(root, found).items():
        assert held.blobs[str(digest)] == data


def test_the_images_are_those_that_a_saved_archive_gives(place: tuple[Path, Layout, list[ResolvedImage]]) -> None:
    root, held, found = place
    blobs = read_all(root, found)
    documents = {each.id: blobs[each.id] for each in found}
    made = OverlayImages(root).images(found, documents, {digest: len(data) for digest, data in blobs.items()})
    assert [image.names for image in made] == [each.names for each in found]
    for image, each in zip(made, found, strict=True):
        assert image.config_digest == each.id
        assert image.root.digest in documents
        assert [layer.digest for layer in image.layers] == [digest for digest, _ in each.layers]
        assert all(len(held.blobs[str(layer.digest)]) == layer.size for layer in image.layers)


def base_of(held: Layout) -> str:
    return str(json.loads(held.blobs[held.entries[0]["digest"]])["layers"][0]["digest"])


def cut_record(root: Path, chain: str) -> None:
    path = record_of(root, chain) / "tar-split.json.gz"
    path.write_bytes(path.read_bytes()[:-20])


def shorten(root: Path, chain: str) -> None:
    os.truncate(files_of(root, chain) / "bin/tool", 5)


def remove(root: Path, chain: str) -> None:
    (files_of(root, chain) / "bin/tool").unlink()


def become_a_link(root: Path, chain: str) -> None:
    """Whoever may write there could make root read anything."""
    path = files_of(root, chain) / "bin/tool"
    secret = root / "secret"
    secret.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(secret)


def folder_becomes_a_link(root: Path, chain: str) -> None:
    path = files_of(root, chain) / "bin"
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")


def become_a_fifo(root: Path, chain: str) -> None:
    path = files_of(root, chain) / "bin/tool"
    path.unlink()
    os.mkfifo(path)


def lines(root: Path, chain: str, change: Callable[[list[dict[str, object]]], object]) -> None:
    path = record_of(root, chain) / "tar-split.json.gz"
    entries = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(entries)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, entries)).encode() + b"\n"))


def name_leads_out(root: Path, chain: str) -> None:
    put(root / "secret", b"s" * 250)
    up = "../" * 3 + "secret"
    lines(root, chain, lambda entries: [each.update(name=up) for each in entries if each.get("name") == "etc/base"])


def nonsense(root: Path, chain: str) -> None:
    lines(root, chain, lambda entries: entries.insert(1, {"type": 7}))


def no_json(root: Path, chain: str) -> None:
    (record_of(root, chain) / "tar-split.json.gz").write_bytes(gzip.compress(b"{]\n"))


def no_gzip(root: Path, chain: str) -> None:
    (record_of(root, chain) / "tar-split.json.gz").write_bytes(b"plain text")


def endless(root: Path, chain: str) -> None:
    (record_of(root, chain) / "tar-split.json.gz").write_bytes(gzip.compress(bytes(40 << 20)))


def target_of(fd: str) -> str:
    """What an open descriptor of this process is; "" for the one that lists them."""
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize(
    "harm",
    [
        cut_record,
        shorten,
        remove,
        become_a_link,
        folder_becomes_a_link,
        become_a_fifo,
        name_leads_out,
        nonsense,
        no_json,
        no_gzip,
        endless,
    ],
    ids=lambda harm: str(harm.__name__),
)
def test_what_cannot_be_put_together_is_told_with_the_other_way(
    place: tuple[Path, Layout, list[ResolvedImage]], harm: Callable[[Path, str], None]
) -> None:
    root, held, found = place
    harm(root, base_of(held))
    with pytest.raises(EngineError, match=base_of(held)) as caught:
        read_all(root, found)
    assert "--via api" in caught.value.hint
    del caught
    assert not [path for path in map(target_of, os.listdir("/proc/self/fd")) if path.startswith(str(root))]


@pytest.mark.parametrize("name", ["cache-id", "diff", "tar-split.json.gz"])
def test_a_record_that_is_not_whole_is_seen_before_anything_is_read(
    place: tuple[Path, Layout, list[ResolvedImage]], name: str
) -> None:
    root, held, found = place
    (record_of(root, base_of(held)) / name).unlink()
    assert name in OverlayImages(root).lacks(found) or "no tar-split record" in OverlayImages(root).lacks(found)
    assert OverlayImages(root).lacks(found[2:]) == ""
    with pytest.raises(TransferError):
        read_all(root, found)


def test_a_record_of_another_layer_or_a_cache_id_that_is_a_path_is_refused(
    place: tuple[Path, Layout, list[ResolvedImage]],
) -> None:
    root, held, found = place
    record = record_of(root, base_of(held))
    cache = (record / "cache-id").read_text()
    (record / "cache-id").write_text(f"../overlay2/{cache}")
    assert "does not belong" in OverlayImages(root).lacks(found)
    (record / "cache-id").write_text(cache)
    (record / "diff").write_text("sha256:" + "0" * 64)
    assert "does not belong" in OverlayImages(root).lacks(found)


def test_only_an_overlay2_daemon_whose_files_are_here_is_read(
    place: tuple[Path, Layout, list[ResolvedImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place[0]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert OverlayImages.of({"Driver": "overlay2", "DockerRootDir": str(root)})
    for said in (
        {},
        {"Driver": "overlay2"},
        {"Driver": "vfs", "DockerRootDir": str(root)},
        {"Driver": "overlay2", "DockerRootDir": str(root / "none")},
        {"Driver": "overlay2", "DockerRootDir": 7},
    ):
        assert OverlayImages.of(said) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert OverlayImages.of({"Driver": "overlay2", "DockerRootDir": str(root)}) is None
