"""Recovery data and lists of media: how packs are grouped, what is refused, and what a set stands."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.run import run, says
from tests.support.specimens import GOLDEN, blobs_in
from transfer.bundle.medium import parse_media
from transfer.bundle.reader import Bundle
from transfer.bundle.recovery import RecoveryPart, grouped, parse_recovery
from transfer.chunks.erasure import MOST
from transfer.errors import FormatError, UsageError
from transfer.flows.recovery import packs_of
from transfer.model import Digest

MEDIA = GOLDEN / "media"


@given(st.integers(1, 2000), st.integers(1, 50))
def test_so_many_percent_of_any_group_may_be_lost(count: int, share: int) -> None:
    groups = grouped(count, share)
    assert sorted(itertools.chain.from_iterable(numbers for numbers, _ in groups)) == list(range(count))
    for numbers, recovery in groups:
        assert len(numbers) + recovery <= MOST
        assert recovery * 100 >= (len(numbers) + recovery) * share
        assert (recovery - 1) * 100 < (len(numbers) + recovery - 1) * share


@pytest.mark.parametrize("share", [-1, 0, 51, 100])
def test_other_shares_cannot_be(share: int) -> None:
    with pytest.raises(UsageError):
        grouped(3, share)


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Any], Digest, list[RecoveryPart]]:
    """The golden set's recovery.json, its bundle and that bundle's packs."""
    with Bundle(MEDIA / "one" / "zoo") as bundle:
        value = json.loads((MEDIA / "one" / "zoo" / "recovery.json").read_bytes())
        return value, bundle.manifest.digest, packs_of(bundle)


def refused(value: object, digest: Digest, packs: list[RecoveryPart]) -> None:
    with pytest.raises(FormatError):
        parse_recovery(json.dumps(value).encode(), "x", digest, packs)


def test_what_does_not_fit_the_bundle_is_refused(golden: tuple[dict[str, Any], Digest, list[RecoveryPart]]) -> None:
    value, digest, packs = golden
    assert parse_recovery(json.dumps(value).encode(), "x", digest, packs).bundle == digest
    group = value["groups"][0]
    data, recovery = group["data"], group["recovery"]
    changes: tuple[dict[str, Any], ...] = (
        {"version": 2},
        {"code": "xor"},
        {"share": 100},
        {"share": True},
        {"bundle": "sha256:" + "0" * 64},
        {"groups": []},
        {"groups": [group, group]},
        {"groups": [{**group, "data": data[1:]}]},
        {"groups": [{**group, "recovery": []}]},
        {"groups": [{**group, "recovery": [*recovery, recovery[0]]}]},
        {"groups": [{**group, "recovery": [{**recovery[0], "size": 10**18}]}]},
        {"groups": [{**group, "recovery": [{**recovery[0], "size": -1}]}]},
        {"groups": [{**group, "recovery": [{**recovery[0], "digest": "sha256:../../x"}]}]},
        {"groups": [{**group, "recovery": [{**recovery[0], "digest": f"sha256:{n:064x}"} for n in range(MOST)]}]},
        {"groups": [{**group, "data": [{**data[0], "size": data[0]["size"] + 1}, *data[1:]]}]},
    )
    for change in changes:
        refused({**value, **change}, digest, packs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
KEYS = ["format", "version", "bundle", "code", "share", "groups", "media", "set", "this"]


@given(st.sampled_from(KEYS), JSON, st.binary(max_size=40))
def test_nonsense_is_malformed_and_nothing_worse(key: str, value: object, tail: bytes) -> None:
    for name, parse in (
        ("recovery.json", lambda data: parse_recovery(data, "x", Digest("sha256:" + "0" * 64), [])),
        ("medium.json", lambda data: parse_media(data, "x")),
    ):
        good = json.loads((MEDIA / "two" / "zoo" / name).read_bytes())
        for data in (json.dumps({**good, key: value}).encode(), json.dumps(good).encode()[: len(tail) * 7] + tail):
            try:
                parse(data)
            except FormatError:
                continue


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(MEDIA, tmp_path / "media")
    return tmp_path / "media"


def names_of(place: Path) -> list[Path]:
    """The packs and recovery files on one medium of the golden set."""
    said = parse_media((place / "zoo" / "medium.json").read_bytes(), "x")
    medium = said.medium(said.this)
    assert medium
    return [place / "zoo" / name for name in medium.files]


def test_any_three_files_of_eight_may_be_spoiled_and_no_fourth(copied: Path, tmp_path: Path) -> None:
    places = sorted(path for path in copied.iterdir() if path.is_dir())
    expected = json.loads((copied / "expected.json").read_bytes())["blobs"]
    files = [path for place in places for path in names_of(place)]
    assert len(files) == 8
    out = tmp_path / "o"
    for number, chosen in enumerate(itertools.combinations(files, 3)):
        if number % 7:
            continue
        kept = {path: path.read_bytes() for path in chosen}
        for turn, (path, data) in enumerate(kept.items()):
            if turn == 0:
                path.unlink()
            else:
                path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if turn == 1 else data[:-1])
        shutil.rmtree(out, ignore_errors=True)
        run("import", *places, "--to", f"oci:{out}", "--no-store", "-q")
        assert blobs_in(out) == expected
        for path, data in kept.items():
            path.write_bytes(data)
    packs = [path for path in files if "blobs" in path.parts]
    for path in packs[:4]:
        path.unlink()
    shutil.rmtree(out, ignore_errors=True)
    code, said = says("import", *places, "--to", f"oci:{out}", "--no-store")
    assert code == 14, said
    assert "any 1 more files of this set complete the bundle" in said


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "medium.json", "recovery.json"])
@pytest.mark.parametrize("spoil", ["gone", "garbage", "empty"])
def test_one_medium_may_have_lost_what_all_have(copied: Path, tmp_path: Path, name: str, spoil: str) -> None:
    path = copied / "one" / "zoo" / name
    path.unlink()
    if spoil != "gone":
        path.write_bytes(b"{]" if spoil == "garbage" else b"")
    out = tmp_path / "o"
    run("import", copied / "one", copied / "two", copied / "three", "--to", f"oci:{out}", "--no-store", "-q")
    assert blobs_in(out) == json.loads((copied / "expected.json").read_bytes())["blobs"]
