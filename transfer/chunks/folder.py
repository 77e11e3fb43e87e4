"""Chunks in a folder of packs, found by reading the packs themselves: no catalog is needed and none is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.chunks.frame import FrameHeader, decode_frame
from transfer.chunks.name import Kind, chunk_id
from transfer.chunks.pack import FrameLocation, Gap, read_packed, scan, sound
from transfer.errors import Damaged
from transfer.model import ChunkId
from transfer.streams import open_plain
from transfer.work import Pool, ordered_map

_DECODED = 3
"""Frames whose chunks stay in memory: as many as a patched one builds on."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame that was found whole: where it is, and the chunks in it, names end to end (32 bytes each)."""

    path: Path
    placed: FrameLocation
    names: bytes


class FolderChunks:
    """The chunks of every sound frame in some pack files. Each was decoded and named anew when found."""

    def __init__(
        self,
        packs: Iterable[Path],
        pool: Pool,
        older: Callable[[Sequence[ChunkId]], bytes | None] | None = None,
    ) -> None:
        """`older` gives the bytes of chunks that lie elsewhere, end to end, for frames patched against them."""
        self._older = older
        self.frames: dict[bytes, Kept] = {}
        self._where: dict[ChunkId, tuple[Kept, int]] = {}
        self._last: list[tuple[Kept, list[bytes]]] = []
        found = [(path, each) for path in packs for each in scan(path) if not isinstance(each, Gap)]
        plain = [item for item in found if not item[1].header.prefix]
        for some in (plain, [item for item in found if item[1].header.prefix]):
            for kept in ordered_map(lambda item: self._examine(*item), iter(some), pool, 3):
                if kept:
                    self._adopt(kept)

    def _adopt(self, kept: Kept) -> None:
        self.frames.setdefault(kept.names, kept)
        for index in range(len(kept.placed.header.sizes)):
            name = ChunkId(kept.names[index * 32 : index * 32 + 32])
            self._where.setdefault(name, (kept, index))

    def __contains__(self, name: ChunkId) -> bool:
        return name in self._where

    def __len__(self) -> int:
        return len(self._where)

    def get(self, name: ChunkId) -> bytes:
        kept, index = self._where[name]
        chunks = next((chunks for each, chunks in self._last if each is kept), None)
        if chunks is None:
            chunks = list(self._decode(kept.path, kept.placed))
            self._last = [(kept, chunks), *self._last[: _DECODED - 1]]
        data = chunks[index]
        if chunk_id(data) != name:
            raise Damaged(f"{kept.path}: a chunk changed while it was in use")
        return data

    def packed(self, names: bytes) -> tuple[FrameHeader, bytes] | None:
        """The frame that holds exactly these chunks in this order, compressed as it is; None if there is none."""
        kept = self.frames.get(names)
        if not kept:
            return None
        try:
            with open_plain(kept.path) as file:
                packed = read_packed(file.fileno(), kept.placed, str(kept.path))
        except Damaged:
            return None
        header = kept.placed.header
        return (header, packed) if sound(header, packed) else None

    def _decode(self, path: Path, placed: FrameLocation) -> Iterator[bytes]:
        prefix = self._prefix(placed.header.prefix)
        if prefix is None:
            raise Damaged(f"{path}: a frame depends on chunks that are missing")
        with open_plain(path) as file:
            packed = read_packed(file.fileno(), placed, str(path))
        yield from decode_frame(placed.header, packed, str(path), prefix)

    def _prefix(self, names: Sequence[ChunkId]) -> bytes | None:
        """The bytes of these chunks: of this folder, or all from elsewhere."""
        if all(name in self._where for name in names):
            return b"".join(map(self.get, names))
        return self._older(names) if self._older else None

    def _examine(self, path: Path, placed: FrameLocation) -> Kept | None:
        """The frame, if it is sound and holds content (not a catalog)."""
        if placed.header.kind == Kind.CATALOG:
            return None
        try:
            return Kept(path, placed, b"".join(map(chunk_id, self._decode(path, placed))))
        except Damaged:
            return None
