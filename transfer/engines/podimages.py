"""The images of a containers/storage as they travel: as they were pulled where their layers can be had as they were, else with a manifest made for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.cstorage import ContainerStorage, StoredImage, StoredLayer
from transfer.engines.savefile import Layer, made_image
from transfer.engines.savestream import tail
from transfer.engines.tree import Tree, diff_ids, image_of, walk
from transfer.errors import NotFound, TransferError
from transfer.model import OCI_LAYER, Descriptor, Digest, Image
from transfer.streams import parse_object


class PodmanImages:
    """One store's images, by the digests of their configs."""

    def __init__(self, where: str, storage: ContainerStorage) -> None:
        self._where, self._storage = where, storage
        self.root = storage.root
        self._trees: dict[Digest, Tree] = {}

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

    def resolved(self, id: Digest, names: tuple[str, ...], size: int) -> ResolvedImage:
        """The image as it will travel. NotFound or EngineError if its layers cannot be had here."""
        layers = self._layers(id)
        for each in layers:
            each.files()
        plain = {each.diff_id: each.size for each in layers}
        known = tuple((each.diff_id, each.size) for each in layers)
        whole = sum(plain.values())
        root = self._original(id, plain)
        if root:
            return ResolvedImage(names, id, whole, known, root)
        label = names[0] if names else id.short
        note = f"{label}: podman keeps no compressed layers, so the manifest is made anew and its digest is another"
        return ResolvedImage(names, id, whole, known, None, None, (note,))

    def _original(self, id: Digest, plain: Mapping[Digest, int]) -> Descriptor | None:
        """The index, else the manifest, with which the image came, if its layers are here as that names them."""
        image = self._image(id)
        roots: list[Descriptor] = []
        manifests: dict[Digest, Descriptor] = {}
        for digest in image.documents:
            data = self._storage.document(image, digest)
            if data is None or digest == id:
                continue
            value = parse_object(data, str(digest))
            kind = "application/vnd.oci.image." + ("index" if "manifests" in value else "manifest") + ".v1+json"
            found = Descriptor.parse(
                {"mediaType": value.get("mediaType") or kind, "digest": str(digest), "size": len(data)}, str(digest)
            )
            if found.is_index:
                roots.insert(0, found)
            else:
                roots.append(found)
                manifests[digest] = found
        for root in roots:
            tree = walk(root, partial(self._document, image))
            of_it = [each for each in tree.manifests if each.config.digest == id]
            if len(tree.manifests) == len(of_it) == 1 and all(
                plain.get(each.digest) == each.size for each in of_it[0].layers
            ):
                self._trees[root.digest] = tree
                return root
        return None

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
            for layer in self._layers(each.id):
                if layer.diff_id not in seen:
                    seen.add(layer.diff_id)
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
