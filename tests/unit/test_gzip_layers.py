"""Gzip layers: small bundles and deltas as of plain layers, every digest as it was, and nothing that an odd one could break."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.gzipped import (
    GZIP_LAYER,
    comes_back,
    image_of,
    members,
    odd,
    out,
    packed,
    tar,
    words,
    zlib_stream,
)
from tests.support.run import alone, files, run, says
from tests.support.zoo import Layout
from transfer.bundle.catalog import OPAQUE, PLAIN, TOGETHER
from transfer.bundle.reader import Bundle
from transfer.bundle.writer import BundleWriter
from transfer.chunks import deflate
from transfer.engines.ocilayout import LayoutSource
from transfer.errors import Unsupported
from transfer.events import Noted, silent
from transfer.flows.export import export
from transfer.flows.select import select
from transfer.model import OCI_LAYER
from transfer.streams import sha256


@pytest.fixture(autouse=True)
def _codec() -> None:
    engines.promised("deflate")


@pytest.fixture(name="without_codec")
def _without_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    deflate.codec.cache_clear()
    monkeypatch.setitem(sys.modules, "transfer_deflate", None)
    yield
    deflate.codec.cache_clear()


def encodings(bundle: Path) -> dict[str, int]:
    with Bundle(bundle) as opened:
        return {str(digest): recipe.encoding for digest, recipe in opened.catalog().recipes.items()}


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "zlib 1": lambda data: zlib_stream(data, 1),
    "zlib 6": zlib_stream,
    "zlib 9": lambda data: zlib_stream(data, 9),
    "members": members,
    "stored": lambda data: zlib_stream(data, 0),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_back_and_costs_what_its_files_do(name: str, tmp_path: Path) -> None:
    data = tar()
    stream = STREAMS[name](data)
    apart = out(image_of([stream], [data], "app:1"), tmp_path / "apart")
    plain = Layout()
    plain.name(plain.image([data]), "app:1")
    assert set(encodings(apart).values()) == {TOGETHER, PLAIN}
    assert packed(apart) < packed(out(plain, tmp_path / "plain")) + len(stream) // 100 + 1000
    comes_back(image_of([stream], [data], "app:1"), apart)


@pytest.mark.parametrize("program", ["gzip -6", "gzip -9", "pigz -6 -b 128", "pigz -9 --rsyncable"])
def test_streams_of_programs_come_back(program: str, tmp_path: Path) -> None:
    if not shutil.which(program.split()[0]):
        pytest.skip(f"no {program.split()[0]} here")
    data = tar()
    stream = subprocess.run([*program.split(), "-n", "-c"], input=data, capture_output=True, check=True).stdout
    layout = image_of([stream], [data], "app:1")
    bundle = out(layout, tmp_path / "b")
    assert str(sha256(data)) in encodings(bundle)
    comes_back(layout, bundle)


def test_plain_and_gzip_layers_of_one_content_are_held_once(tmp_path: Path) -> None:
    data = tar()
    layout = image_of([zlib_stream(data), zlib_stream(data, 9)], [data, data], "app:1")
    one = packed(out(image_of([zlib_stream(data)], [data], "app:1"), tmp_path / "one"))
    layout.name(layout.image([data]), "app:plain")
    mixed = out(layout, tmp_path / "mixed")
    assert packed(mixed) < one + 2000
    comes_back(layout, mixed)


def test_a_delta_holds_what_changed(tmp_path: Path) -> None:
    old, new = tar(), tar(changed=2)
    base = out(image_of([zlib_stream(old)], [old], "app:1"), tmp_path / "base")
    layout = image_of([zlib_stream(new)], [new], "app:2")
    delta = out(layout, tmp_path / "delta", "--base", base)
    opaque = out(layout, tmp_path / "opaque", "--base", base, "--gzip", "opaque")
    assert packed(delta) < packed(opaque) / 20
    comes_back(layout, delta, base)
    comes_back(layout, opaque, base)


def test_a_layer_of_the_base_is_not_taken_apart_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = tar(), tar(files=3)
    base = out(image_of([zlib_stream(data)], [data], "app:1"), tmp_path / "base")
    layout = image_of([zlib_stream(data), other], [data, other], "app:2")
    monkeypatch.setattr("transfer.flows.taking.Dismantling", None)
    source = LayoutSource(layout.write(tmp_path / "layout"))
    with Bundle(base) as opened:
        found = select(source, [], None, silent)
        export(source, found, tmp_path / "delta", level=3, jobs=0, observer=silent, base=[opened])
    monkeypatch.undo()
    assert packed(tmp_path / "delta") < packed(base) / 2
    comes_back(layout, tmp_path / "delta", base)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_same_bytes_with_any_number_of_threads(jobs: int, tmp_path: Path) -> None:
    data = words(1, 9 << 20)
    layout = image_of([zlib_stream(data), members(tar())], [data, tar()], "app:1")
    source = LayoutSource(layout.write(tmp_path / "layout"))
    for name, threads in (("a", 0), ("b", jobs)):
        export(source, select(source, [], None, silent), tmp_path / name, level=3, jobs=threads, observer=silent)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_interrupted_export_goes_on_and_makes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tar()
    layout = image_of([zlib_stream(data), members(tar(1))], [data, tar(1)], "app:1")
    source = LayoutSource(layout.write(tmp_path / "layout"))

    def go(folder: Path) -> None:
        export(source, select(source, [], None, silent), folder, level=3, jobs=0, observer=silent)

    go(tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BundleWriter, "publish", _interrupted)
        go(tmp_path / "again")
    monkeypatch.setattr("transfer.flows.taking.Dismantling", None)
    go(tmp_path / "again")
    assert files(tmp_path / "whole") == files(tmp_path / "again")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("why", odd(b"x" * 10_000))
def test_an_odd_stream_comes_back_and_says_why(why: str, tmp_path: Path) -> None:
    data = tar()
    stream = odd(data)[why]
    layout = image_of([stream], [data], "app:1")
    bundle = out(layout, tmp_path / "b")
    told = json.loads(run("inspect", bundle, "--json"))["images"][0]["layers"][0]
    assert why in told["held"], told
    comes_back(layout, bundle)


def test_a_stream_that_is_sound_for_long_is_taken_apart_so_far(tmp_path: Path) -> None:
    data = words(3, 9 << 20)
    stream = zlib_stream(data, 1)[:-20]
    layout = image_of([stream], [data], "app:1")
    bundle = out(layout, tmp_path / "b")
    assert TOGETHER in encodings(bundle).values()
    told = json.loads(run("inspect", bundle, "--json"))["images"][0]["layers"][0]
    assert "in part" in told["held"]
    comes_back(layout, bundle)


def test_a_stream_that_grows_too_much_is_taken_apart_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.flows.taking.ROOM", 10 << 20)
    data = bytes(30 << 20)
    layout = image_of([zlib_stream(data), tar()], [data, tar()], "app:1")
    bundle = out(layout, tmp_path / "b")
    with Bundle(bundle) as opened:
        plain = [each.size for each in opened.catalog().recipes.values() if each.encoding == PLAIN]
    assert max(plain) < 12 << 20
    assert "over a limit" in run("inspect", bundle)
    comes_back(layout, bundle)


def test_inspect_says_how_each_layer_is_held(tmp_path: Path) -> None:
    data = tar()
    layout = Layout()
    zstd = b"\x28\xb5\x2f\xfd" + data[:9000]
    layout.name(layout.image([zlib_stream(data)], plain=[data], layer_kind=GZIP_LAYER), "app:gzip")
    layout.name(layout.image([data]), "app:plain")
    layout.name(layout.image([zstd], plain=[data], layer_kind=OCI_LAYER + "+zstd"), "app:zstd")
    bundle = out(layout, tmp_path / "b")
    held = {
        image["names"][0]: [each["held"] for each in image["layers"]]
        for image in json.loads(run("inspect", bundle, "--json"))["images"]
    }
    assert held == {
        "app:gzip": ["apart"],
        "app:plain": ["plain"],
        "app:zstd": ["as it is: zstd is not taken apart"],
    }
    text = run("inspect", bundle)
    assert "1 gzip layer is taken apart" in text
    assert "1 layer is held as it is: zstd is not taken apart" in text


def test_opaque_is_as_it_was(tmp_path: Path) -> None:
    data = tar()
    layout = image_of([zlib_stream(data)], [data], "app:1")
    bundle = out(layout, tmp_path / "b", "--gzip", "opaque")
    assert set(encodings(bundle).values()) == {OPAQUE}
    comes_back(layout, bundle)


def test_the_script_beside_a_bundle_checks_the_plain_bytes(tmp_path: Path) -> None:
    data = tar()
    bundle = out(image_of([zlib_stream(data)], [data], "app:1"), tmp_path / "b")
    assert alone(bundle) == 0
    if shutil.which("zstd"):
        assert alone(bundle, "--rebuild", tmp_path / "o") == 0
        assert (tmp_path / "o" / "blobs" / "sha256" / sha256(data).hex).read_bytes() == data


def test_without_the_codec_layers_are_held_as_they_are(tmp_path: Path, without_codec: None) -> None:
    data = tar()
    layout = image_of([zlib_stream(data)], [data], "app:1")
    source = LayoutSource(layout.write(tmp_path / "layout"))
    said: list[str] = []
    export(
        source,
        select(source, [], None, silent),
        tmp_path / "b",
        level=3,
        jobs=0,
        observer=lambda event: said.append(event.text) if isinstance(event, Noted) else None,
    )
    assert set(encodings(tmp_path / "b").values()) == {OPAQUE}
    assert [text for text in said if "transfer-appliance-deflate" in text and "1 layer" in text]


def test_without_the_codec_an_import_refuses_before_it_begins(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = tar()
    bundle = out(image_of([zlib_stream(data)], [data], "app:1"), tmp_path / "b")
    request.getfixturevalue("without_codec")
    code, text = says("import", bundle, "--to", f"oci:{tmp_path / 'o'}")
    assert code == Unsupported.exit_code
    assert "transfer-appliance-deflate" in text
    assert not (tmp_path / "o" / "index.json").exists()
    run("verify", bundle)


def test_a_config_that_names_other_layers_is_told(tmp_path: Path) -> None:
    data = tar()
    layout = image_of([zlib_stream(data)], [b"something else"], "app:1")
    layout.write(tmp_path / "layout")
    _, text = says("export", "--from", f"oci:{tmp_path / 'layout'}", "*", "-o", tmp_path / "b")
    assert "but its config names" in text
    comes_back(layout, tmp_path / "b")


def test_gzip_of_nothing_but_a_header(tmp_path: Path) -> None:
    empty = gzip.compress(b"", mtime=0)
    layout = image_of([empty], [b""], "app:1")
    comes_back(layout, out(layout, tmp_path / "b"))
