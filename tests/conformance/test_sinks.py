"""The sink suite over everything that needs no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.sinks import HeldContent, Place, SinkSuite
from tests.conformance.test_sources import logged_in
from tests.support.fakeregistry import PERSONALITIES, FakeRegistry
from tests.support.thorough import sample
from tests.support.toy import ToySink, ToySource
from transfer.engines.archive import ArchiveSink, open_archive
from transfer.engines.base import ImageSink, ImageSource, RegistryOptions
from transfer.engines.memory import MemoryImages, MemorySink, MemorySource
from transfer.engines.ocilayout import LayoutSink, LayoutSource
from transfer.engines.registry_sink import RegistrySink
from transfer.events import silent
from transfer.model import Image, Reference


def listed(source: ImageSource) -> dict[str, str]:
    try:
        return {name: str(each.id) for each in source.names() for name in each.names}
    finally:
        source.close()


def digest(image: Image) -> str:
    return str(image.root.digest)


def memory(folder: Path) -> Place:
    held = MemoryImages()
    return Place(lambda _: MemorySink(held), lambda: listed(MemorySource(held)), digest)


def toy(folder: Path) -> Place:
    def holds() -> dict[str, str]:
        return listed(ToySource(folder / "t")) if (folder / "t").exists() else {}

    return Place(lambda _: ToySink(folder / "t"), holds, digest)


def layout(folder: Path) -> Place:
    def holds() -> dict[str, str]:
        return listed(LayoutSource(folder / "o")) if (folder / "o" / "index.json").exists() else {}

    return Place(lambda _: LayoutSink(folder / "o"), holds, digest)


def archive(folder: Path, *, docker: bool) -> Place:
    path = folder / "a.tar"

    def holds() -> dict[str, str]:
        assert [each for each in folder.iterdir() if each != path] == []
        return listed(open_archive(path)) if path.exists() else {}

    return Place(lambda _: ArchiveSink(path, docker=docker), holds, digest, keeps=False)


SINKS: dict[str, Callable[[Path], Place]] = {
    "memory": memory,
    "toy": toy,
    "oci": layout,
    "oci-archive": lambda folder: archive(folder, docker=False),
    "docker-archive": lambda folder: archive(folder, docker=True),
}


def below(name: str) -> str:
    """A name in a registry: its path, whichever host it was at."""
    found = Reference.parse(name)
    return f"{found.path}:{found.tag}"


class TestRegistrySink(SinkSuite):
    @pytest.fixture(params=sample([*PERSONALITIES], 3))
    def place(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        registry = FakeRegistry(PERSONALITIES[request.param]())
        with registry.running():
            logged_in(registry, tmp_path, monkeypatch)
            opened: list[RegistrySink] = []

            def sink(_: HeldContent) -> ImageSink:
                opened.append(RegistrySink(registry.host, RegistryOptions(), silent))
                return opened[-1]

            yield Place(sink, registry.names, digest, called=below)


class TestSinks(SinkSuite):
    @pytest.fixture(params=SINKS)
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
        return SINKS[request.param](tmp_path)
