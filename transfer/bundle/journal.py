"""Notes of an unfinished export: which layers were read, and what came of them. A hint only: a torn line is the end."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transfer.chunks.name import Kind
from transfer.chunks.packer import New
from transfer.errors import FormatError
from transfer.folders import open_own
from transfer.model import ChunkId, Digest, Folds, Part, Recipe


@dataclass(frozen=True, slots=True)
class Seen:
    """A layer that was read to its end: its recipe, the chunks that were new with it, in their order, and the base's layer it resembles.

    `plain`: the recipe of the plain blob that it is put together from. `why` it is held as it is, if it is.

    `before`: the state of the programs that had gone by last, on which it depends what its own were like.
    """

    recipe: Recipe
    new: tuple[New, ...]
    like: Digest | None = None
    before: str = ""
    plain: Recipe | None = None
    why: str = ""


class Journal:
    """Append-only, one checksummed JSON line a layer. What an earlier run with the same options wrote is in `seen`."""

    def __init__(self, path: Path, options: dict[str, object]) -> None:
        self.seen: dict[Digest, Seen] = {}
        lines = _sound_lines(path)
        head = next(lines, None)
        self.resumed = head == options
        if self.resumed:
            with contextlib.suppress(FormatError):
                for line in lines:
                    seen = _parse(line)
                    self.seen[seen.recipe.digest] = seen
        fd = open_own(path)
        os.ftruncate(fd, 0)
        self._file: IO[bytes] = os.fdopen(fd, "wb")
        self._write(options)
        for seen in self.seen.values():
            self._write(_encode(seen))
        self._file.flush()

    def add(self, seen: Seen) -> None:
        if seen.recipe.digest not in self.seen:
            self.seen[seen.recipe.digest] = seen
            self._write(_encode(seen))
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, value: dict[str, object]) -> None:
        data = json.dumps(value, separators=(",", ":")).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(data), data))


def _sound_lines(path: Path) -> Iterator[Any]:
    """The parsed lines, up to the first that is not sound."""
    if not os.path.lexists(path):
        return
    with os.fdopen(open_own(path), "rb") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or int(line[:8], 16) != zlib.crc32(line[9:-1]):
                    return
                yield json.loads(line[9:-1])
            except (ValueError, RecursionError):
                return


def _encode_recipe(recipe: Recipe) -> dict[str, object]:
    return {
        "digest": str(recipe.digest),
        "size": recipe.size,
        "encoding": recipe.encoding,
        "parts": [[part.skeleton.hex(), part.payload.hex(), list(part.gaps)] for part in recipe.parts],
        "folds": [recipe.folds.size, recipe.folds.names.hex(), list(recipe.folds.leads)] if recipe.folds else None,
    }


def _parse_recipe(value: Any, plain: Digest | None = None) -> Recipe:
    parts = tuple(
        Part(bytes.fromhex(skeleton), bytes.fromhex(payload), array("Q", gaps))
        for skeleton, payload, gaps in value["parts"]
    )
    folds = None
    if value["folds"]:
        size, names, leads = value["folds"]
        folds = Folds(int(size), bytes.fromhex(names), tuple(map(int, leads)))
    return Recipe(Digest.parse(value["digest"]), int(value["size"]), int(value["encoding"]), parts, plain, folds)


def _encode(seen: Seen) -> dict[str, object]:
    return {
        **_encode_recipe(seen.recipe),
        "plain": _encode_recipe(seen.plain) if seen.plain else None,
        "new": [
            [
                each.name.hex(),
                each.size,
                int(each.kind),
                list(each.partners),
                each.offset,
                [n.hex() for n in each.similar],
            ]
            for each in seen.new
        ],
        "like": str(seen.like) if seen.like else None,
        "before": seen.before,
        "why": seen.why,
    }


def _parse(value: Any) -> Seen:
    try:
        plain = _parse_recipe(value["plain"]) if value["plain"] else None
        recipe = _parse_recipe(value, plain.digest if plain else None)
        new = tuple(
            New(
                _chunk(name), int(size), Kind(kind), tuple(map(int, partners)), int(offset), tuple(map(_chunk, similar))
            )
            for name, size, kind, partners, offset, similar in value["new"]
        )
        like = Digest.parse(value["like"]) if value["like"] else None
        before, why = str(value["before"]), str(value["why"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise FormatError("the journal of the unfinished export cannot be read") from error
    return Seen(recipe, new, like, before, plain, why)


def _chunk(name: str) -> ChunkId:
    return ChunkId(bytes.fromhex(name))
