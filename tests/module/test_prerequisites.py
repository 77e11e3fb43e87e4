"""What a delta depends on, as a header says it and as people read it."""

from __future__ import annotations

import pytest

from transfer.bundle.prerequisites import NONE, Prerequisites, describe, import_first
from transfer.errors import FormatError
from transfer.model import Digest

A, B, C, D = (Digest(f"sha256:{letter * 64}") for letter in "abcd")


@pytest.mark.parametrize(
    "given",
    [
        NONE,
        Prerequisites(3, 4000, (A, B), {A: "app:1; 2026-01-01"}, (C,)),
        Prerequisites(0, 0, (A,), {}, ()),
    ],
)
def test_it_is_written_and_read_alike(given: Prerequisites) -> None:
    found = Prerequisites.parse(given.as_json(), "here")
    assert (found.chunks, found.bytes, found.bundles, found.layers) == (
        given.chunks,
        given.bytes,
        given.bundles,
        given.layers,
    )
    assert dict(found.words) == dict(given.words)
    assert bool(found) == bool(given.bundles or given.chunks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": -1},
        {"bytes": "1"},
        {"bundles": ["x"]},
        {"bundles": 5},
        {"about": {str(A): 5}},
        {"about": {str(A): "two\nlines"}},
        {"layers": ["sha256:1"]},
    ],
)
def test_what_is_malformed_is_told(wrong: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        Prerequisites.parse({"chunks": 1, "bundles": [str(A)], **wrong}, "here")


def test_bundles_in_words() -> None:
    assert describe([A]) == "bundle aaaaaaaaaaaa"
    assert describe([A, B], {B: "app:1"}) == "bundles aaaaaaaaaaaa, bbbbbbbbbbbb (app:1)"
    assert describe([A, B, C, D]).endswith("cccccccccccc and 1 more")
    assert "--seed" in import_first([A]) and "--seed" in import_first([])
