"""Sets of frame numbers, as a header writes them."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from transfer.chunks.pack import FRAMES_MAX
from transfer.errors import FormatError


class Ranges:
    """Rising numbers, kept as stretches: what it costs goes with how they are written (`0-3,7,9-12`), not with how many they are."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        """`pairs`: first and last number of each stretch, rising and apart."""
        self._firsts, self._lasts = array("I"), array("I")
        for first, last in pairs:
            self._firsts.append(first)
            self._lasts.append(last)

    @staticmethod
    def of(numbers: Iterable[int]) -> Ranges:
        """From single numbers, in any order."""
        out: list[list[int]] = []
        for number in sorted(set(numbers)):
            if out and number == out[-1][1] + 1:
                out[-1][1] = number
            else:
                out.append([number, number])
        return Ranges((first, last) for first, last in out)

    @staticmethod
    def parse(text: object, where: str, limit: int = FRAMES_MAX) -> Ranges:
        """What `str` wrote; FormatError if it is malformed, not rising, or names a number that is not below `limit`."""
        if not isinstance(text, str):
            raise FormatError(f"{where}: a list of frames is a string")
        out, before = Ranges(), -1
        for part in _parts(text):
            found = _RANGE.fullmatch(part)
            low = int(found[1]) if found else -1
            high = int(found[2] or found[1]) if found else -1
            if not before < low <= high < limit:
                raise FormatError(f"{where}: malformed frame list {part!r:.40}")
            out._firsts.append(low)
            out._lasts.append(high)
            before = high
        return out

    def __str__(self) -> str:
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.pairs())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """First and last of each stretch."""
        return zip(self._firsts, self._lasts, strict=True)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.pairs():
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and (self._firsts, self._lasts) == (other._firsts, other._lasts)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def end(self) -> int:
        """One more than the last number; 0 for none."""
        return self._lasts[-1] + 1 if self._lasts else 0

    def meets(self, span: range) -> bool:
        """Whether any number of `span` (a range of step 1) is among these."""
        at = bisect_right(self._firsts, span.stop - 1) - 1
        return len(span) > 0 and at >= 0 and self._lasts[at] >= span.start


_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def _parts(text: str) -> Iterator[str]:
    """The text between commas, one at a time: a list of them would be many times as large."""
    at = 0
    while text and at <= len(text):
        end = text.find(",", at)
        end = len(text) if end < 0 else end
        yield text[at:end]
        at = end + 1
