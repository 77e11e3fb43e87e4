"""Layers put together again from the folders in which an engine keeps them unpacked, and from its tar-split records.

Beside the files an engine keeps what they alone do not say: every header and all padding, in order (https://github.com/vbatts/tar-split).
Docker does with overlay2, and so does podman (containers/storage).
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transfer.engines.program import Program, own_module
from transfer.errors import EngineError, TransferError
from transfer.model import Digest
from transfer.streams import BLOCK, IterReader, coalesced

_MAX_LINE = 16 << 20
"""Longest tar-split record that is read (bytes); one holds the headers between two files."""
SAID = "transfer: "
"""What comes before the complaint of this module as a program of its own."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEGMENT, _FILE = 2, 1


class SplitLayer:
    """One layer: its record of headers, and the folder of its files. `hint`: what else can be done where that fails.

    `podman`: has this done in a user namespace (podman-unshare(1)); without it this process reads the files.
    """

    def __init__(self, digest: Digest, record: Path, files: Path, hint: str, *, podman: Program | None = None) -> None:
        self._digest, self._record, self._files, self._hint, self._podman = digest, record, files, hint, podman

    def opened(self, start: int) -> IterReader:
        """The layer from its start: it is put together on the way."""
        return IterReader(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The layer's tar, about a MiB at a time. EngineError if a record or a file is not what it was when the engine unpacked it."""
        if self._podman:
            words = own_module(__name__, str(self._digest), str(self._record), str(self._files))
            try:
                yield from self._podman.blocks("unshare", *words)
            except EngineError as error:
                raise EngineError(error.message.rpartition(SAID)[2], hint=self._hint) from error
            return
        with contextlib.closing(_Folders(self._files)) as folders:
            try:
                yield from coalesced(part for entry in self._entries() for part in _parts(entry, folders))
            except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
                raise EngineError(
                    f"{self._files}: layer {self._digest} cannot be put together again: {error}", hint=self._hint
                ) from error

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The record's lines, decompressed as they are used."""
        inflate = zlib.decompressobj(wbits=31)
        with self._record.open("rb") as file:
            rest = b""
            while data := inflate.unconsumed_tail or file.read(BLOCK):
                *lines, rest = (rest + inflate.decompress(data, BLOCK)).split(b"\n")
                yield from map(json.loads, filter(None, lines))
                if len(rest) > _MAX_LINE:
                    raise ValueError("a tar-split record without end")
            if rest.strip() or not inflate.eof:
                raise ValueError("the tar-split record is cut short")


def _parts(entry: Mapping[str, Any], folders: _Folders) -> Iterator[bytes]:
    """What one tar-split entry stands for: headers and padding as they are, or a file's content."""
    if entry["type"] == _SEGMENT:
        yield binascii.a2b_base64(entry["payload"])
    elif entry["type"] != _FILE:
        raise ValueError(f"a tar-split record of type {entry['type']!r:.20}")
    elif size := int(entry.get("size") or 0):
        raw = entry.get("name_raw")
        name = binascii.a2b_base64(raw) if raw else os.fsencode(entry["name"])
        yield from folders.content(name, size)


class _Folders:
    """A layer's folder. No name leads out of it and no link is followed: each step is opened on its own."""

    def __init__(self, root: Path) -> None:
        self._open: list[tuple[bytes, int]] = [(b"", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]
        self._at = b""

    def content(self, name: bytes, size: int) -> Iterator[bytes]:
        """A file's first `size` bytes. ValueError if it has fewer, OSError if it is not there or behind a link."""
        folder, _, base = name.rpartition(b"/")
        if folder != self._at:
            self._enter(folder)
        fd = os.open(base, _OPEN, dir_fd=self._open[-1][1])
        try:
            while size:
                data = os.read(fd, min(size, BLOCK))
                if not data:
                    raise ValueError(f"{name!r:.200} is {size} bytes short")
                yield data
                size -= len(data)
        finally:
            os.close(fd)

    def _enter(self, folder: bytes) -> None:
        """Go to the file's folder, keeping open what both ways have in common."""
        steps = [step for step in folder.split(b"/") if step not in (b"", b".")]
        if b".." in steps:
            raise ValueError(f"{folder!r:.200} leads out of the layer")
        common = 0
        while common < min(len(steps), len(self._open) - 1) and self._open[common + 1][0] == steps[common]:
            common += 1
        self._leave(common + 1)
        for step in steps[common:]:
            below = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._open[-1][1])
            self._open.append((step, below))
        self._at = folder

    def _leave(self, keep: int) -> None:
        self._at = b"\0"
        while len(self._open) > keep:
            os.close(self._open.pop()[1])

    def close(self) -> None:
        self._leave(0)


def main(digest: str, record: str, files: str) -> int:
    """Write a layer's tar to standard output: this module as a program of its own, in a user namespace of podman's."""
    try:
        for block in SplitLayer(Digest.parse(digest), Path(record), Path(files), "").blocks():
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    except TransferError as error:
        sys.stderr.write(f"{SAID}{error.message}\n")
        return error.exit_code
    except BrokenPipeError:
        os._exit(0)  # whoever reads has seen enough; nothing is flushed
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
