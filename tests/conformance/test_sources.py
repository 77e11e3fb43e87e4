"""The source suite over everything that needs no engine."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pyzstd

from tests.conformance.sinks import HeldContent, saved_suite
from tests.conformance.sources import NAMES, OpenedSource, SourceSuite, suite_images
from tests.support.fakeregistry import PERSONALITIES, FakeRegistry
from tests.support.thorough import sample
from tests.support.toy import ToySink, ToySource
from tests.support.zoo import Layout
from transfer.engines.archive import open_archive
from transfer.engines.base import ImageSource, RegistryOptions
from transfer.engines.logins import Credentials, remember
from transfer.engines.memory import MemoryImages, MemorySource
from transfer.engines.ocilayout import LayoutSource
from transfer.engines.registry import RegistrySource
from transfer.events import silent
from transfer.model import Descriptor, Digest


def logged_in(registry: FakeRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as `login` writes them."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(folder / "auth.json"))
    for user, password in registry.like.users.items():
        remember(registry.host, Credentials(user, password))


def memory(held: Layout, folder: Path) -> ImageSource:
    blobs = {Digest(digest): data for digest, data in held.blobs.items()}
    roots = {e["annotations"]["org.opencontainers.image.ref.name"]: Descriptor.parse(e, "") for e in held.entries}
    return MemorySource(MemoryImages(blobs, roots))


def toy(held: Layout, folder: Path) -> ImageSource:
    sink, content = ToySink(folder / "t"), HeldContent()
    for name in NAMES:
        sink.put(content.image(name), [name], content)
    return ToySource(folder / "t")


def archive(held: Layout, folder: Path, *, docker: bool, pack: Callable[[bytes], bytes] = bytes) -> ImageSource:
    path = saved_suite(folder / "a.tar", docker=docker)
    path.write_bytes(pack(path.read_bytes()))
    return open_archive(path)


SOURCES: dict[str, Callable[[Layout, Path], ImageSource]] = {
    "memory": memory,
    "toy": toy,
    "oci": lambda held, folder: LayoutSource(held.write(folder)),
    "oci-archive": lambda held, folder: archive(held, folder, docker=False),
    "docker-archive": lambda held, folder: archive(held, folder, docker=True),
    "docker-archive.gz": lambda held, folder: archive(held, folder, docker=True, pack=gzip.compress),
    "docker-archive.zst": lambda held, folder: archive(held, folder, docker=True, pack=pyzstd.compress),
}


class TestRegistrySource(SourceSuite):
    """Each kind of registry, all names below one host."""

    @pytest.fixture(params=sample([*PERSONALITIES], 3))
    def opened(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[OpenedSource]:
        held = suite_images()
        registry = FakeRegistry(PERSONALITIES[request.param]())
        registry.hold(held, lambda name: tuple(name.rsplit(":", 1)))  # type: ignore[arg-type, return-value]
        with registry.running():
            logged_in(registry, tmp_path, monkeypatch)
            source = RegistrySource(registry.host, RegistryOptions(), silent)
            try:
                yield OpenedSource(source, held, f"{registry.host}/", "suite/*")
            finally:
                source.close()


class TestSources(SourceSuite):
    @pytest.fixture(params=SOURCES)
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> OpenedSource:
        held = suite_images()
        source = SOURCES[request.param](held, tmp_path)
        request.addfinalizer(source.close)
        return OpenedSource(source, held)
