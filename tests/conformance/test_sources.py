"""The source suite over everything that needs no engine."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import pyzstd

from tests.conformance.sinks import HeldContent, saved_suite
from tests.conformance.sources import NAMES, OpenedSource, SourceSuite, suite_images
from tests.support.toy import ToySink, ToySource
from tests.support.zoo import Layout
from transfer.engines.archive import open_archive
from transfer.engines.base import ImageSource
from transfer.engines.memory import MemoryImages, MemorySource
from transfer.engines.ocilayout import LayoutSource
from transfer.model import Descriptor, Digest


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


class TestSources(SourceSuite):
    @pytest.fixture(params=SOURCES)
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> OpenedSource:
        held = suite_images()
        source = SOURCES[request.param](held, tmp_path)
        request.addfinalizer(source.close)
        return OpenedSource(source, held)
