"""What every ImageSink must do. An engine joins by one entry in the dict of the module that runs this suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.sources import NAMES, suite_images
from transfer.engines.archive import ArchiveSink
from transfer.engines.base import ImageSink
from transfer.engines.tree import image_of, walk
from transfer.errors import Damaged, TransferError
from transfer.model import Descriptor, Digest, Image


class HeldContent:
    """The suite's images as a sink is offered them. Layers in `broken` fail at their last block."""

    def __init__(self) -> None:
        self.held = suite_images()
        self.broken: set[Digest] = set()
        self.sent: list[Digest] = []

    def image(self, name: str) -> Image:
        key = "org.opencontainers.image.ref.name"
        entry = next(e for e in self.held.entries if e["annotations"][key] == name)
        root = Descriptor.parse(entry, name)
        return image_of([name], root, walk(root, lambda each: self.held.blobs.get(str(each.digest))))

    def document(self, digest: Digest) -> bytes:
        return self.held.blobs[str(digest)]

    def plain(self, layer: Descriptor, diff_id: Digest) -> Descriptor:
        return layer

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        self.sent.append(descriptor.digest)
        data = self.held.blobs[str(descriptor.digest)][start:]
        yield data[:1000]
        if descriptor.digest in self.broken:
            raise Damaged(f"layer {descriptor.digest} is not what it should be")
        yield data[1000:]


def saved_suite(path: Path, *, docker: bool = True) -> Path:
    """The suite's images as an archive."""
    sink, content = ArchiveSink(path, docker=docker), HeldContent()
    for name in NAMES:
        sink.put(content.image(name), [name], content)
    sink.close(failed=False)
    return path


@dataclass(frozen=True)
class Place:
    """Where a sink puts things. `open` gives a new sink on the same place; `holds` says which names are there.

    `holds` maps each name to the digest the place calls the image by. `keeps`: what landed is there for the next sink.
    """

    open: Callable[[HeldContent], ImageSink]
    holds: Callable[[], dict[str, str]]
    identity: Callable[[Image], str]
    keeps: bool = True
    called: Callable[[str], str] = str
    """What a name becomes there."""


class SinkSuite:
    """The contract of engines/base.py, ImageSink."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    @pytest.fixture
    def content(self) -> HeldContent:
        return HeldContent()

    def test_nothing_there_means_every_layer_is_lacking(self, place: Place, content: HeldContent) -> None:
        sink = place.open(content)
        image = content.image("suite/two:1")
        assert [each.digest for each in sink.missing(image, content) or ()] == [each.digest for each in image.layers]
        sink.close(failed=True)
        assert place.holds() == {}

    def test_what_lands_is_there_under_its_names(self, place: Place, content: HeldContent) -> None:
        sink = place.open(content)
        landed = [sink.put(content.image(name), [name], content) for name in NAMES]
        sink.close(failed=False)
        assert [each.status for each in landed] == ["imported"] * 3
        assert place.holds() == {name: place.identity(content.image(name)) for name in NAMES}
        assert [str(each.id) for each in landed] == [place.identity(content.image(name)) for name in NAMES]

    def test_a_shared_layer_is_sent_once(self, place: Place, content: HeldContent) -> None:
        sink = place.open(content)
        landed = [sink.put(content.image(name), [name], content) for name in NAMES]
        sink.close(failed=False)
        assert len(content.sent) == len(set(content.sent)) == 3
        assert [(each.layers_sent, each.layers_present) for each in landed] == [(1, 0), (1, 1), (1, 1)]

    def test_landing_again_sends_nothing(self, place: Place, content: HeldContent) -> None:
        image = content.image("suite/two:1")
        first = place.open(content)
        first.put(image, ["suite/two:1"], content)
        first.close(failed=False)
        content.sent.clear()
        second = place.open(content)
        if place.keeps:
            assert second.missing(image, content) is None
            landed = second.put(image, ["suite/two:1"], content)
            assert (landed.status, landed.layers_sent) == ("present", 0)
            assert content.sent == []
        second.close(failed=not place.keeps)
        assert place.holds() == {"suite/two:1": place.identity(image)}

    def test_a_damaged_layer_leaves_nothing_visible(self, place: Place, content: HeldContent) -> None:
        image = content.image("suite/two:1")
        content.broken.add(image.layers[1].digest)
        sink = place.open(content)
        with pytest.raises(TransferError):
            sink.put(image, ["suite/two:1"], content)
        sink.close(failed=True)
        assert place.holds() == {}

    def test_after_a_failure_it_works(self, place: Place, content: HeldContent) -> None:
        image = content.image("suite/two:1")
        content.broken.add(image.layers[0].digest)
        sink = place.open(content)
        with pytest.raises(TransferError):
            sink.put(image, ["suite/two:1"], content)
        sink.close(failed=True)
        content.broken.clear()
        sink = place.open(content)
        sink.put(image, ["suite/two:1"], content)
        sink.close(failed=False)
        assert place.holds() == {"suite/two:1": place.identity(image)}

    def test_a_name_moves_to_what_came_last(self, place: Place, content: HeldContent) -> None:
        if not place.keeps:
            pytest.skip("an archive is written once")
        for name in ("suite/two:1", "suite/two:2"):
            sink = place.open(content)
            sink.put(content.image(name), ["moving:1"], content)
            sink.close(failed=False)
        assert place.holds()[place.called("moving:1")] == place.identity(content.image("suite/two:2"))

    def test_new_names_and_none(self, place: Place, content: HeldContent) -> None:
        sink = place.open(content)
        sink.put(content.image("suite/two:1"), ["one:1", "host.example:5000/two:2"], content)
        sink.close(failed=False)
        assert sorted(place.holds()) == sorted(map(place.called, ["host.example:5000/two:2", "one:1"]))
