"""The sink suite over everything that needs no engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.sinks import Place, SinkSuite
from tests.support.toy import ToySink, ToySource
from transfer.engines.archive import ArchiveSink, open_archive
from transfer.engines.base import ImageSource
from transfer.engines.memory import MemoryImages, MemorySink, MemorySource
from transfer.engines.ocilayout import LayoutSink, LayoutSource
from transfer.model import Image


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


class TestSinks(SinkSuite):
    @pytest.fixture(params=SINKS)
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
        return SINKS[request.param](tmp_path)
