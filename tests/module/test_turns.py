"""In which order images land beside each other, and that they begin in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from tests.support.run import run
from tests.support.zoo import zoo
from transfer.bundle.reader import Bundle
from transfer.engines.base import ALONE, Content, ImportedImage, SinkTraits, Turn
from transfer.engines.memory import MemoryImages, MemorySink
from transfer.events import silent
from transfer.flows.landing import Job, in_turns
from transfer.flows.load_images import LoadOptions, load_images
from transfer.model import Descriptor, Digest, Image
from transfer.streams import sha256


def job(name: str, **layers: int) -> Job:
    """An image that lacks these layers, by name and size."""
    descriptors = tuple(Descriptor("layer", _digest(each), size) for each, size in layers.items())
    image = Image((name,), Descriptor("manifest", _digest(name), 1), None, (), descriptors)
    return Job(image, (name,), descriptors)


def _digest(text: str) -> Digest:
    return sha256(text.encode())


def names(*jobs: Job, parallel: int = 2) -> str:
    return " ".join(each.names[0] for each in in_turns(jobs, lambda layer: layer.size, parallel))


def test_the_order_of_the_bundle_stands() -> None:
    several = [job(name, base=100, **{name: 30}) for name in "abcdef"]
    assert names(*several) == "a b c d e f"
    assert names() == ""


def test_one_that_would_be_alone_in_the_end_goes_earlier() -> None:
    assert names(job("a", base=50), *(job(n, base=50, **{n: 30}) for n in "bcd"), job("big", base=50, own=40)) == (
        "a b big c d"
    )


def test_the_more_lanes_the_earlier() -> None:
    """One of several at once gets its share of the machine only."""
    several = [*(job(n, **{n: 30}) for n in "abcde"), job("big", own=40)]
    assert [names(*several, parallel=lanes) for lanes in (2, 3, 4)] == [
        "a b c big d e",
        "a b big c d e",
        "big a b c d e",
    ]


def test_what_brings_its_layer_goes_before_it() -> None:
    small = job("python", base=10, python=20)
    assert (
        names(job("a", base=10), job("b", base=10, b=30), small, job("ml", base=10, python=20, ml=600))
        == "a python ml b"
    )


def test_layers_that_are_there_do_not_count() -> None:
    there = job("big", base=10, own=600)
    there = Job(there.image, there.names, ())
    assert names(job("a", a=10), job("b", b=11), there) == "b a big"


def test_what_is_work_decides_not_what_is_large() -> None:
    jobs = [job("a", a=10), job("b", b=11), job("many", many=4)]
    assert (
        " ".join(each.names[0] for each in in_turns(jobs, lambda layer: 600 if layer.size == 4 else 1, 2)) == "many a b"
    )


class _Two(MemorySink):
    """Takes two images at once, and is slow to claim what the first of them brings, or never says so."""

    traits = SinkTraits(keeps_digest=True, parallel=2)

    def __init__(self, *, says: bool) -> None:
        super().__init__(MemoryImages())
        self._says, self._second = says, threading.Event()
        self.order: list[Image] = []
        self.early = self.beside = False

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        self.order.append(image)
        if len(self.order) == 1:
            self.early = self._second.wait(0.2)
            if self._says:
                turn.claim(lambda: [image])
                self.beside = self._second.wait(10)
        else:
            self._second.set()
            turn.claim(lambda: [image])
        return super().put(image, names, content, turn)


def test_the_next_begins_when_the_one_before_has_claimed_what_it_brings(tmp_path: Path) -> None:
    """Or chance would say which of two brings the layer that both lack, and who waits for whom."""
    zoo().write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    for says in (True, False):
        with Bundle(tmp_path / "b") as bundle:
            sink = _Two(says=says)
            done = load_images(bundle, bundle.images, tuple, sink, options=LoadOptions(jobs=2), observer=silent)
        assert len(done.landed) == len(sink.order) == len(bundle.images) > 1
        assert (sink.early, sink.beside) == (False, says)
