"""Recovery files: whatever is lost, up to as many as there are, comes back bit by bit; a slow second opinion checks each byte."""

from __future__ import annotations

import ast
import hashlib
import io
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from transfer.chunks import erasure
from transfer.chunks.erasure import BLOCK, MOST, Code, decode, encode, inverse
from transfer.errors import Damaged, MissingPart, UsageError

unhurried = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def slow_times(a: int, b: int) -> int:
    """Shift and XOR, as the polynomial says; nothing is shared with the module."""
    out = 0
    for bit in range(8):
        out ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        out ^= (0x11D << (bit - 8)) * (out >> bit & 1)
    return out


TIMES = [[slow_times(a, b) for b in range(256)] for a in range(256)]
INVERSE = [0] + [TIMES[a].index(1) for a in range(1, 256)]


def slow_coefficient(row: int, column: int) -> int:
    """The specification, literally."""
    above = TIMES[255 - column][255 - row]
    below = TIMES[255][255 ^ column ^ row]
    return TIMES[above][INVERSE[below]]


def slow_byte(files: Sequence[bytes], recovery: int, at: int) -> int:
    """One byte of a recovery file."""
    out = 0
    for number, data in enumerate(files):
        out ^= TIMES[slow_coefficient(recovery, number)][data[at] if at < len(data) else 0]
    return out


def slow_recovery(files: Sequence[bytes], recovery: int) -> bytes:
    return bytes(slow_byte(files, recovery, at) for at in range(max(map(len, files))))


