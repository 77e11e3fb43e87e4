"""How changed chunks find their partners in a base: by path, by nearly the path, and by a chunk that a renamed file still has."""

from __future__ import annotations

import pytest

from transfer.chunks.name import NO_PARTNER, chunk_id
from transfer.chunks.patch import BaseFiles, DeltaMatcher, normalised
from transfer.model import ChunkId

SIZE = 100_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"lib/libfoo.so.1.2", b"lib/libfoo.so.1.3"),
        (b"numpy.libs/libopenblas64_-6bb31eeb.so", b"numpy.libs/libopenblas64_-ff651d7f.so"),
        (b"lib/libx-76c43bf0.so.59", b"lib/libx-0a1b2c3d.so.60"),
        (b"static/js/main.4f3c2a1b.js", b"static/js/main.9d8e7f6a.js"),
        (b"assets/index-BhK2d9xQ.css", b"assets/index-Q7rT2m1Z.css"),
        (b"app/lib/guava-33.7.0-jre.jar", b"app/lib/guava-33.8.0-jre.jar"),
        (b"pillow.libs/liblzma-c9407571.so.5.6.3", b"pillow.libs/liblzma-13fa198c.so.5.4.5"),
        (b"pillow.libs/libharfbuzz-89381d8f.so.0.60850.0", b"pillow.libs/libharfbuzz-144af51e.so.0"),
    ],
)
def test_versions_and_hashes_in_names_do_not_count(one: bytes, other: bytes) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"bin/python", b"bin/perl"),
        (b"lib/libssl.so.3", b"lib/libcrypto.so.3"),
        (b"js/main.js", b"js/vendor.js"),
        (b"modules/dashboard.py", b"modules/mailbox.py"),
        (b"x86_64-linux-gnu/a", b"aarch64-linux-gnu/a"),
        (b"share/feedface", b"share/deadbeef"),
    ],
)
def test_other_names_stay_other_names(one: bytes, other: bytes) -> None:
    assert normalised(one) != normalised(other)


def name(text: str) -> ChunkId:
    return chunk_id(text.encode())


def base(*files: tuple[bytes, list[str]]) -> tuple[DeltaMatcher, dict[str, int]]:
    """A base of one layer, of files with these chunks; and the chunks' numbers."""
    numbers = {each: at for at, each in enumerate(dict.fromkeys(c for _, chunks in files for c in chunks))}
    older = BaseFiles()
    older.add_layer([], iter([(path, numbers[each], SIZE) for path, chunks in files for each in chunks]))
    known = {bytes(name(each)): at for each, at in numbers.items()}
    return DeltaMatcher(older, lambda each: known.get(each, NO_PARTNER), lambda number: True), numbers


def test_a_renamed_file_is_found_by_a_chunk_that_stayed() -> None:
    matcher, numbers = base((b"old/there.bin", ["a", "b", "c", "d"]), (b"other", ["x", "y"]))
    matcher.begin_blob()
    matcher.known(name("a"), b"new/elsewhere.dat", 0)
    found = matcher.partners(b"new/elsewhere.dat", 4 * SIZE, SIZE, SIZE)
    assert numbers["b"] in found
    assert not {numbers["x"], numbers["y"]} & set(found)
    matcher.known(name("c"), b"new/elsewhere.dat", 2 * SIZE + 50)
    assert numbers["d"] in matcher.partners(b"new/elsewhere.dat", 4 * SIZE, 3 * SIZE + 50, SIZE)


def test_a_file_that_has_its_name_goes_by_that() -> None:
    matcher, numbers = base((b"here", ["a", "b"]), (b"copy", ["a", "z"]))
    matcher.begin_blob()
    matcher.known(name("a"), b"here", 0)
    assert matcher.partners(b"here", 2 * SIZE, SIZE, SIZE) == (numbers["a"], numbers["b"])


def test_a_chunk_of_another_file_that_went_by_says_nothing() -> None:
    matcher, _ = base((b"old", ["a", "b"]))
    matcher.begin_blob()
    matcher.known(name("a"), b"one", 0)
    assert matcher.partners(b"two", 2 * SIZE, SIZE, SIZE) == ()
    assert matcher.partners(b"three", 2 * SIZE, 0, SIZE) == ()


def test_what_has_no_chunk_and_no_name_there_has_no_partner() -> None:
    matcher, _ = base((b"old", ["a", "b"]))
    matcher.begin_blob()
    assert matcher.partners(b"fresh", SIZE, 0, SIZE) == ()
    assert matcher.partners(b"", -1, SIZE, SIZE) == ()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_numbered_files_the_one_with_the_same_number_is_the_older_self(number: int) -> None:
    files = [(b"app-1.0.jar!/org/Outer$%d.class" % n, [f"c{n}"]) for n in (1, 2, 3)]
    matcher, numbers = base(*files)
    matcher.begin_blob()
    found = matcher.partners(b"app-1.1.jar!/org/Outer$%d.class" % number, SIZE, 0, SIZE)
    assert found == (numbers[f"c{number}"],)
