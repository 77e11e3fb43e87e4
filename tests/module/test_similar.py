"""Programs that share code: found wherever the code stands, patched against each other, and whole in themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.run import alone, run, says
from tests.support.specimens import blobs_in
from tests.support.zoo import Layout, layer, noise, program, siblings
from transfer.bundle import seal as sealing
from transfer.bundle.reader import Bundle
from transfer.chunks.bucket import FRAME_RAW, Buckets, OpenFrame
from transfer.chunks.name import Kind, chunk_id
from transfer.chunks.similar import CHUNK_MIN, RecentPrograms, SimilarChunk, eligible
from transfer.engines.ocilayout import LayoutSource
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.select import select
from transfer.model import ChunkId

FIRST, OTHER = program(range(40), 64), program(range(200, 240), 64)
MOVED = program([*range(30, 40), *range(90, 94), *range(26)], 4096 + 16)


class Shop:
    """A place to keep programs, and what a later run would load."""

    def __init__(self, reach: int = 4) -> None:
        self.loaded: dict[ChunkId, bytes] = {}
        self.buckets = Buckets(lambda reassembled: self.buckets.release(reassembled))
        self.recent = RecentPrograms(self.buckets, self.loaded.__getitem__, reach)

    def see(self, data: bytes, offset: int = 0) -> list[ChunkId]:
        name = chunk_id(data)
        self.loaded[name] = data
        frame = self.buckets.add(name, len(data), data, Kind.ELF)
        found = self.recent.look(frame, offset)
        if found:
            assert self.buckets.pop_last(frame) == data
        assert all(each.data == self.loaded[each.name] for each in found)
        return [each.name for each in found]

    def skip(self, data: bytes, offset: int = 0) -> None:
        """What an earlier run packed."""
        name = chunk_id(data)
        self.loaded[name] = data
        self.recent.keep(self.buckets.add(name, len(data), None, Kind.ELF), offset)


def test_code_is_found_where_it_moved_to() -> None:
    shop = Shop()
    assert shop.see(FIRST) == []
    assert shop.see(OTHER) == []
    assert shop.see(MOVED) == [chunk_id(FIRST)]


def test_a_piece_of_a_program_is_found_by_its_place_in_the_file() -> None:
    cut = 100_003
    shop = Shop()
    assert shop.see(FIRST) == []
    assert shop.see(MOVED[cut:], cut) == [chunk_id(FIRST)]
    assert Shop().see(MOVED[cut:], cut) == []
    shop = Shop()
    assert shop.see(FIRST) == []
    assert shop.see(MOVED[cut:], 0) == []


def test_noise_is_like_nothing() -> None:
    shop = Shop()
    for seed in range(4):
        assert shop.see(noise(seed, 1 << 20)) == []
    assert shop.see(bytes(1 << 20)) == []
    assert shop.see(b"\xb9" * (1 << 20)) == []
    assert shop.see(b"\xb9" * (2 << 20)) == []


def test_what_went_by_long_ago_is_forgotten() -> None:
    for frames, found in ((1, [chunk_id(FIRST)]), (2, [])):
        shop = Shop(reach=1)
        shop.see(FIRST)
        for number in range(frames * FRAME_RAW // (4 << 20)):
            shop.see(noise(number, 4 << 20))
        assert shop.see(MOVED) == found, frames


def test_what_an_earlier_run_packed_is_found_as_well() -> None:
    live, again = Shop(), Shop()
    for data in (OTHER, FIRST):
        live.see(data)
        again.skip(data)
    assert live.recent.state == again.recent.state != Shop().recent.state
    assert again.recent.named({chunk_id(FIRST)}) == (SimilarChunk(chunk_id(FIRST), len(FIRST), None),)
    assert live.see(MOVED) == again.see(MOVED) == [chunk_id(FIRST)]
    assert again.recent.named({chunk_id(FIRST)}) == (SimilarChunk(chunk_id(FIRST), len(FIRST), FIRST),)


def test_the_latest_of_two_counts_in_whatever_order_they_are_loaded() -> None:
    twin = FIRST + noise(1, 16)
    live, again = Shop(), Shop()
    for shop, see in ((live, live.recent.look), (again, again.recent.keep)):
        for data in (FIRST, twin):
            shop.loaded[chunk_id(data)] = data
            see(shop.buckets.add(chunk_id(data), len(data), data, Kind.ELF), 0)
    # the first look finds the twin, so that only one is kept there
    assert live.see(MOVED) == [chunk_id(FIRST)]
    assert again.see(MOVED) == [chunk_id(twin)]


def test_only_programs_of_some_size_are_looked_at() -> None:
    assert eligible(Kind.ELF, CHUNK_MIN)
    assert not eligible(Kind.ELF, CHUNK_MIN - 1)
    assert not eligible(Kind.OTHER, CHUNK_MIN)


def write(layout: Layout, folder: Path, **options: int) -> Path:
    """The layout as a bundle."""
    source = LayoutSource(layout.write(folder / "oci"))
    settings = {"level": 3, "jobs": 0, **options}
    export(source, select(source, [], None, silent), folder / "b", observer=silent, **settings)  # type: ignore[arg-type]
    return folder / "b"


def patched(bundle: Path) -> dict[int, set[int]]:
    """The frames that have prefixes, and the frames those are in."""
    with Bundle(bundle) as opened:
        catalog = opened.catalog()
        return {
            number: {catalog.frame_of[catalog.find(each.prefix[at : at + 32])] for at in range(0, len(each.prefix), 32)}
            for number, each in enumerate(catalog.frames)
            if each.prefix
        }


@pytest.mark.parametrize("level", [2, 3, 9])
def test_siblings_are_patched_and_whole_in_themselves(level: int, tmp_path: Path) -> None:
    layout = siblings()
    bundle = write(layout, tmp_path, level=level)
    assert patched(bundle)
    with Bundle(bundle) as opened:
        assert opened.is_patched
        assert not opened.is_delta
        assert not opened.header.prerequisites
    plain = write(layout, tmp_path / "plain", level=1)
    assert not patched(plain)
    weight = {each: sum(p.stat().st_size for p in each.rglob("*") if p.is_file()) for each in (bundle, plain)}
    assert weight[bundle] < weight[plain]  # all of it is within one window here: no great difference
    run("verify", bundle, "--deep", "-q")
    assert json.loads(run("inspect", bundle, "--json"))["prerequisites"]["chunks"] == 0
    run("import", bundle, "--to", f"oci:{tmp_path / 'out'}", "--no-store", "-q")
    assert blobs_in(tmp_path / "out") == {digest: len(data) for digest, data in layout.blobs.items()}


def test_one_of_them_alone_brings_what_it_is_patched_against(tmp_path: Path) -> None:
    layout = siblings()
    bundle = write(layout, tmp_path)
    run("import", bundle, "siblings/second:1", "--to", f"oci:{tmp_path / 'out'}", "--no-store", "-q")
    assert set(blobs_in(tmp_path / "out")) < set(layout.blobs)
    if shutil.which("zstd"):
        assert alone(bundle, "siblings/second:1", "--rebuild", tmp_path / "alone") == 0
        assert {p.name for p in (tmp_path / "alone" / "blobs" / "sha256").iterdir()} == {
            p.name for p in (tmp_path / "out" / "blobs" / "sha256").iterdir()
        }


def test_who_needs_a_lost_pack_is_told_by_prefixes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PACK_SIZE", 1)
    bundle = write(siblings(), tmp_path)
    with Bundle(bundle) as opened:
        (number, older), *_ = patched(bundle).items()
        users = set(opened.header.users(range(number, number + 1)))
        pack = opened.path_of(opened.header.packs[opened.catalog().frames[min(older)].pack])
    assert users
    pack.unlink()
    code, text = says("verify", bundle)
    assert code == 14
    assert all(user in text for user in users)
    code, text = says("import", bundle, "siblings/second:1", "--to", f"oci:{tmp_path / 'out'}", "--no-store")
    assert code == 14
    assert pack.name in text


def test_another_choice_of_images_does_not_take_up_findings_that_hold_no_more(tmp_path: Path) -> None:
    """An export of all that was broken off, then of the second image alone: what it was like does not exist now."""
    layout = siblings()
    source = LayoutSource(layout.write(tmp_path / "oci"))
    folder = tmp_path / "b"

    class Stop(Exception):
        pass

    def stop(event: object) -> None:
        if type(event).__name__ == "Done":
            raise Stop

    with pytest.raises(Stop):
        export(source, select(source, [], None, silent), folder, level=3, jobs=0, observer=stop)
    chosen = select(source, ["siblings/second:1"], None, silent)
    export(source, chosen, folder, level=3, jobs=0, observer=silent)
    assert not patched(folder)
    fresh = export(source, chosen, tmp_path / "fresh", level=3, jobs=0, observer=silent)
    with Bundle(folder) as opened:
        assert opened.manifest.digest == fresh.digest


def test_a_delta_on_such_a_bundle_rebuilds(tmp_path: Path) -> None:
    first = write(siblings(), tmp_path)
    layout = Layout()
    layout.name(layout.image([layer({"usr/bin/second": MOVED, "usr/bin/new": program(range(300, 340), 96)})]), "next:2")
    source = layout.write(tmp_path / "oci2")
    delta = tmp_path / "delta"
    run("export", "--from", f"oci:{source}", "-o", delta, "--base", first, "-q")
    with Bundle(delta) as opened:
        assert opened.is_delta
    run("import", delta, "--seed", first, "--to", f"oci:{tmp_path / 'out'}", "-q")
    assert blobs_in(tmp_path / "out") == {digest: len(data) for digest, data in layout.blobs.items()}


def test_frames_of_programs_do_not_change_under_those_who_look(tmp_path: Path) -> None:
    """A frame that is flushed keeps its bytes as long as it is within reach, however many come after it."""
    kept: list[OpenFrame] = []
    buckets = Buckets(kept.append)
    recent = RecentPrograms(buckets, lambda name: b"", reach=2)
    frame = buckets.add(chunk_id(FIRST), len(FIRST), FIRST, Kind.ELF)
    recent.look(frame, 0)
    for number in range(8):
        data = noise(number, 4 << 20)
        recent.look(buckets.add(chunk_id(data), len(data), data, Kind.ELF), 0)
        for each in kept:
            buckets.release(each)
        kept.clear()
    assert recent.named({chunk_id(FIRST)}) == (SimilarChunk(chunk_id(FIRST), len(FIRST), FIRST),)
