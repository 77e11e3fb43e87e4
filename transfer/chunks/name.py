"""What a chunk is called, what kind of bytes it holds, and where chunks come from and go to."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from blake3 import blake3

from transfer.model import ChunkId

CHUNK_MAX = 4 << 20
"""Largest chunk (bytes). A file up to this size is one chunk; a larger one is cut by content."""

ID_SIZE = 32

NO_PARTNER = -1


class Kind(IntEnum):
    """Which bytes compress well together. The numbers are part of the bundle format; from 100 on they are this writer's own."""

    SKELETON = 0
    ELF = 1
    TEXT = 2
    BYTECODE = 3
    ARCHIVE = 4
    OTHER = 5
    CATALOG = 6
    RESIDUAL = 7
    GO = 100


def stored_kind(kind: Kind) -> Kind:
    """A kind as it is in a bundle: what this writer tells apart besides is one of the format's kinds."""
    return Kind.ELF if kind == Kind.GO else kind


class ChunkSource(Protocol):
    """Where chunks are found."""

    def __contains__(self, name: ChunkId) -> bool: ...

    def get(self, name: ChunkId) -> bytes:
        """The chunk's bytes, checked against its name. KeyError if absent, Damaged if they differ."""
        ...


class ChunkSink(Protocol):
    """Where chunks go."""

    def __contains__(self, name: ChunkId) -> bool: ...

    def add(
        self, name: ChunkId, data: bytes | memoryview, kind: Kind, partners: tuple[int, ...] = (), offset: int = 0
    ) -> None:
        """Take a copy of a chunk; one that is there already is not taken twice.

        `partners` are the numbers of the older chunks it is a version of, for sinks that patch against a base. `offset` is where in its
        file it stands (bytes).
        """
        ...


def chunk_id(data: bytes | memoryview) -> ChunkId:
    """BLAKE3-256 (https://github.com/BLAKE3-team/BLAKE3-specs)."""
    return ChunkId(blake3(data).digest())


def split_names(names: bytes) -> list[bytes]:
    """Names given end to end, one by one."""
    return [names[at : at + ID_SIZE] for at in range(0, len(names), ID_SIZE)]


_TEXT = bytes(range(32, 127)) + b"\t\n\r\f\b\x1b" + bytes(range(128, 256))
_ELF = b"\x7fELF"
_GO_NOTE, _NOTES = b"\x04\0\0\0Go\0\0", 8192
"""What Go's linker writes into a note of each program, and where notes are looked for (bytes)."""
_PACKED = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"BZh",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"wOF2",
    b"!<arch>",
    b"7z\xbc\xaf",
)
_MAGIC = {_ELF: Kind.ELF, b"\xca\xfe\xba\xbe": Kind.BYTECODE, **dict.fromkeys(_PACKED, Kind.ARCHIVE)}
_FIRST = frozenset(magic[:1] for magic in _MAGIC)
"""Most files begin with none of these bytes, which is quickly seen."""


def kind_of(path: bytes, head: bytes | memoryview) -> Kind:
    """The kind of a file's chunks, from its path in the layer and its first bytes."""
    start = bytes(head[:256])
    if path.endswith(b".pyc"):
        return Kind.ELF if start.startswith(_ELF) else Kind.BYTECODE
    if start[:1] in _FIRST:
        for magic, kind in _MAGIC.items():
            if start.startswith(magic):
                return Kind.GO if kind == Kind.ELF and _GO_NOTE in bytes(head[:_NOTES]) else kind
    return Kind.OTHER if start.translate(None, _TEXT) else Kind.TEXT
