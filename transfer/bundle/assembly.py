"""A bundle and those it builds on, as one numbering of chunks and frames.

Several may carry a chunk: plain in one, patched in another against what a third has patched against it. The carrier with the fewest
steps to plain frames counts, so that such circles do no harm.
"""

from __future__ import annotations

import contextlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from transfer.bundle.catalog import chunk_names
from transfer.bundle.prerequisites import describe, import_first
from transfer.bundle.reader import Bundle, BundleLookup
from transfer.chunks.frame import FRAME_RAW_MAX
from transfer.chunks.name import ID_SIZE, split_names
from transfer.errors import Damaged, FormatError, MissingPart
from transfer.model import Digest

UNREACHED = 1 << 30
DEPTH_MAX = 4
"""Frames from a patched one to a plain one, as a writer makes them (FORMAT.md, section 3)."""
READ_MAX = 16
"""As a reader takes them: the store that a delta comes to may have other carriers of a chunk than the one that it was made in."""


class BundleSet:
    """Several bundles' chunks. One that more than one carries has the number it has where it is the fewest steps from plain."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self.bundles: list[Bundle] = []
        self.frame_of: array[int] = array("I")
        self.size_of: array[int] = array("I")
        self._first_frame: list[int] = []
        self._first_chunk: list[int] = []
        self._numbers: list[tuple[dict[bytes, int], int]] = []
        self._steps: dict[int, int] | None = None
        self._prefix: dict[int, array[int]] = {}
        self.frames = 0
        for bundle in bundles:
            self.add(bundle)

    def add(self, bundle: Bundle) -> None:
        """One more, behind the others."""
        if bundle in self.bundles:
            return
        catalog = bundle.catalog()
        self._steps = None
        self._prefix.clear()
        self._first_frame.append(self.frames)
        self._numbers.append((catalog.numbers_of, len(self.size_of)))
        self._first_chunk.append(len(self.size_of))
        self.bundles.append(bundle)
        first = self.frames
        self.frame_of.extend(array("I", [first + frame for frame in catalog.frame_of]) if first else catalog.frame_of)
        self.size_of.extend(catalog.size_of)
        self.frames += len(catalog.frames)

    def find(self, name: bytes) -> int:
        """The chunk's number, -1 if none of them carries it."""
        best, least = -1, UNREACHED
        for numbers, first in self._numbers:
            number = numbers.get(name)
            if number is not None:
                if best < 0 and len(self._numbers) == 1:
                    return number
                steps = self.steps(self.frame_of[first + number])
                if best < 0 or steps < least:
                    best, least = first + number, steps
                if not steps:
                    break
        return best

    def steps(self, frame: int) -> int:
        """How many steps a frame is from plain ones; UNREACHED where that is more than READ_MAX, a circle, or a gap."""
        if self._steps is None:
            self._steps = self._walk()
        return self._steps.get(frame, 0)

    def _walk(self) -> dict[int, int]:
        """Steps of the patched frames: each is one more than the farthest of its prefix chunks, taken where they are nearest."""
        patched = {
            first + number: split_names(entry.prefix)
            for bundle, first in zip(self.bundles, self._first_frame, strict=True)
            for number, entry in enumerate(bundle.catalog().frames)
            if entry.prefix
        }
        steps = dict.fromkeys(patched, UNREACHED)
        for depth in range(1, READ_MAX + 1):
            reached = [
                frame
                for frame, names in patched.items()
                if steps[frame] == UNREACHED and all(self._within(name, depth, steps) for name in names)
            ]
            if not reached:
                break
            steps.update(dict.fromkeys(reached, depth))
        return steps

    def _within(self, name: bytes, depth: int, steps: dict[int, int]) -> bool:
        """Whether some carrier of the chunk is less than `depth` steps from plain."""
        return any(
            steps.get(self.frame_of[first + number], 0) < depth
            for numbers, first in self._numbers
            if (number := numbers.get(name)) is not None
        )

    def numbers(self, names: bytes) -> array[int]:
        """The numbers of names given end to end; MissingPart if one is carried by none."""
        if len(self.bundles) == 1:
            return self.bundles[0].catalog().numbers(names)
        out = array("q", [self.find(names[at : at + ID_SIZE]) for at in range(0, len(names), ID_SIZE)])
        if -1 in out:
            at = out.index(-1) * ID_SIZE
            raise MissingPart(
                f"chunk {names[at : at + ID_SIZE].hex()[:12]} is not in this bundle",
                hint="import the bundle it depends on first",
            )
        return array("I", out)

    def name_of(self, number: int) -> bytes:
        which = bisect_right(self._first_chunk, number) - 1
        return self.bundles[which].catalog().name_of(number - self._first_chunk[which])

    def owner(self, frame: int) -> tuple[Bundle, int]:
        """The bundle a frame is in, and its number there."""
        which = bisect_right(self._first_frame, frame) - 1
        return self.bundles[which], frame - self._first_frame[which]

    def prefix_names(self, frame: int) -> bytes:
        """The names of a frame's prefix chunks, end to end."""
        bundle, number = self.owner(frame)
        return bundle.catalog().frames[number].prefix

    def prefix_of(self, frame: int) -> array[int]:
        """The numbers of a frame's prefix chunks. FormatError beyond the limits of size and depth."""
        known = self._prefix.get(frame)
        if known is None:
            names = self.prefix_names(frame)
            known = self._prefix[frame] = self.numbers(names) if names else array("I")
            if names:
                self.depth(frame)
                if sum(self.size_of[number] for number in known) > FRAME_RAW_MAX:
                    raise FormatError(
                        f"{self.owner(frame)[0].folder}: a frame depends on more data than the format allows"
                    )
        return known

    def depth(self, frame: int) -> int:
        """`steps`, from 0 to READ_MAX. FormatError for more, or a circle; MissingPart for a gap."""
        steps = self.steps(frame)
        if steps > READ_MAX:
            self.numbers(self.prefix_names(frame))
            raise FormatError(f"{self.owner(frame)[0].folder}: frames depend on each other without end")
        return steps

    def decode(
        self, frame: int, wanted: Callable[[int], bool], prefix: bytes, *, checked: bool = True
    ) -> dict[int, bytes]:
        """The frame's wanted chunks by number, each compared with its name if `checked`."""
        which = bisect_right(self._first_frame, frame) - 1
        first = self._first_chunk[which]
        found = self.bundles[which].decode(
            frame - self._first_frame[which],
            (lambda number: wanted(first + number)) if first else wanted,
            prefix,
            checked=checked,
        )
        return {first + number: data for number, data in found.items()} if first else found


