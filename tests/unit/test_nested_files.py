"""Jars, wheels and other files that are compressed inside: small bundles and deltas, every byte as it was, and nothing an odd one could break."""

from __future__ import annotations

import gzip as gzip_module
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.gzipped import comes_back, image_of, out, packed, words, zlib_stream
from tests.support.nested import There, compressed_files, deflated, gz, jar, odd_zips, zipped
from tests.support.run import alone, files, run, says
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.catalog import FOLDED, OPAQUE, PLAIN, TOGETHER
from transfer.bundle.header import FOLDS
from transfer.bundle.reader import Bundle
from transfer.bundle.writer import BundleWriter
from transfer.chunks import deflate
from transfer.engines.ocilayout import LayoutSource
from transfer.errors import Unsupported
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.rechunk import rechunk
from transfer.flows.select import select
from transfer.model import GzipWay


@pytest.fixture(autouse=True)
def _codec() -> None:
    engines.promised("deflate")


@pytest.fixture(name="without_codec")
def _without_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    deflate.codec.cache_clear()
    monkeypatch.setitem(sys.modules, "transfer_deflate", None)
    yield
    deflate.codec.cache_clear()


def layout_of(*layers: bytes, name: str = "app:1") -> Layout:
    out = Layout()
    for number, data in enumerate(layers):
        out.name(out.image([data]), name if not number else f"{name}-{number}")
    return out


def encodings(bundle: Path) -> list[int]:
    with Bundle(bundle) as opened:
        return sorted(recipe.encoding for recipe in opened.catalog().recipes.values())


def is_folded(bundle: Path) -> bool:
    with Bundle(bundle) as opened:
        return FOLDS in opened.header.features


def test_files_are_taken_apart_and_come_back(tmp_path: Path) -> None:
    layout = layout_of(layer(compressed_files()))
    comes_back(layout, out(layout, tmp_path / "b"))


def test_a_full_bundle_of_jars_is_smaller(tmp_path: Path) -> None:
    layout = layout_of(layer({f"lib/{n}.jar": jar(n, 100) for n in range(4)}))
    apart, whole = out(layout, tmp_path / "a"), out(layout, tmp_path / "w", "--gzip", "layers")
    assert (encodings(apart), encodings(whole)) == ([FOLDED], [PLAIN])
    assert packed(apart) < packed(whole) * 0.85
    comes_back(layout, apart)


def test_a_delta_has_the_classes_that_changed(tmp_path: Path) -> None:
    old, new = (layout_of(layer(compressed_files(changed, wide=False))) for changed in (0, 60))
    sizes = []
    for way in ("exact", "layers"):
        base = out(old, tmp_path / f"{way}-base", "--gzip", way)
        delta = out(new, tmp_path / f"{way}-delta", "--base", base, "--gzip", way)
        comes_back(new, delta, base)
        sizes.append(packed(delta))
    assert sizes[0] < sizes[1] / 2


def test_in_a_gzip_layer_too(tmp_path: Path) -> None:
    data = layer(compressed_files(wide=False))
    layout = image_of([zlib_stream(data)], [data], "app:1")
    bundle = out(layout, tmp_path / "b")
    assert encodings(bundle) == [TOGETHER, FOLDED]
    comes_back(layout, bundle)
    opaque = out(layout, tmp_path / "o", "--gzip", "opaque")
    assert encodings(opaque) == [OPAQUE]


def test_the_same_class_in_two_jars_is_held_once(tmp_path: Path) -> None:
    one = jar(1, 150)
    other = zipped({"other/": b"", **{f"x{n}": words(1000 + n, 4000) for n in range(3)}, **_classes_of(one)})
    single = packed(out(layout_of(layer({"one.jar": one})), tmp_path / "1"))
    both = packed(out(layout_of(layer({"one.jar": one, "other.jar": other})), tmp_path / "2"))
    assert both < single * 1.25 < len(one) + len(other)


def _classes_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.parametrize("name", odd_zips())
def test_an_odd_zip_comes_back(name: str) -> None:
    data = odd_zips()[name]
    whole = layer({"before": b"b" * 700, "it.jar": data, "its.jar": jar(7), "after": b"a" * 900})
    there = There(whole)
    assert there.back() == whole
    assert there.folds is not None


@pytest.mark.parametrize("name", ["a bomb", "empty blocks", "cut", "a directory in the middle"])
def test_an_odd_zip_goes_the_whole_way(name: str, tmp_path: Path) -> None:
    layout = layout_of(layer({"it.jar": odd_zips()[name], "its.jar": jar(7)}))
    comes_back(layout, out(layout, tmp_path / "b"))


