"""What a store has found wrong with itself: files that are damaged, and bundles whose chunks are not what their names say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from transfer.errors import FormatError, TransferError
from transfer.model import Digest
from transfer.streams import publish, read_small

PRIVATE = 0o600
"""What a store makes is for its owner alone: it has the content of images."""
LINES_MAX = 64 << 20


class Marks:
    """Two lists in the store's folder, `damaged` and `disowned`, a line each."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.disowned_now: set[Digest] = set()
        """Bundles that this process has disowned."""

    def damaged(self) -> set[str]:
        """Files that were found wrong (hex of their digests): whoever brings them again replaces them."""
        return set(self._lines("damaged"))

    def _lines(self, name: str) -> list[str]:
        """The lines of a small file of ours; none if it is not there, or is no plain file."""
        with contextlib.suppress(TransferError):
            return read_small(self._root / name, LINES_MAX).decode("ascii", errors="replace").split()
        return []

    def mark_damaged(self, hexes: set[str]) -> None:
        """Remember what is wrong, and nothing else."""
        if hexes != self.damaged():
            self._write("damaged", hexes)

    def disowned(self) -> set[Digest]:
        """Bundles with chunks that are not what their names say: they supply nothing to others any more."""
        out = set()
        for each in self._lines("disowned"):
            with contextlib.suppress(FormatError):
                out.add(Digest.parse(each))
        return out

    def disown(self, digest: Digest) -> None:
        """A chunk of this bundle was found to be another than its name says."""
        with contextlib.suppress(TransferError):
            known = self.disowned()
            if digest not in known:
                self._write("disowned", map(str, known | {digest}))
            self.disowned_now.add(digest)

    def suspect(self, blob: str) -> None:
        """A file was found wrong while it was used."""
        with contextlib.suppress(TransferError):
            self.mark_damaged(self.damaged() | {blob})

    def own_again(self, digest: Digest) -> None:
        """A bundle is forgotten, and with it what was wrong with it."""
        known = self.disowned()
        if digest in known:
            self._write("disowned", map(str, known - {digest}))

    def _write(self, name: str, lines: Iterable[str]) -> None:
        publish(self._root / name, "".join(f"{each}\n" for each in sorted(lines)).encode(), PRIVATE)
