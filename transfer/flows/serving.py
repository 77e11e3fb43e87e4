"""A registry in this process, for an engine that would rather pull: started when a sink asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transfer.engines.base import Content
from transfer.engines.tree import PlatformImage
from transfer.errors import EngineError
from transfer.model import TEMPORARY, Descriptor, Digest
from transfer.serve.registry import Registry


class Serving:
    """What `content` has, for as long as the import takes. Nothing listens before the first image is published."""

    def __init__(self) -> None:
        self.content: Content | None = None
        self._stack = contextlib.ExitStack()
        self._registry: Registry | None = None

    def _has(self) -> Content:
        if self.content is None:
            raise EngineError("nothing is served before an import is planned")
        return self.content

    def _document(self, digest: Digest) -> bytes:
        return self._has().document(digest)

    def _open(self, layer: Descriptor) -> Iterator[bytes]:
        return self._has().open(layer)

    def publish(self, chosen: PlatformImage) -> str:
        """Make an image available; the reference to pull it by."""
        if self._registry is None:
            self._registry = self._stack.enter_context(Registry(TEMPORARY, self._document, self._open))
        return self._registry.publish(chosen.manifest, chosen.config, chosen.layers)

    @contextlib.contextmanager
    def open(self) -> Iterator[Serving]:
        """Serve in here. Where the engine failed because of what it was served, that failure is raised."""
        try:
            with self._stack:
                yield self
        except EngineError:
            if self._registry and self._registry.failures:
                raise self._registry.failures[0] from None
            raise