class Dribble(io.BytesIO):
    """Gives what it likes, at least a byte; remembers whether it was asked."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        super().__init__(data)
        self._random = random.Random(seed)
        self.asked = False

    def read(self, size: int | None = -1, /) -> bytes:
        assert size and size > 0
        self.asked = True
        return super().read(self._random.randint(1, size))


def encoded(files: Sequence[bytes], recovery: int) -> list[bytes]:
    """The recovery files of these data files."""
    out = [bytearray() for _ in range(recovery)]
    counts: list[int] = []
    size = max(map(len, files))
    code = Code(len(files), recovery)
    encode([Dribble(each, len(each)) for each in files], size, code, [each.extend for each in out], counts.append)
    assert sum(counts) == sum(map(len, files))
    return list(map(bytes, out))


def decoded(have: Mapping[int, bytes], size: int, code: Code, wanted: Sequence[int]) -> list[bytes]:
    """The wanted files, padded."""
    out = [bytearray() for _ in wanted]
    streams = {number: Dribble(data, number) for number, data in have.items()}
    decode(streams, size, code, wanted, [each.extend for each in out])
    return list(map(bytes, out))


def without(everything: Sequence[bytes], lost: Iterable[int]) -> dict[int, bytes]:
    gone = set(lost)
    return {number: data for number, data in enumerate(everything) if number not in gone}


def seeded(seed: int, sizes: Iterable[int]) -> list[bytes]:
    dice = random.Random(seed)
    return [dice.randbytes(size) for size in sizes]


@st.composite
def codes(draw: st.DrawFn, most: int = MOST) -> Code:
    data = draw(st.integers(1, most - 1))
    return Code(data, draw(st.integers(1, most - data)))


@given(codes())
@example(Code(1, 254))
@example(Code(254, 1))
@unhurried
def test_the_matrix_is_the_specified_one(code: Code) -> None:
    rows = [code.row(number) for number in range(code.data + code.recovery)]
    assert rows[code.data] == b"\1" * code.data
    assert all(row[0] == 1 for row in rows[code.data :])
    for number, row in enumerate(rows):
        if number < code.data:
            assert row == bytes(each == number for each in range(code.data))
        else:
            assert row == bytes(slow_coefficient(number - code.data, each) for each in range(code.data))


@given(codes(), st.data())
@unhurried
def test_every_square_part_of_the_matrix_has_an_inverse(code: Code, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, min(code.data, code.recovery, 40)))
    rows = data.draw(st.permutations(range(code.recovery)))[:size]
    columns = data.draw(st.permutations(range(code.data)))[:size]
    part = [bytes(code.row(code.data + row)[column] for column in columns) for row in rows]
    for at, row in enumerate(inverse(part)):
        for to in range(size):
            total = 0
            for a, other in zip(row, part, strict=True):
                total ^= TIMES[a][other[to]]
            assert total == (at == to)


@pytest.mark.parametrize("code", [Code(128, 127), Code(127, 128)])
def test_the_largest_square_parts_have_an_inverse(code: Code) -> None:
    last = [code.row(code.data + number)[-127:] for number in range(127)]
    first = [code.row(code.data + code.recovery - 1 - number)[:127] for number in range(127)]
    for part in (first, last):
        assert inverse(inverse(part)) == part


def test_all_parts_of_two_by_two_of_a_small_matrix_and_no_coefficient_is_zero() -> None:
    code = Code(20, 20)
    rows = [code.row(20 + number) for number in range(20)]
    assert all(all(row) for row in rows)
    for a in range(20):
        for b in range(a):
            quotients = {TIMES[x][INVERSE[y]] for x, y in zip(rows[a], rows[b], strict=True)}
            assert len(quotients) == 20


def test_a_matrix_without_an_inverse_is_told() -> None:
    with pytest.raises(ValueError, match="without an inverse"):
        inverse([b"\1\2", b"\2\4"])


@given(st.data(), codes(12), st.sampled_from([8, 24, 64]), st.integers(0, 200))
@unhurried
def test_any_loss_comes_back(data: st.DataObject, code: Code, block: int, size: int) -> None:
    sizes = data.draw(st.lists(st.integers(0, size), min_size=code.data - 1, max_size=code.data - 1))
    sizes.insert(data.draw(st.integers(0, code.data - 1)), size)
    files = seeded(data.draw(st.integers(0, 1 << 30)), sizes)
    with patch.multiple(erasure, BLOCK=block, READ=3 * block, MEMORY=10 * block):
        recovery = encoded(files, code.recovery)
        assert recovery == [slow_recovery(files, number) for number in range(code.recovery)]
        everything = [*files, *recovery]
        numbers = st.integers(0, len(everything) - 1)
        lost = data.draw(st.sets(numbers, max_size=code.recovery))
        wanted = sorted(lost) or [data.draw(numbers)]
        found = decoded(without(everything, lost), size, code, wanted)
    assert found == [everything[number].ljust(size, b"\0") for number in wanted]


@pytest.mark.parametrize(("data", "recovery"), [(1, 1), (1, 254), (254, 1), (128, 127), (127, 128), (205, 50)])
@pytest.mark.parametrize("size", [0, 1, 9])
def test_the_widest_sets(data: int, recovery: int, size: int) -> None:
    code = Code(data, recovery)
    files = seeded(data, [size] + [number % (size + 1) for number in range(1, data)])
    everything = [*files, *encoded(files, recovery)]
    for at in {0, recovery - 1}:
        assert everything[data + at] == slow_recovery(files, at)
    dice = random.Random(size)
    worst = range(min(data, recovery))
    for lost in (worst, dice.sample(range(data + recovery), recovery)):
        wanted = sorted(lost)
        found = decoded(without(everything, lost), size, code, wanted)
        assert found == [everything[number].ljust(size, b"\0") for number in wanted]


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, erasure.READ + BLOCK + 3])
def test_blocks_as_large_as_they_are(size: int) -> None:
    code = Code(3, 3)
    files = seeded(size, [size - BLOCK // 2, size, 5])
    recovery = encoded(files, 3)
    dice = random.Random(size)
    for at in [0, 1, 2, size - 2, size - 1, *(dice.randrange(size) for _ in range(300))]:
        assert [each[at] for each in recovery] == [slow_byte(files, number, at) for number in range(3)]
    found = decoded(without([*files, *recovery], {0, 1, 3}), size, code, [0, 1])
    assert found == [files[0].ljust(size, b"\0"), files[1]]


def test_one_recovery_file_is_the_xor_of_all() -> None:
    files = seeded(1, [1000, 1000, 700])
    assert encoded(files, 1) == encoded(files, 9)[:1]
    assert encoded(files, 1)[0][:700] == bytes(a ^ b ^ c for a, b, c in zip(*files, strict=False))


def test_the_bytes_of_recovery_files_never_change() -> None:
    files = [bytes((number * 37 + at * at) % 256 for at in range(100 + number)) for number in range(5)]
    recovery = encoded(files, 4)
    assert [Code(5, 4).row(5 + number).hex() for number in range(3)] == ["0101010101", "01e7fd02b7", "01fdbe2c96"]
    assert (
        hashlib.sha256(b"".join(recovery)).hexdigest()
        == "c645f55776189243a143dc74541f279426786d147425f26a9bb853157131b3f6"
    )


def test_data_files_are_preferred_and_nothing_more_is_read() -> None:
    files = seeded(3, [50] * 6)
    code = Code(6, 4)
    have = {number: Dribble(each) for number, each in enumerate([*files, *encoded(files, 4)]) if number not in (1, 4)}
    assert code.needed(have) == (0, 2, 3, 5, 6, 7)
    decode(have, 50, code, [1], [lambda data: None])
    assert [number for number, stream in have.items() if stream.asked] == [0, 2, 3, 5, 6, 7]
    again = {number: Dribble(each) for number, each in enumerate(files)}
    got = bytearray()
    decode(again, 50, code, [2], [got.extend])
    assert got == files[2]
    assert [number for number, stream in again.items() if stream.asked] == [2]


def test_nothing_wanted_reads_nothing() -> None:
    have = {number: Dribble(b"data") for number in range(3)}
    decode(have, 4, Code(3, 2), [], [])
    assert not any(stream.asked for stream in have.values())


@pytest.mark.parametrize(("data", "recovery"), [(0, 1), (1, 0), (-1, 3), (200, 56), (1, 255)])
def test_limits(data: int, recovery: int) -> None:
    with pytest.raises(UsageError, match=f"{data} files cannot have {recovery}"):
        Code(data, recovery)


@pytest.mark.parametrize("number", [-1, 5])
def test_a_file_beyond_the_set(number: int) -> None:
    with pytest.raises(IndexError):
        Code(3, 2).row(number)


def test_too_few_are_told_with_how_many_to_bring() -> None:
    with pytest.raises(MissingPart, match="2 of 7 files are at hand, 4 are needed") as caught:
        decoded({0: b"a", 5: b"b"}, 1, Code(4, 3), [1])
    assert "2 more" in caught.value.hint


def test_a_data_file_longer_than_said() -> None:
    with pytest.raises(Damaged, match="data file 1: longer than the 4 bytes"):
        encode([io.BytesIO(b"four"), io.BytesIO(b"fives")], 4, Code(2, 1), [lambda data: None])


@pytest.mark.parametrize(("size", "text"), [(3, "cut short, 1 bytes"), (5, "longer than the 4 bytes")])
def test_a_recovery_file_of_another_size(size: int, text: str) -> None:
    with pytest.raises(Damaged, match=f"recovery file 2: {text}"):
        decoded({0: b"four", 4: bytes(size)}, 4, Code(2, 3), [1])


class _Endless:
    """The same bytes again, up to a size: costs nothing."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int, /) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return b"\x5a" * size


