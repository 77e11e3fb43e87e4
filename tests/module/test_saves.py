"""How the images of one export are dealt out into `docker save` streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transfer.engines.base import ResolvedImage
from transfer.engines.saves import LEAST, PARTS, grouped
from transfer.model import Digest


def digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def image(number: int, layers: tuple[int, ...], size: int = LEAST) -> ResolvedImage:
    return ResolvedImage((), digest(1000 + number), size, tuple((digest(each), 0) for each in layers))


IMAGES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8).map(
    lambda chains: [image(number, chain) for number, chain in enumerate(chains)]
)


@given(IMAGES, st.randoms())
def test_groups_depend_on_the_images_alone(images: list[ResolvedImage], random: object) -> None:
    mixed = list(images)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert grouped(mixed) == grouped(images)
    assert sorted(str(each.id) for group in grouped(images) for each in group) == sorted(str(e.id) for e in images)


@given(IMAGES)
def test_a_layer_has_one_place_in_a_group(images: list[ResolvedImage]) -> None:
    """Where the daemon keeps a layer: named by the chain up to it, the topmost by the image as well."""
    for group in grouped(images):
        places: dict[Digest, set[object]] = {}
        for each in group:
            chain = [layer for layer, _ in each.layers]
            first = {layer: chain.index(layer) for layer in chain}
            for layer, at in first.items():
                top = each.id if at == len(chain) - 1 else None
                places.setdefault(layer, set()).add((tuple(chain[: at + 1]), top))
        assert all(len(found) == 1 for found in places.values())


def test_an_image_and_what_is_built_on_it_come_apart_and_little_ones_together() -> None:
    base, web = image(0, (1,)), image(1, (1, 2))
    assert grouped([web, base]) == [[base], [web]]
    small = [image(number, (number, 20 + number), 1000) for number in range(9)]
    assert len(grouped(small)) == 1
    large = [image(number, (number, 20 + number), LEAST) for number in range(20)]
    assert len(grouped(large)) == PARTS
