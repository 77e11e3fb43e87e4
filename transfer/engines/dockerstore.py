"""Images of a Docker with the containerd store, by root: names from the daemon, bytes out of its content folder, where they are the original ones."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.engines.blobs import Root, Suits
from transfer.engines.contents import ContentFolder, StoredSource, docker_places
from transfer.engines.daemon import DockerClient
from transfer.engines.index import Broken
from transfer.engines.tree import described
from transfer.errors import NotFound
from transfer.model import Descriptor, Digest
from transfer.streams import Readable


class StoreImages(StoredSource):
    """The blobs of one daemon. Roots are asked for by digest alone: what a name means the daemon says."""

    def __init__(self, where: str, folder: ContentFolder) -> None:
        super().__init__(where)
        self.folder = folder
        self._roots: dict[Digest, Descriptor] = {}

    @staticmethod
    def of(client: DockerClient) -> StoreImages | None:
        """None where this process may not read the folder, or the daemon has no image in it."""
        ids = [Digest.parse(each.get("Id"), client.where) for each in client.images()]
        folder = ContentFolder.of(docker_places(client.info), ids)
        return StoreImages(client.where, folder) if folder else None

    def lacks(self, digest: Digest) -> bool:
        """Whether a root is not here as its digest says: then the daemon keeps it elsewhere."""
        return self.folder.small(digest) is None

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        return [(each, ()) for each in self._roots.values()], ()

    def root(self, reference: str, suits: Suits) -> Root:
        digest = Digest.parse(reference, self.where)
        if digest not in self._roots:
            data = self.folder.small(digest)
            if data is None:
                raise NotFound(f"{self.where} has no blob {digest}")
            self._roots[digest] = described(data, digest)
        return self._roots[digest], ()

    def has(self, digest: Digest) -> bool:
        return self.folder.size(digest) is not None

    def is_root(self, digest: Digest) -> bool:
        return digest in self._roots

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        return self.folder.open(blob, start)

    def close(self) -> None:
        """Nothing is kept open."""
