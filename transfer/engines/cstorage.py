"""What podman, buildah and CRI-O keep on disk (containers/storage with the overlay driver): read only, by root or by the owner.

Beside an image's layers, unpacked, with their tar-split records, its documents are there as they were pulled: index, manifest, config.
Of compressed layers only digest and size are left.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.engines.program import Program
from transfer.engines.tarsplit import SplitLayer
from transfer.errors import EngineError, FormatError, NotFound, TransferError
from transfer.model import Digest
from transfer.streams import parse_json, read_small, sha256

LISTS_MAX = 128 << 20
"""Larger lists of images or layers are refused (bytes)."""
SAVE = "use --via api: then podman is asked for the image"
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DOCUMENT = re.compile(r"(?:manifest-)?(sha256:[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One layer: its own ID, the one below ("" for none), its diffID and size (bytes) uncompressed, in which store it is, and as which blob it came.

    `podman`: runs a program that may read all files of the layer (`podman unshare`); without it this process reads them.
    """

    id: str
    parent: str
    diff_id: Digest
    size: int
    root: Path
    packed: Digest | None = None
    podman: Program | None = field(default=None, compare=False)

    def files(self) -> SplitLayer:
        """Its bytes. NotFound if podman has no record of how they were."""
        record, files = self.root / f"overlay-layers/{self.id}.tar-split.gz", self.root / f"overlay/{self.id}/diff"
        if not record.is_file() or not files.is_dir():
            raise NotFound(f"{record}: layer {self.diff_id} has no files, or no tar-split record")
        return SplitLayer(self.diff_id, record, files, SAVE, podman=self.podman)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image: its ID, its topmost layer's ID, and where its documents are: digests of indexes, manifests and config to files, the newest last."""

    id: str
    layer: str
    documents: dict[Digest, Path] = field(default_factory=dict, hash=False)


class ContainerStorage:
    """A store, and those that it reads from besides (additionalimagestores). Its lists are read once: podman replaces them by rename.

    `podman`: as for its layers.
    """

    def __init__(self, root: Path, also: Sequence[Path] = (), *, podman: Program | None = None) -> None:
        self.root = root
        self.images: dict[str, StoredImage] = {}
        self._layers: dict[str, StoredLayer] = {}
        for place in (*also, root):
            self._layers.update((each.id, each) for each in _layers(place, podman))
            self.images.update((each.id, each) for each in _images(place))

    def document(self, image: StoredImage, digest: Digest) -> bytes | None:
        """One of an image's documents, checked; None if it is not there as its digest says."""
        path = image.documents.get(digest)
        if path is not None:
            with contextlib.suppress(TransferError):
                data = read_small(path)
                if sha256(data) == digest:
                    return data
        return None

    def blobs(self) -> set[Digest]:
        """The digests under which podman finds its layers again: diffIDs, and those of the blobs they came as."""
        found = [(each.diff_id, each.packed) for each in self._layers.values()]
        return {digest for pair in found for digest in pair if digest}

    def layers(self, image: StoredImage, diff_ids: Sequence[Digest]) -> list[StoredLayer]:
        """The image's layers from the lowest. EngineError if they are not those its config names."""
        out: list[StoredLayer] = []
        at = image.layer
        while at:
            layer = self._layers.get(at)
            if layer is None or len(out) > len(diff_ids):
                break
            out.append(layer)
            at = layer.parent
        out.reverse()
        if [each.diff_id for each in out] != list(diff_ids):
            raise EngineError(
                f"{self.root}: image {image.id[:12]} has other layers there than its config says", hint=SAVE
            )
        return out


def _list(path: Path) -> list[dict[str, Any]]:
    """One of the lists, empty where podman has not written one yet; what is no object in it is left out."""
    if path.parent.parent.is_dir() and not path.exists():
        return []
    value = parse_json(read_small(path, LISTS_MAX), str(path), LISTS_MAX)
    if not isinstance(value, list):
        raise FormatError(f"{path} is not a list")
    return [each for each in value if isinstance(each, dict)]


def _layers(root: Path, podman: Program | None) -> Iterator[StoredLayer]:
    """Layers whose diffID is known. One that came in parts has another digest, and podman alone can make a tar of it."""
    for each in _list(root / "overlay-layers/layers.json"):
        name, parent, diff_id, size = (each.get(key) for key in ("id", "parent", "diff-digest", "diff-size"))
        if not isinstance(name, str) or not _ID.fullmatch(name) or type(size) is not int or size < 0:
            continue
        if parent and not (isinstance(parent, str) and _ID.fullmatch(parent)):
            continue
        with contextlib.suppress(FormatError):
            packed = each.get("compressed-diff-digest")
            came = Digest.parse(packed) if packed else None
            yield StoredLayer(name, parent or "", Digest.parse(diff_id), size, root, came, podman)


def _images(root: Path) -> Iterator[StoredImage]:
    for each in _list(root / "overlay-images/images.json"):
        name, layer, data = (each.get(key) for key in ("id", "layer", "big-data-names"))
        if not isinstance(name, str) or not _ID.fullmatch(name):
            continue
        if layer and not (isinstance(layer, str) and _ID.fullmatch(layer)):
            continue
        keys = [key for key in data if isinstance(key, str)] if isinstance(data, list) else []
        found = {Digest(match[1]): key for key in keys if (match := _DOCUMENT.fullmatch(key))}
        yield StoredImage(name, layer or "", {digest: _file(root, name, key) for digest, key in found.items()})


def _file(root: Path, image: str, key: str) -> Path:
    """Where a document is: its name is none of a file's, so that it is encoded (containers/storage, makeBigDataBaseName)."""
    return root / f"overlay-images/{image}" / ("=" + base64.b64encode(key.encode()).decode())
