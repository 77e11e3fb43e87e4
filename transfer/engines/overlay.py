"""Docker's own files, read as root: layers put together again from the overlay2 folders and Docker's tar-split records.

Docker keeps a layer unpacked, and beside it what the files alone do not say: every header and all padding, in order
(https://github.com/vbatts/tar-split). `docker save` makes the same bytes out of both, several times slower, through a temporary copy.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.savefile import Layer, made_image
from transfer.engines.savestream import tail
from transfer.engines.tree import diff_ids
from transfer.errors import EngineError, FormatError, TransferError
from transfer.model import OCI_LAYER, Digest, Image
from transfer.streams import BLOCK, IterReader, coalesced, read_small, sha256

ASK = "use --via api: then the daemon is asked for the image"
_MAX_LINE = 16 << 20
"""Longest tar-split record that is read (bytes); one holds the headers between two files."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEGMENT, _FILE = 2, 1


class OverlayImages:
    """The images in one daemon's data folder, by the digests of their configs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images, self._layers = root / "image/overlay2/imagedb/content", root / "image/overlay2/layerdb"

    @staticmethod
    def of(info: Mapping[str, Any]) -> OverlayImages | None:
        """Those of the daemon that says this of itself, if its files are here and this process may read all of them."""
        root = Path(str(info.get("DockerRootDir") or "/nowhere"))
        found = OverlayImages(root)
        readable = info.get("Driver") == "overlay2" and os.geteuid() == 0 and root.is_absolute()
        return found if readable and found._layers.is_dir() and (root / "overlay2").is_dir() else None

    def lacks(self, found: Sequence[ResolvedImage]) -> str:
        """Why these images cannot be read here; "" if they can, as far as can be seen without reading them."""
        try:
            for each in found:
                for chain, diff_id in self._chain(each.id):
                    self._layer(chain, diff_id)
        except TransferError as error:
            return error.message
        return ""

    def read(self, found: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        """Each image's config, then its layers; every blob once. A layer's digest is its diffID."""
        seen: set[Digest] = set()
        for each in found:
            config = self._config(each.id)
            yield BlobStream(True, partial(tail, config), each.id, len(config))
            for chain, diff_id in self._chain(each.id):
                if diff_id not in seen:
                    seen.add(diff_id)
                    layer = self._layer(chain, diff_id)
                    yield BlobStream(False, partial(_opened, layer), diff_id, None, OCI_LAYER, diff_id)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images, with manifests made as for the same images out of `docker save`, and added to `documents`."""
        out = []
        for each in found:
            layers = [Layer(digest, sizes[digest]) for digest in diff_ids(documents[each.id], str(each.id))]
            out.append(made_image(each, layers, documents, str(each.id)))
        return out

    def _config(self, digest: Digest) -> bytes:
        return read_small(self._images / digest.algorithm / digest.hex)

    def _chain(self, config: Digest) -> Iterator[tuple[Digest, Digest]]:
        """The image's layers from the lowest: chain ID (image-spec, config.md) and diffID."""
        chain = ""
        for diff_id in diff_ids(self._config(config), str(config)):
            chain = str(sha256(f"{chain} {diff_id}".encode())) if chain else str(diff_id)
            yield Digest(chain), diff_id

    def _layer(self, chain: Digest, diff_id: Digest) -> _Layer:
        """FormatError or NotResolvedImage if the daemon's records are not as they are known here."""
        record = self._layers / chain.algorithm / chain.hex
        name = read_small(record / "cache-id").decode("ascii", "replace")
        if read_small(record / "diff").decode("ascii", "replace") != str(diff_id) or not name.isalnum():
            raise FormatError(f"{record}: does not belong to layer {diff_id}")
        files, split = self.root / "overlay2" / name / "diff", record / "tar-split.json.gz"
        if not files.is_dir() or not split.is_file():
            raise FormatError(f"{record}: layer {diff_id} has no files, or no tar-split record")
        return _Layer(diff_id, split, files)


def _opened(layer: _Layer, start: int) -> IterReader:
    """A layer from its start: it is put together on the way."""
    return IterReader(layer.blocks())


class _Layer:
    """One layer: its record of headers, and the folder of its files."""

    def __init__(self, digest: Digest, record: Path, files: Path) -> None:
        self._digest, self._record, self._files = digest, record, files

    def blocks(self) -> Iterator[bytes]:
        """The layer's tar, about a MiB at a time. EngineError if a record or a file is not what it was when Docker unpacked it."""
        with contextlib.closing(_Folders(self._files)) as folders:
            try:
                yield from coalesced(part for entry in self._entries() for part in _parts(entry, folders))
            except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
                raise EngineError(
                    f"{self._files}: layer {self._digest} cannot be put together again: {error}", hint=ASK
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
