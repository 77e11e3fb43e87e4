"""Whatever zip or gzip file lies in a layer, sound or broken: the layer comes back, and a delta's base finds its files' paths."""

from __future__ import annotations

import contextlib
from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import engines
from tests.support.nested import There, gz, raw_entry, tarred, zipped
from tests.support.zoo import layer
from transfer.chunks import fold, unfold, walk
from transfer.chunks.fold import folded
from transfer.errors import FormatError
from transfer.streams import IterReader, blocks
from transfer.work import Pool

settings.register_profile("here", deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
settings.load_profile("here")

TEXT = st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=60), st.integers(1, 300))
ENTRIES = st.dictionaries(
    st.text("ab/.", min_size=1, max_size=12), st.one_of(TEXT, st.binary(max_size=300)), max_size=8
)
ZIPS = st.builds(
    lambda files, stored, streamed, level: zipped(files, stored=list(files)[:stored], streamed=streamed, level=level),
    ENTRIES,
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 9),
)
NESTED = st.one_of(
    ZIPS,
    st.builds(lambda one, two: zipped({"x.jar": one, "y.jar": two}, stored=["x.jar", "y.jar"]), ZIPS, ZIPS),
    st.builds(lambda files, name: gz(tarred(files), name), ENTRIES, st.sampled_from(["", "n"])),
    st.builds(lambda parts: b"".join(map(gz, parts)), st.lists(TEXT, min_size=1, max_size=4)),
    st.builds(
        lambda name, data, size: raw_entry(name, data, data, size=size),
        st.binary(max_size=9),
        TEXT,
        st.integers(0, 2000),
    ),
)


@pytest.fixture(autouse=True, scope="module")
def _small() -> object:
    """Limits so small that some kB reach them."""
    engines.promised("deflate")
    with pytest.MonkeyPatch.context() as patched:
        for module, name, value in (
            (walk, "ZIP_MIN", 40),
            (walk, "GZIP_MIN", 40),
            (walk, "STREAM_MAX", 5000),
            (walk, "CHUNK_MAX", 3000),
            (walk, "_SKELETON_MAX", 500),
            (unfold, "_TRIAL", 900),
            (unfold, "_FOLD_MIN", 300),
            (unfold, "_WORTH", 9),
            (unfold, "_SHRUNK", 9),
            (unfold, "_OWN_CHUNK", 100),
            (unfold, "FOLD_GAPS", 700),
            (fold, "FOLD_GAPS", 700),
            (fold, "_COPY", 400),
        ):
            patched.setattr(module, name, value)
        yield


def damaged(data: bytes, at: int, change: int, cut: int) -> bytes:
    """With one byte changed, and something cut off or put on."""
    out = bytearray(data)
    if out and change:
        out[at % len(out)] ^= change
    return bytes(out[: len(out) - cut]) if cut >= 0 else bytes(out) + b"\0" * -cut


@given(
    st.lists(NESTED, min_size=1, max_size=4),
    st.integers(0, 1 << 20),
    st.one_of(st.just(0), st.integers(0, 255)),
    st.one_of(st.just(0), st.integers(-600, 400)),
    st.integers(0, 2),
)
def test_a_layer_comes_back(files: list[bytes], at: int, change: int, cut: int, jobs: int) -> None:
    named = {f"f{n}.jar": damaged(data, at, change, cut) if n % 2 else data for n, data in enumerate(files)}
    data = layer({"before": b"b" * 1000, **named})
    there = There(data, jobs)
    assert there.back() == data
    if not any(path.endswith(b".jar") for path in there.paths):  # what is not understood may go by another name
        assert [p for p, _ in groupby(there.paths)] == [p for p, _ in groupby(there.paths_again())]


@given(st.lists(NESTED, min_size=1, max_size=3), st.integers(0, 1 << 20), st.integers(1, 255), st.integers(0, 300))
def test_folds_that_are_not_sound_are_refused_or_make_other_bytes(
    files: list[bytes], at: int, change: int, cut: int
) -> None:
    there = There(layer({f"f{n}.jar": data for n, data in enumerate(files)}))
    unfolded = there.unfolded
    for lead, run in there.runs():
        bad = damaged(b"".join(blocks(run, 1 << 20)), at, change, cut)
        runs = [(lead, IterReader(iter([bad])))]
        with Pool(0, "test") as pool, contextlib.suppress(FormatError):
            assert sum(map(len, folded(runs, IterReader(iter([unfolded])), pool, 2, "x"))) < 1 << 24