def test_a_stream_that_grows_too_much_is_left_as_it_is() -> None:
    data = layer({"it.jar": odd_zips()["a bomb"]})
    there = There(data, room=1 << 20)
    assert there.folds is not None
    assert there.folds.size < 6 << 20
    assert there.back() == data


def test_a_long_stream_that_goes_wrong_is_taken_apart_so_far() -> None:
    text = words(3, 9 << 20)
    for stream in (gzip_module.compress(text, 6)[:-90_000], _flipped(gzip_module.compress(text, 6))):
        data = layer({"it.gz": stream, "after": b"a"})
        there = There(data)
        assert there.folds is not None
        assert there.folds.size > 6 << 20
        assert there.back() == data


def _flipped(data: bytes) -> bytes:
    out = bytearray(data)
    out[len(out) * 9 // 10] ^= 255
    return bytes(out)


def test_members_and_headers_of_gzip_files() -> None:
    many = b"".join(gz(words(n, 900_000), "n" * n) for n in range(8))
    extra = (
        b"\x1f\x8b\x08\x1e"
        + bytes(6)
        + b"\x04\0abcd"
        + b"name\0"
        + b"note\0"
        + b"hc"
        + deflated(words(9, 7 << 20))
        + bytes(8)
    )
    data = layer({"many.gz": many, "extra.gz": extra + b"junk" * 100})
    there = There(data)
    assert there.folds is not None
    assert there.folds.size > 14_000_000
    assert there.back() == data


def test_what_does_not_pay_is_left_as_it_is() -> None:
    incompressible = zipped({f"p{n}.jpg": noise(n, 9000) for n in range(60)})
    small = jar(1, 10)
    data = layer({"pictures.zip": incompressible, "small.jar": small, "text.gz": gz(words(1, 90_000))})
    there = There(data)
    assert there.folds is None
    assert [path for path, _ in groupby(there.paths)] == [b"pictures.zip", b"small.jar", b"text.gz"]


@pytest.mark.parametrize("changed", [0, 2])
def test_a_base_finds_the_paths_that_were_given(changed: int) -> None:
    there = There(layer(compressed_files(changed)))
    given, found = ([path for path, _ in groupby(paths)] for paths in (there.paths, there.paths_again()))
    assert given == found
    assert b"app/app.jar!/BOOT-INF/lib/two.jar!/org/it/C1.class" in given
    assert b"app/app.jar!/BOOT-INF/z.txt" in given
    assert b"srv/7.txt" in given


def test_where_the_base_has_a_file_as_it_is_the_delta_has_it_so_too(tmp_path: Path) -> None:
    old, new = (layout_of(layer(compressed_files(changed, wide=False))) for changed in (0, 2))
    base = out(old, tmp_path / "base", "--gzip", "layers")
    delta = out(new, tmp_path / "delta", "--base", base)
    assert not is_folded(delta)
    assert packed(delta) < packed(out(new, tmp_path / "full")) / 2
    comes_back(new, delta, base)


@pytest.mark.parametrize("way", ["exact", "layers"])
def test_the_engines_images_stand_in_for_a_base(way: GzipWay, tmp_path: Path) -> None:
    old, new = (layout_of(layer(compressed_files(changed, wide=False))) for changed in (0, 2))
    base = out(old, tmp_path / "base", "--gzip", way)
    with Bundle(base) as opened:
        layers = [each.digest for image in opened.images for each in image.layers]
        wanted = set(opened.catalog().numbers_of)
    source = LayoutSource(old.write(tmp_path / "engine"))
    with rechunk(source, layers, tmp_path, jobs=1, observer=silent) as found:
        assert any(wanted <= set(each.catalog().numbers_of) for each in found)
    run("import", base, "--to", f"oci:{tmp_path / 'there'}")
    delta = out(new, tmp_path / "delta", "--base", base, "--gzip", way)
    run("import", delta, "--to", f"oci:{tmp_path / 'there'}", "--no-store")


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_same_bytes_with_any_number_of_threads(jobs: int, tmp_path: Path) -> None:
    source = LayoutSource(layout_of(layer(compressed_files())).write(tmp_path / "layout"))
    for name, threads in (("a", 0), ("b", jobs)):
        export(source, select(source, [], None, silent), tmp_path / name, level=3, jobs=threads, observer=silent)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_interrupted_export_goes_on_and_makes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_of(layer(compressed_files(wide=False)), layer(compressed_files(2, wide=False)))
    source = LayoutSource(layout.write(tmp_path / "layout"))

    def go(folder: Path) -> None:
        export(source, select(source, [], None, silent), folder, level=3, jobs=0, observer=silent)

    go(tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BundleWriter, "publish", _interrupted)
        go(tmp_path / "again")
    monkeypatch.setattr("transfer.flows.taking.Unfolding", None)
    go(tmp_path / "again")
    assert files(tmp_path / "whole") == files(tmp_path / "again")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_files_that_stayed_are_not_worked_on_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = compressed_files(wide=False)
    base = out(layout_of(layer(data)), tmp_path / "base")
    layout = layout_of(layer({**data, "etc/after": b"another"}))
    source = LayoutSource(layout.write(tmp_path / "layout"))
    monkeypatch.setattr("transfer.chunks.unfold._records", _refused)
    with Bundle(base) as opened:
        found = select(source, [], None, silent)
        export(source, found, tmp_path / "delta", level=3, jobs=0, observer=silent, base=[opened])
    monkeypatch.undo()
    assert is_folded(tmp_path / "delta")
    comes_back(layout, tmp_path / "delta", base)


def _refused(members: bytes) -> bytes:
    raise AssertionError(f"{len(members)} bytes are worked on")


def test_without_the_codec_files_are_held_as_they_are(tmp_path: Path, without_codec: None) -> None:
    layout = layout_of(layer(compressed_files(wide=False)))
    bundle = out(layout, tmp_path / "b")
    assert encodings(bundle) == [PLAIN]
    comes_back(layout, bundle)


def test_without_the_codec_an_import_refuses_before_it_begins(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bundle = out(layout_of(layer(compressed_files(wide=False))), tmp_path / "b")
    request.getfixturevalue("without_codec")
    code, text = says("import", bundle, "--to", f"oci:{tmp_path / 'o'}")
    assert code == Unsupported.exit_code
    assert "transfer-appliance-deflate" in text
    assert "--gzip layers" in text
    assert not (tmp_path / "o" / "index.json").exists()
    run("verify", bundle)


def test_people_are_told_how_layers_are_held(tmp_path: Path) -> None:
    data = layer(compressed_files(wide=False))
    layout = layout_of(data)
    image_of([zlib_stream(data)], [data], "app:gzip", layout)
    layout.name(layout.image([layer({"a": b"b"})]), "app:small")
    bundle = out(layout, tmp_path / "b")
    held = {
        image["names"][0]: [(each["held"], each["files_apart"]) for each in image["layers"]]
        for image in json.loads(run("inspect", bundle, "--json"))["images"]
    }
    assert held == {"app:1": [("plain", True)], "app:gzip": [("apart", True)], "app:small": [("plain", False)]}
    assert "2 layers have jars, wheels or other compressed files that are taken apart" in run("inspect", bundle)


def test_a_delta_is_inspected_without_its_base(tmp_path: Path) -> None:
    old, new = (layout_of(layer(compressed_files(changed, wide=False))) for changed in (0, 2))
    base = out(old, tmp_path / "base")
    delta = out(new, tmp_path / "delta", "--base", base)
    shutil.rmtree(base)
    told = json.loads(run("inspect", delta, "--json"))["images"][0]["layers"][0]
    assert (told["held"], told["files_apart"]) == ("", False)
    assert "depends on" in run("inspect", delta)


def test_the_script_beside_a_bundle_says_what_it_cannot_rebuild(tmp_path: Path) -> None:
    layout = layout_of(layer(compressed_files(wide=False)), layer({"a": b"plain"}))
    bundle = out(layout, tmp_path / "b")
    assert alone(bundle) == 0
    if shutil.which("zstd"):
        command = [sys.executable, str(bundle / "verify.py"), str(bundle), "--rebuild", str(tmp_path / "o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "NOT REBUILT  app:1: 1 of its layers" in done.stdout
        assert "rebuilt  app:1-1" in done.stdout


def test_a_diff_names_the_classes(tmp_path: Path) -> None:
    one = out(layout_of(layer({"app/it.jar": jar(1)})), tmp_path / "1")
    two = out(layout_of(layer({"app/it.jar": jar(1, changed=1)})), tmp_path / "2")
    assert "app/it.jar!/org/it/C0.class" in run("diff", one, two, "--files")
