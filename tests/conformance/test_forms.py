"""The same images as a folder, a tar and packed in any way: the same names, digests and refusals, and the same bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import saved
from tests.support.run import files
from tests.support.zoo import layer, zoo
from transfer.bundle.reader import Bundle
from transfer.engines.archive import open_archive
from transfer.engines.base import ImageSource
from transfer.engines.ocilayout import LayoutSource
from transfer.errors import TransferError
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.select import NotTaken, select
from transfer.flows.verify import check
from transfer.model import OCI_INDEX, OCI_MANIFEST, Digest, Platform


def taken(source: ImageSource, target: Path, platform: str = "") -> tuple[dict[str, bytes], list[str]] | int:
    """The bundle's files and what was left out; or the exit code of a refusal of all."""
    failed: list[NotTaken] = []
    wanted = Platform.parse(platform) if platform else None
    try:
        found = select(source, [], wanted, silent, failed)
        done = export(source, found, target, level=1, jobs=0, observer=silent, strict=False)
    except TransferError as error:
        return error.exit_code
    finally:
        source.close()
    assert check(target, deep=True, jobs=0, observer=silent).sound
    return files(target), sorted(each.label for each in (*failed, *done.failed))


def images(bundle: Path) -> list[tuple[tuple[str, ...], list[dict[str, Any]], list[list[str]]]]:
    """Names, layers and diffIDs of every image."""
    out = []
    with Bundle(bundle) as opened:
        for each in opened.images:
            config = json.loads(opened.document(each.config_digest or Digest("")))
            manifest = json.loads(opened.document(each.root.digest))
            out.append((each.names, manifest["layers"], (config.get("rootfs") or {}).get("diff_ids") or []))
    return out


@pytest.mark.parametrize("name", saved.LAYOUTS)
def test_a_layout_is_the_same_in_every_form(name: str, tmp_path: Path) -> None:
    layout = saved.LAYOUTS[name]()
    first = taken(LayoutSource(layout.write(tmp_path / "folder")), tmp_path / "b")
    assert not isinstance(first, int)
    assert not first[1]
    members = saved.of_layout(layout)
    for form in saved.PACKERS:
        for order in (1, -1):
            path = saved.write(tmp_path / f"{order}.{form}", members[::order], form)
            assert taken(open_archive(path), tmp_path / f"b{order}.{form}") == first, (form, order)


