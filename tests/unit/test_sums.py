"""SHA256SUMS: what a scanner at a gate checks, with nothing of ours, wherever a bundle lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support.run import run
from tests.support.zoo import noisy, zoo


def checked(folder: Path) -> set[str]:
    """The files that SHA256SUMS names, each with the digest it says."""
    lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    found = {name: digest for digest, name in (line.split("  ") for line in lines)}
    for name, digest in found.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert lines == sorted(lines, key=lambda line: line.split("  ")[1])
    return set(found)


def lying(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(".")} - {"SHA256SUMS"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sums")
    zoo().write(place / "oci")
    run("export", "--from", f"oci:{place}/oci", "-o", place / "b", "--no-store", "-q")
    return place / "b"


def test_a_bundle_has_one_over_all_of_it(bundle: Path) -> None:
    assert checked(bundle) == lying(bundle)


def test_a_spool_has_one_over_both_copies_of_it(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    run("ship", bundle, f"spool:{tmp_path}/spool", "--parity", "30%", "--no-store", "-q")
    arrived = tmp_path / "spool" / "b"
    assert checked(arrived) == {name for name in lying(arrived) if not name.startswith("again/")}


def test_each_medium_has_one_over_what_lies_on_it(tmp_path: Path) -> None:
    noisy(4).write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "--no-store", "-q", "--level", "1")
    sticks = [tmp_path / "one", tmp_path / "two"]
    for each in sticks:
        each.mkdir()
    run("ship", tmp_path / "b", *sticks, "--folder", "--parity", "40%", "--no-store", "-q")
    for each in sticks:
        assert checked(each / "b") == lying(each / "b")
    run("ship", tmp_path / "b", *sticks, "--folder", "--parity", "40%", "--no-store", "-q")
    for each in sticks:
        assert checked(each / "b") == lying(each / "b")
