"""The specimens in bundles/: every released version opens for ever, and every defect is told as it should be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.run import alone, run, says
from tests.support.specimens import (
    BROKEN,
    BUNDLES,
    DEFECTS,
    DELTA_DEFECTS,
    FOLD_DEFECTS,
    GO_DEFECTS,
    GO_SEED,
    GOLDEN,
    GZIP_DEFECTS,
    SEED,
    blobs_in,
)

SPECIMENS = sorted(path.with_suffix("") for path in GOLDEN.parent.glob("v*/*.json"))


def seeds_of(expected: dict[str, list[str]]) -> list[object]:
    """What a delta depends on."""
    return [word for name in expected.get("seeds", ()) for word in ("--seed", GOLDEN / name)]


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_golden_specimen_gives_back_every_blob(specimen: Path, tmp_path: Path) -> None:
    expected = json.loads(specimen.with_suffix(".json").read_text(encoding="utf-8"))
    seeds = seeds_of(expected)
    if expected.get("plain") or expected.get("folded"):
        engines.promised("deflate")
    run("verify", specimen, "--deep", "-q", *seeds)
    run("import", specimen, "--to", f"oci:{tmp_path / 'o'}", "-q", *seeds)
    assert blobs_in(tmp_path / "o") == expected["blobs"]
    listed = json.loads(run("images", "--from", f"oci:{tmp_path / 'o'}", "--json"))["images"]
    assert sorted(name for image in listed for name in image["names"]) == expected["names"]


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_stand_alone_script_reads_it_too(specimen: Path, tmp_path: Path) -> None:
    expected = json.loads(specimen.with_suffix(".json").read_text(encoding="utf-8"))
    assert alone(specimen) == 0
    if expected.get("seeds"):
        assert alone(specimen, "--rebuild", tmp_path / "o") == 13
    elif expected.get("folded"):
        assert not shutil.which("zstd") or alone(specimen, "--rebuild", tmp_path / "o") == 2
    elif shutil.which("zstd"):
        assert alone(specimen, "--rebuild", tmp_path / "o") == 0
        made, plain = blobs_in(tmp_path / "o"), expected.get("plain", {})
        assert made.items() >= plain.items()
        assert plain or made == expected["blobs"]


@pytest.mark.parametrize("lost", ["none", "one", "two", "three"])
def test_a_golden_set_of_media_stands_the_loss_of_any(lost: str, tmp_path: Path) -> None:
    media = GOLDEN / "media"
    expected = json.loads((media / "expected.json").read_text(encoding="utf-8"))
    places = [place for place in sorted(media.iterdir()) if place.is_dir() and place.name != lost]
    for place in places:
        run("verify", place, "-q")
        assert alone(place / "zoo") == 0
    run("import", *places, "--to", f"oci:{tmp_path / 'o'}", "--no-store", "-q")
    assert blobs_in(tmp_path / "o") == expected["blobs"]


def test_the_script_on_the_medium_is_the_one_in_the_repository() -> None:
    path = BUNDLES.parent / "transfer" / "bundle" / "standalone.py"
    assert (BUNDLES / "verify.py").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [*DEFECTS, *DELTA_DEFECTS, *GO_DEFECTS, *GZIP_DEFECTS, *FOLD_DEFECTS])
def test_a_broken_specimen_is_told_as_it_should_be(name: str, tmp_path: Path) -> None:
    place = BROKEN / name
    expected = json.loads((place / "expected.json").read_text(encoding="utf-8"))
    code = (DEFECTS | DELTA_DEFECTS | GO_DEFECTS | GZIP_DEFECTS | FOLD_DEFECTS)[name][1]
    if name in GZIP_DEFECTS | FOLD_DEFECTS:
        engines.promised("deflate")
    seed = SEED if name in DELTA_DEFECTS else GO_SEED if name in GO_DEFECTS else ""
    seeds = ["--seed", GOLDEN / seed] if seed else []
    assert expected["verify"] == code
    verify, text = says("verify", "--deep", place / "bundle", *seeds)
    assert verify == code, text
    target = tmp_path / "o"
    code, text = says("import", place / "bundle", "--to", f"oci:{target}", *seeds)
    assert code in (3, 13, 14), text
    assert expected["names"] in text
    if target.exists() and (target / "index.json").exists():
        # what did land must be whole
        run("export", "--from", f"oci:{target}", "-o", tmp_path / "again", "-q")


@pytest.mark.parametrize("name", [n for n, d in DEFECTS.items() if d[2] in ("damaged", "missing")])
def test_the_stand_alone_script_finds_it_too(name: str) -> None:
    hidden = {"other-content", "bomb", "forged-document"}  # right digests over wrong content: only a rebuild tells
    assert alone(BROKEN / name / "bundle") in ((0,) if name in hidden else (13, 14))


@pytest.mark.parametrize("name", ["unknown-version", "unknown-feature"])
def test_the_stand_alone_script_refuses_what_it_does_not_know(name: str) -> None:
    assert alone(BROKEN / name / "bundle") == 13


def test_specimens_are_what_their_maker_makes(tmp_path: Path) -> None:
    """Each defect is made anew from the golden one: the repository holds nothing that cannot be explained."""
    engines.promised("deflate")
    command = [
        sys.executable,
        "-c",
        "from tests.support.specimens import *; make_broken(Path(sys.argv[1]), GOLDEN)",
    ]
    subprocess.run([*command, str(tmp_path)], check=True, cwd=BUNDLES.parent)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in BROKEN.iterdir())
