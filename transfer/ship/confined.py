"""What a receiver with an inbox lets a sender do: the files of bundles, each in a folder of its own, and nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.errors import FormatError, NoSpace, UsageError
from transfer.model import Digest
from transfer.ship.arrival import mark_arrival
from transfer.ship.base import Depot, HeldFile, Traits, split_name

INDEX = "index.json"
_NAMED_BY_CONTENT = re.compile(r"(?:blobs/sha256|recovery)/([0-9a-f]{64})", re.ASCII)
_OTHERS = re.compile(
    r"(?:index\.json|index\.json\.sig|oci-layout|README\.txt|SHA256SUMS|verify\.py|medium\.json|media\.json|recovery\.json)"
)
LAYOUT_MAX = 4096
"""Bytes of an oci-layout."""
LEAST = 4096
"""What a file counts at least against the limit (bytes): empty ones take room too."""


def one_folder(name: str) -> str:
    """The folder of a bundle in an inbox: one plain component. FormatError otherwise."""
    if len(split_name(name)) != 1 or name.startswith("."):
        raise FormatError(f"{name!r:.200} is not a folder name for a bundle", hint="use one name without a leading dot")
    return name


def bundle_file(name: str) -> tuple[str, str]:
    """The folder and the name in it. FormatError for anything but a file that a bundle can have."""
    folder, _, rest = name.partition("/")
    one_folder(folder)
    if not _NAMED_BY_CONTENT.fullmatch(rest) and not _OTHERS.fullmatch(rest):
        raise FormatError(f"{name!r:.200} is not a file of a bundle", hint="this receiver accepts only bundles")
    return folder, rest


class Confined:
    """A depot of which only bundles' files can be seen and written, up to so many bytes in all (`most`; 0: no limit).

    A bundle's finished `index.json` stays as it is, and so does every file that is what its name says. With `only_read` nothing is changed at all.
    """

    def __init__(self, inner: Depot, root: str, most: int = 0, *, only_read: bool = False) -> None:
        self._inner, self._root, self._most, self._only_read = inner, root, most, only_read
        self._used: int | None = None
        self._since = 0

    @property
    def where(self) -> str:
        return self._inner.where

    @property
    def traits(self) -> Traits:
        return self._inner.traits

    def hold(self, folder: str, token: str) -> None:
        self._may_write()
        if not self._inner.list(one_folder(folder)):
            self.count(LEAST)
        self._inner.hold(folder, token)

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        for name in names:
            bundle_file(name)
        return self._inner.stat(names)

    def list(self, folder: str) -> dict[str, int]:
        found = self._inner.list(one_folder(folder))
        return {n: size for n, size in found.items() if _NAMED_BY_CONTENT.fullmatch(n) or _OTHERS.fullmatch(n)}

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        bundle_file(name)
        return self._inner.read(name, offset)

    def parts(self, name: str) -> Sequence[bytes]:
        bundle_file(name)
        return self._inner.parts(name)

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        self._may_write()
        bundle_file(name)
        if offset == 0:
            self._used = None  # others may have sent meanwhile
        self.count(len(data) + (LEAST if offset == 0 else 0))
        self._inner.append(name, data, offset)

    def finish(self, name: str, digest: Digest, size: int) -> None:
        self._may_write()
        _, rest = bundle_file(name)
        content = _NAMED_BY_CONTENT.fullmatch(rest)
        if content and content[1] != digest.hex:
            raise FormatError(f"{name!r:.200}: its name is not its digest, {digest}")
        if size and self._inner.stat([name]) == [None]:
            raise FormatError(f"{name!r:.200}: no data was sent")
        if rest == "oci-layout" and size > LAYOUT_MAX:
            raise FormatError(f"{name!r:.200}: {size} bytes are more than this file may have")
        if rest != INDEX:
            self._inner.finish(name, digest, size)
            return
        with self._one_at_a_time():
            if self._is_finished(name) and self._inner.check(name, digest, size):
                raise UsageError(
                    f"{self.where}/{name} belongs to another bundle", hint="ship the bundle under another name"
                )
            self._inner.finish(name, digest, size)
        mark_arrival(Path(self._root))

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Hold the inbox against its other receivers: between the look and the rename another one could finish its own."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def check(self, name: str, digest: Digest, size: int) -> str:
        bundle_file(name)
        return self._inner.check(name, digest, size)

    def discard(self, name: str) -> None:
        """Only what does not match its name, or is not finished: a sender cannot take away what another one brought."""
        self._may_write()
        _, rest = bundle_file(name)
        content = _NAMED_BY_CONTENT.fullmatch(rest)
        held = self._inner.stat([name])[0]
        if held and held.finished:
            if rest == INDEX or (not content and self._is_finished(f"{name.partition('/')[0]}/{INDEX}")):
                raise UsageError(
                    f"{self.where}/{name} belongs to a finished bundle and is not removed",
                    hint="ship the bundle under another name",
                )
            if content and not self._inner.check(name, Digest(f"sha256:{content[1]}"), held.size):
                return
        self._inner.discard(name)
        self._used = None

    def _is_finished(self, name: str) -> bool:
        held = self._inner.stat([name])[0]
        return bool(held and held.finished)

    def free(self, folder: str) -> int | None:
        found = self._inner.free(one_folder(folder))
        if not self._most:
            return found
        left = max(0, self._most - self._all())
        return left if found is None else min(found, left)

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        self._may_write()
        return self._inner.supply(one_folder(folder), files)

    def close(self) -> None:
        self._inner.close()

    def _may_write(self) -> None:
        if self._only_read:
            raise UsageError(f"{self.where}: this key may only take bundles", hint="ship with the key of an inbox")

    def count(self, size: int) -> None:
        """NoSpace if so many bytes more would be too many. What other connections send is looked at now and then."""
        if not self._most:
            return
        self._since += size
        if self._since > max(1 << 20, self._most >> 6):
            self._used, self._since = None, 0
        used = self._all() + size
        if used > self._most:
            raise NoSpace(
                f"{self.where}: the inbox has reached its limit of {self._most} bytes",
                hint="ask the administrator there to remove imported bundles, or to raise --max-bytes",
            )
        self._used = used

    def _all(self) -> int:
        """Bytes of all files here, counted when first asked for."""
        if self._used is None:
            self._used = 0
            for folder, _, names in os.walk(self._root):
                self._used += LEAST
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # another connection renamed it
                        self._used += max(LEAST, os.lstat(os.path.join(folder, name)).st_size)
        return self._used
