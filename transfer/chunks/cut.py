"""Pieces become named chunks and a recipe. Small files are one chunk; big ones are cut where their content says."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from pyfastcdc import FastCDC

from transfer.chunks.layer import Piece
from transfer.chunks.name import CHUNK_MAX, ChunkSink, Kind, chunk_id, kind_of
from transfer.chunks.patch import DeltaMatcher
from transfer.model import Part

CDC_AVERAGE, CDC_MIN, CDC_MAX = 1 << 20, 256 << 10, CHUNK_MAX
PART_CHUNKS = 1 << 18
"""A recipe is divided into parts of this many payload chunks, so that no record grows without bound."""


def _cutter() -> FastCDC:
    return FastCDC(CDC_AVERAGE, min_size=CDC_MIN, max_size=CDC_MAX, normalized_chunking=1)


class _BigFile:
    """One big file on its way: holds back what may still belong to the next chunk."""

    def __init__(self, piece: Piece) -> None:
        self.kind = kind_of(piece.path, piece.data)
        self.path, self.size = piece.path, piece.size
        self.done = 0
        self._held: list[bytes | memoryview] = []
        self._size = 0
        self._cdc = _cutter()

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Chunks that are final: where one ends is decided by its own bytes, so only that which ends with what is here may still grow."""
        self._held.append(data)
        self._size += len(data)
        if self._size >= 3 * CDC_MAX:
            yield from self._cut(last=False)

    def finish(self) -> Iterator[memoryview]:
        """The rest."""
        yield from self._cut(last=True)

    def _cut(self, *, last: bool) -> Iterator[memoryview]:
        joined = b"".join(self._held)
        whole, done = memoryview(joined), 0
        for found in self._cdc.cut_buf(joined):
            if not last and found.offset + found.length == len(joined):
                break
            done = found.offset + found.length
            yield whole[found.offset : done]
            self.done += found.length
        self._held = [joined[done:]] if done < len(joined) else []
        self._size = len(joined) - done


class Cutter:
    """Turns the pieces of one blob into chunks in a sink and the parts of its recipe. `pairing` finds their partners in a base."""

    def __init__(self, sink: ChunkSink, pairing: DeltaMatcher | None = None) -> None:
        self._sink, self._pairing = sink, pairing
        if pairing:
            pairing.begin_blob()
        self._skeleton = bytearray()
        self._skeleton_ids = bytearray()
        self._payload_ids = bytearray()
        self._gaps: array[int] = array("Q")
        self._gap = 0
        self._parts: list[Part] = []

    def cut(self, pieces: Iterable[Piece]) -> tuple[Part, ...]:
        """All of one blob; gives the recipe's parts."""
        growing: _BigFile | None = None
        for piece in pieces:
            if growing and piece.offset == 0:
                self._add_all(growing.finish(), growing)
                growing = None
            self._frame(piece.skeleton)
            if not piece.data:
                continue
            if 0 < piece.size <= CHUNK_MAX:
                self._add(piece.data, kind_of(piece.path, piece.data), piece.path, piece.size, 0)
                continue
            if growing is None:
                growing = _BigFile(piece)
            self._add_all(growing.feed(piece.data), growing)
        if growing:
            self._add_all(growing.finish(), growing)
        self._end_part()
        return tuple(self._parts)

    def _frame(self, data: bytes) -> None:
        if not data:
            return
        self._gap += len(data)
        self._skeleton += data
        while len(self._skeleton) >= CHUNK_MAX:
            self._flush_skeleton(CHUNK_MAX)

    def _flush_skeleton(self, size: int) -> None:
        data = bytes(self._skeleton[:size])
        del self._skeleton[:size]
        name = chunk_id(data)
        self._skeleton_ids += name
        partners = () if self._pairing is None else self._pairing.skeleton()
        self._sink.add(name, data, Kind.SKELETON, partners)

    def _add_all(self, chunks: Iterable[memoryview], file: _BigFile) -> None:
        for data in chunks:
            self._add(data, file.kind, file.path, file.size, file.done)

    def _add(self, data: bytes | memoryview, kind: Kind, path: bytes, size: int, offset: int) -> None:
        name = chunk_id(data)
        if self._pairing is None:
            self._sink.add(name, data, kind, (), offset)
        elif name in self._sink:
            self._pairing.known(name, path, offset)
        else:
            self._sink.add(name, data, kind, self._pairing.partners(path, size, offset, len(data)), offset)
        self._payload_ids += name
        self._gaps.append(self._gap)
        self._gap = 0
        if len(self._gaps) >= PART_CHUNKS:
            self._end_part()

    def _end_part(self) -> None:
        if self._skeleton:
            self._flush_skeleton(len(self._skeleton))
        if self._gap or self._payload_ids or self._skeleton_ids:
            self._gaps.append(self._gap)
            self._parts.append(Part(bytes(self._skeleton_ids), bytes(self._payload_ids), self._gaps))
        self._skeleton_ids.clear()
        self._payload_ids.clear()
        self._gaps, self._gap = array("Q"), 0
