"""In which order images land beside each other."""

from __future__ import annotations

from transfer.flows.load import _Job, _turns
from transfer.model import Descriptor, Digest, Image
from transfer.streams import sha256


def job(name: str, **layers: int) -> _Job:
    """An image that lacks these layers, by name and size."""
    descriptors = tuple(Descriptor("layer", _digest(each), size) for each, size in layers.items())
    image = Image((name,), Descriptor("manifest", _digest(name), 1), None, (), descriptors)
    return _Job(image, (name,), frozenset(each.digest for each in descriptors))


def _digest(text: str) -> Digest:
    return sha256(text.encode())


def names(*jobs: _Job) -> str:
    return " ".join(each.names[0] for each in _turns(jobs, lambda layer: layer.size))


def test_the_order_of_the_bundle_stands() -> None:
    several = [job(name, base=100, **{name: 30}) for name in "abcdef"]
    assert names(*several) == "a b c d e f"
    assert names() == ""


def test_one_that_would_be_alone_in_the_end_goes_earlier() -> None:
    assert names(job("a", base=50), *(job(n, base=50, **{n: 30}) for n in "bcd"), job("big", base=50, own=40)) == (
        "a b big c d"
    )


def test_what_brings_its_layer_goes_before_it() -> None:
    small = job("python", base=10, python=20)
    assert (
        names(job("a", base=10), job("b", base=10, b=30), small, job("ml", base=10, python=20, ml=600))
        == "a python ml b"
    )


def test_layers_that_are_there_do_not_count() -> None:
    there = job("big", base=10, own=600)
    there = _Job(there.image, there.names, frozenset())
    assert names(job("a", a=10), job("b", b=11), there) == "b a big"


def test_what_is_work_decides_not_what_is_large() -> None:
    jobs = [job("a", a=10), job("b", b=11), job("many", many=4)]
    assert " ".join(each.names[0] for each in _turns(jobs, lambda layer: 600 if layer.size == 4 else 1)) == "many a b"
