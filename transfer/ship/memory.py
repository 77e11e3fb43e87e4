"""A depot in memory: what the contract means, in the fewest lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from transfer.chunks.name import chunk_id
from transfer.errors import FormatError, NotFound
from transfer.model import Digest
from transfer.ship.base import PART, WRONG_CONTENT, HeldFile, Traits, damaged, split_name, wrong_size


class MemoryDepot:
    """Finished files and unfinished ones in two dicts. Several depots over the same dicts are the same place."""

    def __init__(self, finished: dict[str, bytes] | None = None, growing: dict[str, bytearray] | None = None) -> None:
        self.finished = {} if finished is None else finished
        self.growing = {} if growing is None else growing
        self.where = "memory"
        self.traits = Traits(durable_finish=False)

    def hold(self, folder: str, token: str) -> None:
        split_name(folder)

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        return [self._stat(name) for name in names]

    def _stat(self, name: str) -> HeldFile | None:
        split_name(name)
        if name in self.finished:
            return HeldFile(len(self.finished[name]), True)
        return HeldFile(len(self.growing[name]), False) if name in self.growing else None

    def list(self, folder: str) -> dict[str, int]:
        under = "/".join(split_name(folder)) + "/"
        return {name.removeprefix(under): len(data) for name, data in self.finished.items() if name.startswith(under)}

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        split_name(name)
        if name not in self.finished:
            raise NotFound(f"{self.where}/{name} is not there")
        return (self.finished[name][at : at + PART] for at in range(offset, len(self.finished[name]), PART))

    def parts(self, name: str) -> Sequence[bytes]:
        split_name(name)
        held = self.growing.get(name, bytearray())
        return [chunk_id(bytes(held[at : at + PART])) for at in range(0, len(held), PART)]

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        split_name(name)
        held = self.growing.setdefault(name, bytearray())
        if offset > len(held):
            raise FormatError(f"{self.where}/{name}: bytes at {offset}, beyond its end at {len(held)}")
        held[offset:] = data

    def finish(self, name: str, digest: Digest, size: int) -> None:
        split_name(name)
        held = bytes(self.growing.get(name, b""))
        why = self._fault(held, digest, size)
        if why:
            raise damaged(self.where, name, why)
        self.finished[name] = held
        self.growing.pop(name, None)

    def check(self, name: str, digest: Digest, size: int) -> str:
        split_name(name)
        return self._fault(self.finished[name], digest, size) if name in self.finished else "it is not there"

    def _fault(self, data: bytes, digest: Digest, size: int) -> str:
        right = hashlib.new(digest.algorithm, data).hexdigest() == digest.hex
        return wrong_size("", len(data), size) or ("" if right else WRONG_CONTENT)

    def discard(self, name: str) -> None:
        split_name(name)
        self.finished.pop(name, None)
        self.growing.pop(name, None)

    def free(self, folder: str) -> int | None:
        return None

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        return 0

    def close(self) -> None:
        pass