def assemble(bundle: Bundle, digests: Iterable[Digest], library: BundleLookup) -> BundleSet:
    """The bundle and what rebuilding these blobs needs beside it. MissingPart says which bundles would supply what is not here."""
    out = BundleSet([bundle])
    catalog = bundle.catalog()
    absent = complete(out, {name for recipe in catalog.all_of(digests) for name in chunk_names(recipe)}, library)
    if absent:
        builds_on = bundle.header.prerequisites.bundles
        gone = [each for each in builds_on if library.bundle(each) is None]
        raise MissingPart(
            f"{bundle.folder}: {len(absent)} chunks of other bundles are missing: {supplied_by(bundle, gone or builds_on)}",
            hint=import_first(gone or builds_on),
        )
    return out


def supplied_by(bundle: Bundle, absent: Sequence[Digest]) -> str:
    """Who would supply what a delta lacks, in words."""
    about = bundle.header.prerequisites.words
    return f"{describe(absent, about)} has them" if absent else "the bundle does not say which bundle has them"


def complete(out: BundleSet, names: set[bytes], library: BundleLookup) -> set[bytes]:
    """Bring in the bundles that carry these chunks and the prefixes of their frames; the names nobody carries."""
    absent = _close(out, names, library)
    unreached = [n for n in range(out.frames) if out.steps(n) > READ_MAX]
    if unreached and not absent:
        # another carrier, plain or nearer to it, may lie in a bundle that was not asked, as something was found before it
        wanted = {name for frame in unreached for name in split_names(out.prefix_names(frame))}
        for bundle in library.bundles():
            with contextlib.suppress(MissingPart, Damaged):
                if not wanted.isdisjoint(bundle.catalog().numbers_of) and not bundle.missing_packs():
                    out.add(bundle)
        absent = _close(out, names, library)
    return absent


def _close(out: BundleSet, names: set[bytes], library: BundleLookup) -> set[bytes]:
    seen: set[int] = set()
    absent: set[bytes] = set()
    while names:
        unknown = {name for name in names if out.find(name) < 0}
        found = library.locate(unknown) if unknown else {}
        for each in {bundle.manifest.digest.text: bundle for bundle in found.values()}.values():
            out.add(each)
        absent |= unknown - found.keys()
        frames = {out.frame_of[out.find(name)] for name in names - absent} - seen
        seen |= frames
        names = {name for frame in frames for name in split_names(out.prefix_names(frame))} - absent
    return absent
