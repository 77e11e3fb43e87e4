"""What every ImageSource must do. An engine joins by one entry in the dict of the module that runs this suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.zoo import Layout, layer
from transfer.engines.base import ImageSource
from transfer.errors import NotFound
from transfer.model import Digest, Image, Platform
from transfer.streams import blocks

NAMES = ["suite/one:1", "suite/two:1", "suite/two:2"]


def suite_images() -> Layout:
    """Three ordinary images that any engine takes: two share a layer, two share a repository."""
    out = Layout()
    base = layer({"etc/base": b"base\n" * 50, "etc/other": b"x" * 3000})
    for number, name in enumerate(NAMES):
        own = layer({f"app/{number}": f"own {number}\n".encode() * 100}, stamp=number)
        out.name(out.image([base, own] if number else [base]), name)
    return out


@dataclass(frozen=True)
class OpenedSource:
    """A source that holds the suite's images."""

    source: ImageSource
    held: Layout
    prefix: str = ""
    """What stands before each name."""
    pattern: str = ""
    """What a listing has to be asked for, where it cannot be everything."""

    def named(self, *names: str) -> list[str]:
        return [self.prefix + name for name in names]

    def root(self, name: str) -> str:
        """The digest of the manifest with this name, as it was made."""
        key = "org.opencontainers.image.ref.name"
        return next(str(e["digest"]) for e in self.held.entries if e["annotations"][key] == name)


def read_all(opened: OpenedSource, *names: str) -> tuple[list[Image], dict[Digest, bytes], list[Digest]]:
    """Read these images the way an export does: the images, every blob, and the layers' digests in the order they came."""
    source = opened.source
    found = [source.resolve(name, None) for name in names]
    documents: dict[Digest, bytes] = {}
    layers: dict[Digest, bytes] = {}
    order: list[Digest] = []
    for offer in source.read(found):
        data = b"".join(blocks(offer.open(0), 1000))
        digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        assert offer.digest in (None, digest)
        assert offer.size in (None, len(data))
        if offer.on_digest:
            offer.on_digest(digest)
        if offer.is_document:
            documents[digest] = data
        else:
            layers[digest] = data
            order.append(digest)
    sizes = {digest: len(data) for digest, data in (documents | layers).items()}
    return source.images(found, documents, sizes), documents | layers, order


class SourceSuite:
    """The contract of engines/base.py, ImageSource."""

    @pytest.fixture
    def opened(self) -> OpenedSource:
        raise NotImplementedError

    def test_it_says_where_it_is(self, opened: OpenedSource) -> None:
        assert opened.source.where

    def test_every_name_is_listed_once(self, opened: OpenedSource) -> None:
        listed = opened.source.names(opened.pattern)
        assert sorted(name for each in listed for name in each.names) == opened.named(*NAMES)
        assert all(each.size > 0 and each.layers in (1, 2) for each in listed)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_resolves(self, opened: OpenedSource, name: str) -> None:
        found = opened.source.resolve(name, None)
        assert list(found.names) == opened.named(name)
        again = str(found.id) if not opened.prefix else f"{name.partition(':')[0]}@{found.id}"
        assert opened.source.resolve(again, None).id == found.id

    def test_what_is_not_there_is_not_found(self, opened: OpenedSource) -> None:
        for wrong in ("suite/none:1", "suite/two:3", "sha256:" + "0" * 64, "0" * 12):
            with pytest.raises(NotFound):
                opened.source.resolve(wrong, None)

    def test_a_wrong_platform_is_not_found_or_of_no_account(self, opened: OpenedSource) -> None:
        """A single image has one platform; asking for its own is fine."""
        found = opened.source.resolve("suite/one:1", Platform("linux", "amd64"))
        assert list(found.names) == opened.named("suite/one:1")

    def test_all_blobs_come_and_each_once(self, opened: OpenedSource) -> None:
        images, blobs, order = read_all(opened, *NAMES)
        told = [digest for digest in order if opened.source.traits.random_access or digest in images[0].documents]
        assert len(told) == len(set(told))
        assert sorted(name for image in images for name in image.names) == opened.named(*NAMES)
        for image in images:
            assert {*image.documents, *(each.digest for each in image.layers)} <= blobs.keys()
            assert image.config_digest is not None
            assert str(image.config_digest) in opened.held.blobs
            assert [str(p) for p in image.platforms] == ["linux/amd64"]
            for each in image.layers:
                assert opened.held.blobs[str(each.digest)] == blobs[each.digest]

    def test_a_source_that_keeps_digests_keeps_them(self, opened: OpenedSource) -> None:
        images, _, _ = read_all(opened, "suite/two:2")
        if opened.source.traits.keeps_digest:
            assert str(images[0].root.digest) == opened.root("suite/two:2")

    def test_reading_twice_gives_the_same(self, opened: OpenedSource) -> None:
        assert read_all(opened, *NAMES)[0] == read_all(opened, *NAMES)[0]

    def test_random_access_reads_only_what_was_asked_for(self, opened: OpenedSource) -> None:
        _, _, order = read_all(opened, "suite/one:1")
        if opened.source.traits.random_access:
            assert len(order) == 1


OpenSource = Callable[[], OpenedSource]
