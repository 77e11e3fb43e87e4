"""Which names the images of an import get: several that want one, and names that another image has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transfer.engines.base import Content, ImageSink
from transfer.errors import TransferError, UsageError, one_failure
from transfer.model import Digest, Image, Platform, familiar

Rename = Callable[[Sequence[str]], tuple[str, ...]]


class NameKept(UsageError):
    """Other images have all the names of an image, and keep them."""

    slug = "name-kept"


@dataclass(frozen=True, slots=True)
class Move:
    """A name that another image has: which, and what that image is called there."""

    name: str
    holder: Digest


@dataclass(frozen=True, slots=True)
class Named:
    """An image, the names it is to land under, and those of them that another image has now. With `error` it cannot land."""

    image: Image
    names: tuple[str, ...]
    moves: tuple[Move, ...] = ()
    error: TransferError | None = None


def name_all(
    images: Sequence[Image], rename: Rename, sink: ImageSink, content: Content, *, keep_tags: bool
) -> list[Named]:
    """The names each image gets. A failure is that image's own; nothing is changed."""
    wanted: list[tuple[str, ...]] = []
    failed: dict[int, TransferError] = {}
    for number, image in enumerate(images):
        names: tuple[str, ...] = ()
        try:
            names = rename(image.names)
        except TransferError as error:
            failed[number] = error
        wanted.append(tuple({familiar(name): name for name in reversed(names)}.values())[::-1])
    users: dict[str, list[int]] = {}
    for number, names in enumerate(wanted):
        for name in names:
            users.setdefault(familiar(name), []).append(number)
    for name, numbers in users.items():
        if len(numbers) > 1 and sink.platform is not None:
            failed |= _losers(name, numbers, images, sink.platform)
    together = {name: frozenset(images[n].root.digest for n in numbers) for name, numbers in users.items()}
    out = []
    for number, (image, names) in enumerate(zip(images, wanted, strict=True)):
        lost = failed.get(number)
        out.append(Named(image, names, (), lost) if lost else _one(image, names, sink, content, together, keep_tags))
    return out


def _losers(name: str, numbers: Sequence[int], images: Sequence[Image], platform: Platform) -> dict[int, TransferError]:
    """Of several images that want a name one can have it: the one that suits the engine's platform best. The others fail."""
    ranks = {n: max((platform.rank(each) for each in images[n].platforms), default=0) for n in numbers}
    best = [n for n in numbers if ranks[n] == max(ranks.values())]
    if len({images[n].root.digest for n in best}) > 1:
        best = []
    return {
        number: UsageError(
            f"two images would be called {name}",
            hint=f"give this image another name: --retag {images[number].root.digest.short}=NAME",
        )
        for number in numbers
        if number not in best
    }


def _one(
    image: Image,
    names: tuple[str, ...],
    sink: ImageSink,
    content: Content,
    together: Mapping[str, frozenset[Digest]],
    keep_tags: bool,
) -> Named:
    try:
        beside = {digest for name in names for digest in together[familiar(name)]}
        moves = tuple(Move(name, holder) for name, holder in sink.taken(image, names, content, beside).items())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's, and the others go on
        return Named(image, names, (), one_failure(error, image.label))
    if not keep_tags or not moves:
        return Named(image, names, moves)
    free = tuple(name for name in names if name not in {each.name for each in moves})
    if free:
        return Named(image, free)
    first = moves[0]
    kept = NameKept(
        f"{first.name} already belongs to image {first.holder.short}, and names may not move",
        hint="import without --keep-tags, or give the image another name with --retag",
    )
    return Named(image, names, (), kept)