def test_memory_stays_bounded() -> None:
    size = 2 * BLOCK + 5
    tracemalloc.start()
    try:
        encode([_Endless(size) for _ in range(200)], size, Code(200, 50), [lambda data: None] * 50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


def test_it_stands_alone(tmp_path: Path) -> None:
    """The decoder may be copied into a script that runs where nothing is installed: only names of errors and a type are ours."""
    text = Path(erasure.__file__).read_text()
    ours = []
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Import)
        if isinstance(node, ast.ImportFrom):
            assert node.module
            if node.module.startswith("transfer"):
                ours.append(node.module)
            else:
                assert node.module.partition(".")[0] in sys.stdlib_module_names
    assert ours == ["transfer.errors", "transfer.streams"]
    stubs = "class UsageError(Exception): ...\nDamaged = MissingPart = UsageError"
    text = re.sub(r"^from transfer\.errors .*$", stubs, text, flags=re.MULTILINE)
    text = re.sub(r"^from transfer\.streams .*$", "", text, flags=re.MULTILINE)
    script = tmp_path / "alone.py"
    script.write_text(
        text
        + "\nimport io\nout, back = [bytearray(), bytearray()], bytearray()\ncode = Code(2, 2)\n"
        + "encode([io.BytesIO(b'hello'), io.BytesIO(b'all')], 5, code, [out[0].extend, out[1].extend])\n"
        + "decode({2: io.BytesIO(out[0]), 3: io.BytesIO(out[1])}, 5, code, [1], [back.extend])\nprint(bytes(back))\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout == "b'all\\x00\\x00'\n"
