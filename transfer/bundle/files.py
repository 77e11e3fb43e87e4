"""The files in a blob's recipe: their paths, and the chunks each is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from transfer.bundle.catalog import AS_FILES
from transfer.chunks.name import split_names
from transfer.chunks.nested import file_paths
from transfer.model import Part, Recipe


def payload_paths(part: Part, skeleton: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path, chunk name) of each payload chunk of a recipe's part, in order; `skeleton` is all of the part's."""
    return zip(file_paths(_stretches(skeleton, part)), split_names(part.payload), strict=True)


def skeleton_names(recipe: Recipe) -> list[bytes]:
    """The recipe's skeleton chunks, in order; none for a blob that was not taken apart."""
    return [name for part in recipe.parts for name in split_names(part.skeleton)] if recipe.encoding in AS_FILES else []


def files_of(recipe: Recipe, skeleton: Callable[[], bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """(path, chunk names) of each file; `skeleton` gives the next of the recipe's skeleton chunks."""
    for part in recipe.parts:
        whole = b"".join(skeleton() for _ in split_names(part.skeleton))
        last: bytes | None = None
        held: list[bytes] = []
        for path, name in payload_paths(part, whole):
            if path != last and held:
                yield last or b"", held
                held = []
            last = path
            held.append(name)
        if held:
            yield last or b"", held


def _stretches(skeleton: bytes, part: Part) -> Iterator[bytes]:
    """What stands before each payload chunk."""
    at = [0]
    for gap in part.gaps[:-1]:
        at.append(at[-1] + gap)
    for start, end in pairwise(at):
        yield skeleton[start:end]
