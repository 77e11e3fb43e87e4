"""The images of a containers/storage as they travel: as they were pulled where their layers can be had as they were, else with a manifest made for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from transfer.chunks.deflate import REMADE, can_remake, remade
from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.cstorage import ContainerStorage, StoredImage, StoredLayer
from transfer.engines.savefile import Layer, made_image
from transfer.engines.savestream import tail
from transfer.engines.tree import Tree, described, diff_ids, image_of, walk
from transfer.errors import FormatError, NotFound, TransferError
from transfer.events import Noted, Observer, silent
from transfer.model import OCI_LAYER, Descriptor, Digest, Image
from transfer.streams import IterReader


class PodmanImages:
    """One store's images, by the digests of their configs."""

    def __init__(self, storage: ContainerStorage, *, remake: bool = True, observer: Observer = silent) -> None:
        """`remake`: gzip layers are made again of their plain bytes, where that gives the bytes that they were."""
        self._storage, self._remake, self._observer = storage, remake, observer
        self.root = storage.root
        self._trees: dict[Digest, Tree] = {}
        self._encoders: dict[Digest, int] = {}

    def count(self, id: Digest) -> int:
        """How many layers an image has."""
        try:
            image = self._image(id)
            return len(diff_ids(self._config(image, id), str(id)))
        except TransferError:
            return 0

    def _image(self, id: Digest) -> StoredImage:
        image = self._storage.images.get(id.hex)
        if image is None:
            raise NotFound(f"{self.root} does not have image {id.short}")
        return image

    def _config(self, image: StoredImage, id: Digest) -> bytes:
        data = self._storage.document(image, id)
        if data is None:
            raise NotFound(f"{self.root}: image {id.short} has no config there")
        return data

    def _layers(self, id: Digest) -> list[StoredLayer]:
        image = self._image(id)
        return self._storage.layers(image, diff_ids(self._config(image, id), str(id)))

    def resolved(self, id: Digest, names: tuple[str, ...]) -> ResolvedImage:
        """The image as it will travel. NotFound or EngineError if its layers cannot be had here."""
        layers = self._layers(id)
        for each in layers:
            each.files()
        label = names[0] if names else id.short
        found = self._original(id, layers, label)
        if found:
            root, blobs = found
            known = tuple((each.digest, each.size) for each in blobs)
            return ResolvedImage(names, id, sum(size for _, size in known), known, root)
        note = (
            f"{label}: podman keeps no compressed layers, and they could not be made again as they were: "
            "the manifest is made anew, and its digest is another"
        )
        known = tuple((each.diff_id, each.size) for each in layers)
        return ResolvedImage(names, id, sum(each.size for each in layers), known, None, None, (note,))

    def _original(
        self, id: Digest, layers: Sequence[StoredLayer], label: str
    ) -> tuple[Descriptor, tuple[Descriptor, ...]] | None:
        """The index, else the manifest, with which the image came, if its layers can be had as that names them; and those."""
        image = self._image(id)
        for root in self._roots(image, id):
            tree = walk(root, partial(self._document, image))
            if len(tree.manifests) != 1 or tree.manifests[0].config.digest != id:
                continue
            blobs = tree.manifests[0].layers
            if len(blobs) == len(layers) and self._has_all(list(zip(blobs, layers, strict=True)), label):
                self._trees[root.digest] = tree
                return root, blobs
        return None

    def _roots(self, image: StoredImage, id: Digest) -> list[Descriptor]:
        """Indexes, then manifests."""
        roots: list[Descriptor] = []
        for digest in image.documents:
            data = self._storage.document(image, digest)
            if data is None or digest == id:
                continue
            found = described(data, digest)
            roots.insert(0 if found.is_index else len(roots), found)
        return roots

    def _has_all(self, pairs: Sequence[tuple[Descriptor, StoredLayer]], label: str) -> bool:
        """Whether each layer is plain, or is a gzip stream that can be made again. The smallest is tried first."""
        packed = [pair for pair in pairs if pair[0].digest != pair[1].diff_id]
        if not packed or not self._remake or not can_remake():
            return not packed
        if not all(each.media_type.endswith("gzip") for each, _ in packed):
            return False
        self._observer(Noted(f"{label}: making its gzip layers again, to keep its digest; --via files does without"))
        return all(self._encoder(blob, layer) for blob, layer in sorted(packed, key=lambda pair: pair[0].size))

    def _encoder(self, blob: Descriptor, layer: StoredLayer) -> int:
        """The encoder that makes exactly this blob of the layer; 0 for none that is known."""
        if blob.digest not in self._encoders:
            likely = sorted(REMADE, key=lambda each: each not in self._encoders.values())
            self._encoders[blob.digest] = next((each for each in likely if _makes(each, blob, layer)), 0)
        return self._encoders[blob.digest]

    def _document(self, image: StoredImage, descriptor: Descriptor) -> bytes | None:
        return self._storage.document(image, descriptor.digest)

    def read(self, found: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        """Each image's documents, then its layers; every blob once."""
        seen: set[Digest] = set()
        for each in found:
            image = self._image(each.id)
            for digest in [one.digest for one in self._trees[each.root.digest].documents] if each.root else [each.id]:
                if digest not in seen:
                    seen.add(digest)
                    data = self._storage.document(image, digest) or b""
                    yield BlobStream(True, partial(tail, data), digest, len(data))
            yield from self._layer_streams(each, seen)

    def _layer_streams(self, image: ResolvedImage, seen: set[Digest]) -> Iterator[BlobStream]:
        layers = self._layers(image.id)
        blobs = self._trees[image.root.digest].manifests[0].layers if image.root else [None] * len(layers)
        for blob, layer in zip(blobs, layers, strict=True):
            digest = blob.digest if blob else layer.diff_id
            if digest in seen:
                continue
            seen.add(digest)
            if blob and digest != layer.diff_id:
                opened = partial(_remade, layer, self._encoders[digest])
                yield BlobStream(False, opened, digest, blob.size, blob.media_type, layer.diff_id)
            else:
                yield BlobStream(False, layer.files().opened, layer.diff_id, layer.size, OCI_LAYER, layer.diff_id)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images, with a manifest made for those that lost theirs, and added to `documents`."""
        out = []
        for each in found:
            if each.root:
                out.append(image_of(each.names, each.root, self._trees[each.root.digest]))
                continue
            layers = [Layer(digest, sizes[digest]) for digest in diff_ids(documents[each.id], str(each.id))]
            out.append(made_image(each, layers, documents, str(each.id)))
        return out


def _remade(layer: StoredLayer, encoder: int, start: int) -> IterReader:
    """A gzip layer from its start: it is made on the way."""
    return IterReader(part for part in remade(layer.files().blocks(), encoder) if part)


def _makes(encoder: int, blob: Descriptor, layer: StoredLayer) -> bool:
    """Whether an encoder makes exactly this blob."""
    hasher, size = hashlib.new(blob.digest.algorithm), 0
    try:
        for part in remade(layer.files().blocks(), encoder):
            hasher.update(part)
            size += len(part)
            if size > blob.size:
                return False
    except FormatError:
        return False
    return size == blob.size and hasher.hexdigest() == blob.digest.hex