@pytest.mark.parametrize("name", saved.ARCHIVES)
def test_an_archive_is_the_same_in_every_form(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where layers have to be read out of their order, and are too large to be kept."""
    monkeypatch.setattr("transfer.engines.streamed.HOLD_ONE", 30_000)
    monkeypatch.setattr("transfer.engines.streamed.HOLD_ALL", 40_000)
    found = [
        taken(open_archive(saved.write(tmp_path / f"a.{form}", saved.ARCHIVES[name], form)), tmp_path / f"b.{form}")
        for form in saved.PACKERS
    ]
    assert found[0] == found[1] == found[2]
    assert not isinstance(found[0], int)
    assert not found[0][1]
    for _, layers, ids in images(tmp_path / "b.tar"):
        assert len(layers) == len(ids)
        for each, diff_id in zip(layers, ids, strict=True):
            assert each["mediaType"].endswith("tar") == (each["digest"] == diff_id)
    assert len(images(tmp_path / "b.tar")) == (2 if name.startswith("both") or name == "old" else 1)


@pytest.mark.parametrize("form", saved.ODD_PACKERS)
def test_every_way_to_pack_is_read(form: str, tmp_path: Path) -> None:
    members = saved.ARCHIVES["old"]
    plain = taken(open_archive(saved.write(tmp_path / "a.tar", members, "tar")), tmp_path / "b")
    assert taken(open_archive(saved.write(tmp_path / "a.packed", members, form)), tmp_path / "c") == plain


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst", "tar.xz", "tar.bz2"])
def test_zeros_are_no_bomb(form: str, tmp_path: Path) -> None:
    zeros = layer({"disk.img": bytes(70 << 20)})
    path = saved.write(tmp_path / "a", saved.old(("site/disk:1", [zeros])), form)
    assert not isinstance(taken(open_archive(path), tmp_path / "b"), int)


@pytest.mark.parametrize("form", saved.PACKERS)
@pytest.mark.parametrize("name", saved.REFUSED)
def test_what_is_no_image_is_refused_in_every_form(name: str, form: str, tmp_path: Path) -> None:
    members, code = saved.REFUSED[name]
    try:
        source = open_archive(saved.write(tmp_path / "a", members, form))
    except TransferError as error:
        assert error.exit_code == code, error
        return
    assert taken(source, tmp_path / "b") == code


@pytest.mark.parametrize("form", ["folder", *saved.PACKERS])
@pytest.mark.parametrize("what", ["root", "config", "layer"])
def test_a_wrong_size_is_one_images_failure(what: str, form: str, tmp_path: Path) -> None:
    layout = saved.wrong_size(what)
    if form == "folder":
        source: ImageSource = LayoutSource(layout.write(tmp_path / "o"))
    else:
        source = open_archive(saved.write(tmp_path / "a", saved.of_layout(layout), form))
    found = taken(source, tmp_path / "b")
    assert not isinstance(found, int)
    assert found[1] == ["site/app:1"]


@pytest.mark.parametrize("form", saved.PACKERS)
def test_only_what_was_chosen_travels(form: str, tmp_path: Path) -> None:
    members = saved.old(("site/a:1", [saved.LARGE[0]]), ("site/b:1", [saved.LARGE[1]]))
    source = open_archive(saved.write(tmp_path / "a", members, form))
    found = select(source, ["site/b:1"], None, silent)
    done = export(source, found, tmp_path / "b", level=1, jobs=0, observer=silent)
    source.close()
    assert done.bytes_packed < 80_000
    assert [each.names for each in done.images] == [("site/b:1",)]


@pytest.mark.parametrize("form", ["folder", *saved.PACKERS])
def test_a_name_for_two_platforms_is_picked_by_platform(form: str, tmp_path: Path) -> None:
    layout = saved.platforms()
    path = tmp_path / "a"
    if form == "folder":
        source: ImageSource = LayoutSource(layout.write(path))
    else:
        source = open_archive(saved.write(path, saved.of_layout(layout), form))
    for arch in ("amd64", "arm64"):
        wanted = Platform("linux", arch)
        for name in ("v1.0", "silent:1"):
            found = select(source, [name], wanted, silent)
            done = export(source, found, tmp_path / f"{arch}{name}", level=1, jobs=0, observer=silent)
            assert [each.platforms for each in done.images] == [(wanted,)]
    with pytest.raises(TransferError, match="more than one image"):
        select(source, ["v1.0"], None, silent)
    source.close()


@pytest.mark.parametrize("form", ["folder", *saved.PACKERS])
@pytest.mark.parametrize("absent", [False, True])
def test_an_index_without_a_manifest_is_one_images_failure(absent: bool, form: str, tmp_path: Path) -> None:
    """Nothing of it could be run anywhere, and nobody would be told before the far side."""
    layout = zoo()
    gone = [{"mediaType": OCI_MANIFEST, "digest": "sha256:" + "5" * 64, "size": 500}] if absent else []
    layout.name(layout.document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": gone}, OCI_INDEX), "none:1")
    if form == "folder":
        source: ImageSource = LayoutSource(layout.write(tmp_path / "a"))
    else:
        source = open_archive(saved.write(tmp_path / "a", saved.of_layout(layout), form))
    found = taken(source, tmp_path / "b")
    assert not isinstance(found, int)
    assert found[1] == ["none:1"]


@pytest.mark.parametrize("form", ["folder", *saved.PACKERS])
def test_a_layout_needs_no_file_that_says_so(form: str, tmp_path: Path) -> None:
    layout = zoo()
    if form == "folder":
        layout.write(tmp_path / "a")
        (tmp_path / "a" / "oci-layout").unlink()
        source: ImageSource = LayoutSource(tmp_path / "a")
    else:
        members = [each for each in saved.of_layout(layout) if each[0] != "oci-layout"]
        source = open_archive(saved.write(tmp_path / "a", members, form))
    assert taken(source, tmp_path / "b") == taken(LayoutSource(layout.write(tmp_path / "whole")), tmp_path / "c")


def test_a_path_that_somebody_typed_may_be_a_link(tmp_path: Path) -> None:
    saved.write(tmp_path / "store.tar", saved.ARCHIVES["old"], "tar")
    (tmp_path / "result").symlink_to("store.tar")
    assert not isinstance(taken(open_archive(tmp_path / "result"), tmp_path / "b"), int)


def test_blobs_of_a_layout_may_be_links_to_the_right_bytes(tmp_path: Path) -> None:
    layout = zoo()
    layout.write(tmp_path / "real")
    first = taken(LayoutSource(tmp_path / "real"), tmp_path / "b")
    layout.write(tmp_path / "links")
    for path in (tmp_path / "links" / "blobs" / "sha256").iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "real" / "blobs" / "sha256" / path.name)
    assert taken(LayoutSource(tmp_path / "links"), tmp_path / "c") == first
    some = next(path for path in (tmp_path / "links" / "blobs" / "sha256").iterdir())
    some.unlink()
    some.symlink_to("/dev/zero")
    wrong = taken(LayoutSource(tmp_path / "links"), tmp_path / "d")
    assert isinstance(wrong, int) or wrong[1]
