"""What every ChunkSink and ChunkSource must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.zoo import noise
from transfer.bundle.writer import BundleWriter
from transfer.chunks.folder import FolderChunks
from transfer.chunks.memory import MemoryChunks
from transfer.chunks.name import CHUNK_MAX, ChunkSink, ChunkSource, Kind, chunk_id
from transfer.errors import Damaged
from transfer.model import ChunkId
from transfer.work import Pool

CHUNKS = [b"a", b"text\n" * 1000, noise(1, 5000), bytes(CHUNK_MAX), noise(2, CHUNK_MAX)]


@dataclass(frozen=True)
class Pair:
    """A sink, and a source of what was put into it once it is finished. `spoil` damages what is kept."""

    sink: ChunkSink
    source: Callable[[], ChunkSource]
    spoil: Callable[[ChunkId], None]


def memory(folder: Path) -> Pair:
    held = MemoryChunks()

    def spoil(name: ChunkId) -> None:
        held._chunks[name] = b"something else"

    return Pair(held, lambda: held, spoil)


def packs(folder: Path) -> Pair:
    pool = Pool(0, "test")
    writer = BundleWriter(folder / "b", level=3, options={}, pool=pool, ahead=1)

    def source() -> ChunkSource:
        writer.finish([], created=0, tool="test", totals={})
        writer.close()
        return FolderChunks(found(), pool)

    def found() -> list[Path]:
        return sorted((folder / "b" / "blobs" / "sha256").iterdir())

    def spoil(name: ChunkId) -> None:
        for path in found():
            data = bytearray(path.read_bytes())
            for at in range(64, len(data), 512):
                data[at] ^= 1
            path.write_bytes(data)

    return Pair(writer, source, spoil)


PAIRS: dict[str, Callable[[Path], Pair]] = {"memory": memory, "packs": packs}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return PAIRS[request.param](tmp_path)


def fill(pair: Pair) -> ChunkSource:
    for data in CHUNKS:
        pair.sink.add(chunk_id(data), data, Kind.TEXT)
        pair.sink.add(chunk_id(data), data, Kind.TEXT)
    return pair.source()


def test_what_goes_in_comes_out(pair: Pair) -> None:
    source = fill(pair)
    for data in CHUNKS:
        assert chunk_id(data) in pair.sink
        assert chunk_id(data) in source
        assert source.get(chunk_id(data)) == data


def test_what_was_not_put_in_is_not_there(pair: Pair) -> None:
    source = fill(pair)
    assert chunk_id(b"other") not in source
    with pytest.raises(KeyError):
        source.get(chunk_id(b"other"))


def test_damage_is_never_handed_out(pair: Pair) -> None:
    source = fill(pair)
    name = chunk_id(CHUNKS[1])
    pair.spoil(name)
    with pytest.raises(Damaged):
        source.get(name)
