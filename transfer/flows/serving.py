"""A registry in this process, for an engine that would rather pull: started when a sink asks for it.

Repositories are reached by a secret path that only the engine is told, so other users of the host cannot read along.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

from transfer.engines.base import Content
from transfer.engines.tree import PlatformImage, tree_of
from transfer.errors import EngineError
from transfer.model import TEMPORARY, Descriptor, Digest, Image
from transfer.serve.app import App, Blob
from transfer.serve.server import Background

REPOSITORY = "image"
WHOLE = "whole/"


class Serving:
    """What `content` has, for as long as the import takes. Nothing listens before the first image is published."""

    def __init__(self) -> None:
        self.content: Content | None = None
        self._stack = contextlib.ExitStack()
        self._published = _Published(self)
        self._app = App(self._published, prefix=f"{TEMPORARY}/{secrets.token_hex(16)}")
        self._port = 0

    def publish(self, chosen: PlatformImage) -> str:
        """Make a platform's part of an image available; the reference to pull it by."""
        self._published.add(chosen)
        return f"{self._place()}/{REPOSITORY}@{chosen.manifest.digest}"

    def offer(self, image: Image) -> str:
        """Make an image available as it is; a repository in which every tag means it."""
        self._published.add_whole(image)
        return f"{self._place()}/{WHOLE}{image.root.digest.hex}"

    def _place(self) -> str:
        if not self._port:
            self._port = self._stack.enter_context(Background(self._app)).port
        self._app.allow_again()
        return f"127.0.0.1:{self._port}/{self._app.prefix}"

    @contextlib.contextmanager
    def open(self) -> Iterator[Serving]:
        """Serve in here. Where the engine failed because of what it was served, that failure is raised."""
        try:
            with self._stack:
                yield self
        except EngineError:
            if self._app.failure:
                raise self._app.failure from None
            raise


class _Published:
    """See serve/app.py, Holdings: parts of images by digest, and whole images, each in a repository of its own."""

    policy = ""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._manifests: dict[Digest, Descriptor] = {}
        self._configs: set[Digest] = set()
        self._layers: dict[Digest, Descriptor] = {}
        self._roots: dict[str, Descriptor] = {}

    def add(self, chosen: PlatformImage) -> None:
        self._manifests[chosen.manifest.digest] = chosen.manifest
        self._configs.add(chosen.config.digest)
        self._layers |= {layer.digest: layer for layer in chosen.layers}

    def add_whole(self, image: Image) -> None:
        tree = tree_of(image, self._content().document)
        configs = {each.digest for each in tree.configs}
        self._configs |= configs
        self._manifests |= {each.digest: each for each in tree.documents if each.digest not in configs}
        self._layers |= {layer.digest: layer for layer in tree.layers}
        self._roots[WHOLE + image.root.digest.hex] = image.root

    def _content(self) -> Content:
        if self._serving.content is None:
            raise EngineError("nothing is served before an import is planned")
        return self._serving.content

    def manifest(self, name: str, reference: str, host: str) -> tuple[Descriptor, bytes] | None:
        by_digest = next((each for each in self._manifests.values() if str(each.digest) == reference), None)
        found = by_digest or (None if ":" in reference else self._roots.get(name))
        return (found, self._content().document(found.digest)) if found else None

    def blob(self, name: str, digest: Digest, host: str) -> Blob | None:
        content = self._content()
        if digest in self._configs:
            data = content.document(digest)
            return Blob(len(data), lambda start: iter([data[start:]]), at_hand=True)
        layer = self._layers.get(digest)
        return Blob(layer.size, partial(content.open, layer)) if layer else None

    def tags(self, name: str, host: str) -> list[str] | None:
        return None

    def repositories(self) -> list[str]:
        return []

    def referrers(self, name: str, digest: Digest, host: str) -> list[dict[str, Any]]:
        return []

    def page(self, under_way: int) -> str:
        return ""
