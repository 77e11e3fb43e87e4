"""A bit flipped, the file cut, or bytes swapped, at every offset of a small bundle: found, located, and never imported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.run import alone
from tests.support.zoo import Layout, layer
from transfer.bundle.reader import Bundle
from transfer.engines.memory import MemoryImages, MemorySink
from transfer.engines.ocilayout import LayoutSource
from transfer.errors import TransferError
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.load_images import LoadOptions, load_images
from transfer.flows.select import select
from transfer.flows.verify import check


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image, one layer, a few hundred bytes."""
    folder = tmp_path_factory.mktemp("small")
    held = Layout()
    held.name(held.image([layer({"a": b"text " * 9, "b": b"\x7fELF" + bytes(range(60))})]), "small:1")
    source = LayoutSource(held.write(folder / "o"))
    export(source, select(source, [], None, silent), folder / "b", level=3, jobs=0, observer=silent)
    return folder / "b"


def blobs(bundle: Path) -> list[Path]:
    return [*sorted((bundle / "blobs" / "sha256").iterdir()), bundle / "index.json"]


def found(bundle: Path) -> bool:
    """Whether the damage is told, by one of our errors or in the report."""
    try:
        return not check(bundle, deep=False, jobs=0, observer=silent).sound
    except TransferError:
        return True


def imported(bundle: Path) -> dict[str, bytes]:
    """What an import lands, as far as it gets."""
    held = MemoryImages()
    try:
        with Bundle(bundle) as opened:
            load_images(opened, opened.images, tuple, MemorySink(held), options=LoadOptions(jobs=0), observer=silent)
    except TransferError:
        assert not held.roots
    return {str(digest): data for digest, data in held.blobs.items()}


def test_a_flipped_bit_is_found_wherever_it_is(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    whole = imported(bundle)
    assert whole
    for path in blobs(tmp_path / "b"):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
            if path.name == "index.json":
                assert found(tmp_path / "b") or imported(tmp_path / "b") == whole, (path, at)
            else:
                assert found(tmp_path / "b"), (path, at)
                if at % 7 == 0:
                    assert imported(tmp_path / "b") in ({}, whole), (path, at)
        path.write_bytes(data)
    assert not found(tmp_path / "b")


def test_a_file_cut_short_is_found_wherever_it_is_cut(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    for path in blobs(tmp_path / "b"):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at])
            if path.name == "index.json" and at == len(data) - 1:
                continue  # only the newline at its end is gone
            assert found(tmp_path / "b"), (path, at)
            if at % 7 == 0:
                assert imported(tmp_path / "b") == {}, (path, at)
        path.write_bytes(data + b"x")
        assert found(tmp_path / "b")
        path.write_bytes(data)


def test_a_zeroed_page_and_swapped_blocks_are_found(tmp_path: Path) -> None:
    """What a counterfeit stick does. The frames behind the damage are told to be sound."""
    from tests.support.zoo import noise

    held = Layout()
    files = {f"f{n}": b"\x7fELF" + noise(n, 3 << 20) for n in range(22)}
    held.name(held.image([layer(files)]), "a:1")
    held.name(held.image([layer({"t": b"text\n" * 1000})]), "b:1")
    source = LayoutSource(held.write(tmp_path / "o"))
    export(source, select(source, [], None, silent), tmp_path / "b", level=1, jobs=0, observer=silent)
    with Bundle(tmp_path / "b") as bundle:
        paths = [tmp_path / "b" / each.path for each in bundle.header.packs]
        frames = sum(each.frames for each in bundle.header.packs)
    path = max(paths, key=lambda each: each.stat().st_size)
    data = path.read_bytes()
    half = 20 << 20
    for spoiled in (
        data[:half] + bytes(4096) + data[half + 4096 :],
        data[:half] + data[half + 65536 : half + 131072] + data[half : half + 65536] + data[half + 131072 :],
    ):
        path.write_bytes(spoiled)
        done = check(tmp_path / "b", deep=False, jobs=1, observer=silent)
        assert len(done.damage) == 1 < frames
        assert done.damage[0].images == ("a:1",)
        assert done.damage[0].frame is not None
        assert alone(tmp_path / "b") == 13
        assert set(imported(tmp_path / "b")) & {str(each.root.digest) for each in bundle.images if each.label == "b:1"}
    path.write_bytes(data)
    assert check(tmp_path / "b", deep=True, jobs=1, observer=silent).sound
