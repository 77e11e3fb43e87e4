"""Docker's own files, read as root: layers put together again from the overlay2 folders and Docker's tar-split records.

`docker save` makes the same bytes out of both, several times slower, through a temporary copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.savefile import Layer, made_image
from transfer.engines.savestream import tail
from transfer.engines.tarsplit import SplitLayer
from transfer.engines.tree import diff_ids
from transfer.errors import FormatError, TransferError
from transfer.model import OCI_LAYER, Digest, Image
from transfer.streams import read_small, sha256

ASK = "use --via api: then the daemon is asked for the image"


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
                    yield BlobStream(False, layer.opened, diff_id, None, OCI_LAYER, diff_id)

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

    def _layer(self, chain: Digest, diff_id: Digest) -> SplitLayer:
        """FormatError or NotResolvedImage if the daemon's records are not as they are known here."""
        record = self._layers / chain.algorithm / chain.hex
        name = read_small(record / "cache-id").decode("ascii", "replace")
        if read_small(record / "diff").decode("ascii", "replace") != str(diff_id) or not name.isalnum():
            raise FormatError(f"{record}: does not belong to layer {diff_id}")
        files, split = self.root / "overlay2" / name / "diff", record / "tar-split.json.gz"
        if not files.is_dir() or not split.is_file():
            raise FormatError(f"{record}: layer {diff_id} has no files, or no tar-split record")
        return SplitLayer(diff_id, split, files, ASK)
