"""The archive that `docker load` and its like take, without the layers the engine has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from transfer.engines.base import Content
from transfer.engines.index import LAYOUT, name_annotations
from transfer.engines.tree import PlatformImage
from transfer.model import OCI_INDEX, Descriptor, Image, blob_path
from transfer.streams import canonical_json
from transfer.tarfmt import RECORD, make_header, member, padding


class ThinArchive:
    """OCI layout and manifest.json at once, with only the layers that are to be sent.

    `whole`: the image as it is, index and all platforms (containerd store); else one platform's manifest. Without `chosen` it is an OCI
    layout alone, and without `docker` too. Layers are sent within `sending`; `before_end` is called before what tells the engine that the archive is whole.
    """

    def __init__(
        self,
        image: Image,
        chosen: PlatformImage | None,
        names: Sequence[str],
        content: Content,
        layers: Sequence[Descriptor],
        *,
        whole: bool,
        sending: contextlib.AbstractContextManager[object],
        before_end: Callable[[], None],
        docker: bool = True,
    ) -> None:
        part = None if whole else chosen
        root = part.manifest if part else image.root
        documents = (part.manifest.digest, part.config.digest) if part else image.documents
        entry = Descriptor(root.media_type, root.digest, root.size).as_json()
        entries = [{**entry, "annotations": name_annotations(name)} for name in names] or [entry]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self._before = [(blob_path(digest), content.document(digest)) for digest in documents]
        self._after = [("index.json", canonical_json(index)), ("oci-layout", LAYOUT)]
        if chosen and docker:
            saved = {
                "Config": blob_path(chosen.config.digest),
                "RepoTags": list(names) or None,
                "Layers": [blob_path(each.digest) for each in chosen.layers],
            }
            self._after = [("manifest.json", canonical_json([saved])), *self._after]
        if part and not {each.digest for each in part.layers} <= {each.digest for each in image.layers}:
            # with plain layers it is no OCI layout: the manifest names the compressed ones
            self._before, self._after = self._before[1:], self._after[:1]
        self._layers, self._content, self._sending, self._before_end = layers, content, sending, before_end
        sizes = [len(data) for _, data in self._before + self._after] + [layer.size for layer in layers]
        self.size = sum(RECORD + size + padding(size) for size in sizes) + 2 * RECORD

    def blocks(self) -> Iterator[bytes]:
        for name, data in self._before:
            yield from member(name, data)
        with self._sending:
            for layer in self._layers:
                yield make_header(blob_path(layer.digest), layer.size)
                yield from self._content.open(layer)
                yield bytes(padding(layer.size))
        self._before_end()  # the engine unpacks when it has the archive's end; what another image brings must be there by then
        for name, data in self._after:
            yield from member(name, data)
        yield bytes(2 * RECORD)
