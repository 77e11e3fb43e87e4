"""Images of a containerd: names out of `ctr`, bytes out of its content folder, or through `ctr` where that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.engines.base import ImageSink, ImageSource, ResolvedImage, SinkOptions, SourceOptions, SourceTraits
from transfer.engines.blobs import Root, Suits
from transfer.engines.contents import ContentFolder, StoredSource
from transfer.engines.ctr import KUBERNETES, Ctr, Name, socket_here
from transfer.engines.index import REF_NAME, Broken, Roots
from transfer.errors import FormatError, NotFound
from transfer.model import Descriptor, Digest, Platform, Reference, familiar, is_label, is_name
from transfer.streams import MAX_DOCUMENT, Readable, blocks


def is_here() -> bool:
    """Whether the socket of a containerd is there that is not Docker's own."""
    return socket_here() != ""


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """The containerd found here; the place is a namespace."""
    return ContainerdSource(Ctr(place))


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """The containerd found here; the place is a namespace, which is made if there is none."""
    from transfer.engines.containerd_sink import ContainerdSink

    return ContainerdSink(
        Ctr(place), platform=options.platform, observer=options.observer, pin=options.pin and not options.only_look
    )


class ContainerdSource(StoredSource):
    """One namespace of a containerd."""

    def __init__(self, ctr: Ctr) -> None:
        super().__init__(ctr.where)
        ctr.known()
        self._ctr = ctr
        self._names = _familiar(ctr.images())
        self._digests = ctr.digests()
        self._folder: ContentFolder | None = ctr.content({each.digest for each in self._names})
        self.traits = SourceTraits(random_access=True, keeps_digest=True, host=True, ranges=self._folder is not None)
        self._roots = self._listed()

    def _listed(self) -> Roots:
        """The names as roots: one that is `sha256:...` is how Kubernetes calls the config, and no name."""
        entries, broken = [], []
        for each in self._names:
            size = self._size(each)
            if size is None:
                broken.append(Broken((familiar(each.name),), each.digest, self.gone(each.name, each.digest)))
                continue
            alias = each.name.startswith("sha256:")
            annotations = {} if alias else {REF_NAME: familiar(each.name)}
            entries.append(Descriptor(each.media_type, each.digest, size, annotations=annotations))
        return Roots(entries, self.where, broken)

    def _size(self, name: Name) -> int | None:
        """A root's size; None if it is not there."""
        if self._folder:
            return self._folder.size(name.digest)
        if str(name.digest) not in self._digests:
            return None
        return len(self._small(name.digest))

    def _small(self, digest: Digest) -> bytes:
        """A document's bytes, however long `ctr` says it is; unchecked."""
        stream, out = self._ctr.get(digest), bytearray()
        for block in blocks(stream):
            out += block
            if len(out) > MAX_DOCUMENT:
                stream.close()
                raise FormatError(f"{self.where}: {digest} is larger than a document may be")
        return bytes(out)

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        return self._roots.all()

    def root(self, reference: str, suits: Suits) -> Root:
        return self._roots.pick(reference, suits)

    def has(self, digest: Digest) -> bool:
        return str(digest) in self._digests

    def is_root(self, digest: Digest) -> bool:
        return any(each.digest == digest for each in self._names)

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        if not self.has(blob.digest):
            raise NotFound(f"{self.where} has no blob {blob.digest}")
        if self._folder and self._folder.size(blob.digest) is not None:
            return self._folder.open(blob, start)
        stream = self._ctr.get(blob.digest)
        while start and (skipped := stream.read(start)):
            start -= len(skipped)
        return stream

    platform = Platform.here()

    def is_kept(self, image: ResolvedImage) -> bool:
        """Under Kubernetes every name that is asked for has to be pinned."""
        mine = [each for each in self._names if each.digest == image.id and familiar(each.name) in image.names]
        pinned = all(each.labels.get("io.cri-containerd.pinned") == "pinned" for each in mine)
        return self._ctr.namespace != KUBERNETES or pinned

    def close(self) -> None:
        """Nothing is kept open."""


def _familiar(names: Sequence[Name]) -> list[Name]:
    """Each name once, as people write it: of two that read alike the one in full is meant, as Kubernetes and Docker do."""
    found: dict[str, Name] = {}
    for each in sorted((each for each in names if is_label(each.name)), key=lambda each: _is_full(each.name)):
        found[familiar(each.name)] = each
    return [each for each in names if each in found.values()]


def _is_full(name: str) -> bool:
    return is_name(name) and str(Reference.parse(name)) == name
