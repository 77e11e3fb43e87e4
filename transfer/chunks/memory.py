"""Chunks in memory: the smallest source and sink there is."""

from __future__ import annotations

from transfer.chunks.name import Kind, chunk_id
from transfer.errors import Damaged
from transfer.model import ChunkId


class MemoryChunks:
    """A dict of chunks."""

    def __init__(self) -> None:
        self._chunks: dict[ChunkId, bytes] = {}

    def __contains__(self, name: ChunkId) -> bool:
        return name in self._chunks

    def __len__(self) -> int:
        return len(self._chunks)

    def get(self, name: ChunkId) -> bytes:
        data = self._chunks[name]
        if chunk_id(data) != name:
            raise Damaged(f"chunk {name.hex()[:12]} in memory does not match its name")
        return data

    def add(
        self, name: ChunkId, data: bytes | memoryview, kind: Kind, partners: tuple[int, ...] = (), offset: int = 0
    ) -> None:
        self._chunks.setdefault(name, bytes(data))
