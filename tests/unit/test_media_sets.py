"""Sets of media over plain folders: what a list on a medium may claim, what hurt files cost, and bundles with hardly anything in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.run import run, says
from tests.support.specimens import GOLDEN, blobs_in
from tests.support.zoo import Layout, layer

MEDIA = GOLDEN / "media"


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    shutil.copytree(MEDIA, tmp_path / "media")
    return [tmp_path / "media" / name for name in ("one", "two", "three")]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The golden set's bundle, all in one place and without recovery files."""
    for name in ("one", "two", "three"):
        shutil.copytree(MEDIA / name / "zoo", tmp_path / "zoo", dirs_exist_ok=True)
    for name in ("medium.json", "recovery.json"):
        (tmp_path / "zoo" / name).unlink()
    shutil.rmtree(tmp_path / "zoo" / "recovery")
    return tmp_path / "zoo"


def folders(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in names]


def test_a_medium_does_not_speak_for_one_that_failed(whole: Path, tmp_path: Path) -> None:
    good, bad = folders(tmp_path, "good", "bad")
    (bad / "zoo" / "oci-layout" / "in the way").mkdir(parents=True)
    code, said = says("ship", whole, good, bad, "--parity", "35")
    assert code not in (0, 1), said
    (whole / "media.json").unlink()  # as if it had been killed before it could remember
    run("ship", whole, good, "--parity", "35")
    run("import", good, "--to", f"oci:{tmp_path}/o", "--no-store", "-q")
    assert blobs_in(tmp_path / "o") == json.loads((MEDIA / "expected.json").read_bytes())["blobs"]


def test_a_hurt_recovery_file_has_not_come(media: list[Path], tmp_path: Path) -> None:
    (found,) = (media[0] / "zoo" / "recovery").iterdir()
    found.write_bytes(found.read_bytes()[:-1])
    store = tmp_path / "store"
    code, said = says("import", media[0], "--to", f"oci:{tmp_path}/o", "--store", store)
    assert code == 14, said
    assert [path.name for path in store.glob("incoming/*/recovery.json")] == ["recovery.json"]
    assert not list(store.glob("incoming/*/recovery/*"))


def test_any_sound_copy_will_do_for_the_store(media: list[Path], tmp_path: Path) -> None:
    listed = json.loads((media[0] / "zoo" / "medium.json").read_bytes())
    packs = {Path(name).name for each in listed["media"] for name in each["files"]}
    shared = [path for path in (media[0] / "zoo" / "blobs" / "sha256").iterdir() if path.name not in packs]
    for path in shared:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    run("import", *media, "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "store", "-q")
    run("store", "check", "--store", tmp_path / "store")


def test_what_is_wanted_comes_and_the_rest_waits(media: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    names = json.loads((MEDIA / "expected.json").read_bytes())["names"]
    landed = [
        name for name in names if says("import", media[1], name, "--to", f"oci:{tmp_path}/o", "--store", store)[0] == 0
    ]
    assert landed
    assert list(store.glob("incoming/*"))
    run("store", "prune", "--keep-last", "1", "--store", store)
    run("import", media[0], "--to", f"oci:{tmp_path}/all", "--store", store, "-q")
    assert blobs_in(tmp_path / "all") == json.loads((MEDIA / "expected.json").read_bytes())["blobs"]
    assert not list(store.glob("incoming/*"))


def test_a_bundle_without_packs_goes_too(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.image([layer({"a": b"a" * 1000})])
    layout.name(image, "app:1")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "full", "-q", "--no-store")
    layout.name(image, "app:2")
    layout.write(tmp_path / "oci2")
    run(
        "export",
        "--from",
        f"oci:{tmp_path}/oci2",
        "-o",
        tmp_path / "b",
        "--base",
        tmp_path / "full",
        "-q",
        "--no-store",
    )
    (stick,) = folders(tmp_path, "stick")
    run("ship", tmp_path / "b", stick)
    run("import", stick, "--to", f"oci:{tmp_path}/o", "--seed", tmp_path / "full", "--no-store", "-q")


def test_recovery_files_may_be_deleted_beside_the_bundle(whole: Path, tmp_path: Path) -> None:
    (stick,) = folders(tmp_path, "stick")
    run("ship", whole, stick, "--parity", "20")
    shutil.rmtree(whole / "recovery")
    run("verify", whole)
    shutil.rmtree(stick / "zoo" / "recovery")
    assert says("verify", stick)[0] == 14


@pytest.mark.parametrize("name", ["a:b", "nul.bundle", "x."])
def test_a_name_that_not_every_medium_takes_is_refused(whole: Path, tmp_path: Path, name: str) -> None:
    (stick,) = folders(tmp_path, "stick")
    odd = whole.rename(tmp_path / name)
    code, said = says("ship", odd, stick)
    assert code == 2, said
    assert "rename" in said
    assert says("ship", stick, "spool:")[0] in (2, 10)


def test_the_list_says_how_much_of_a_set_has_come(media: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run("import", media[1], "--to", f"oci:{tmp_path}/o", "--store", store, code=14)
    (row,) = json.loads(run("store", "ls", "--json", "--store", store))["bundles"]
    assert (row["role"], row["packs"]) == ("staged", False)
    assert 0 < row["packs_here"] < row["packs_all"]
    assert f"({row['packs_here']} of {row['packs_all']} packs)" in run("store", "ls", "--store", store)
