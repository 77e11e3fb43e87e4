"""The table of engines: what is derived from it, and what one more engine costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import toy
from tests.support.forked import Ended, forked
from tests.support.run import says
from tests.support.zoo import zoo
from transfer.engines.transports import TRANSPORTS, forms, locate
from transfer.errors import UsageError


def with_toy(*words: object) -> Ended:
    """A command of a program that has one engine more."""
    return forked([str(word) for word in words], before=lambda: TRANSPORTS.update(toy=toy.TRANSPORT))


def test_an_engine_is_a_file_and_a_line(tmp_path: Path) -> None:
    """Export, import, images, diff and the search for a delta's base know it, with nothing else changed."""
    zoo().write(tmp_path / "oci")
    there = f"toy:{tmp_path}/toy"
    for words in (
        ("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "first"),
        ("import", tmp_path / "first", "--to", there),
        ("import", tmp_path / "first", "--to", there, "--dry-run"),
        ("export", "--from", there, "-o", tmp_path / "second"),
        ("export", "--from", f"{there}:zoo/gzip:1", "-o", tmp_path / "one"),
        ("verify", tmp_path / "second", "--deep"),
    ):
        ended = with_toy(*words)
        assert ended.code == 0, (words, ended.err)
    known = [json.loads(with_toy("inspect", tmp_path / b, "--json").out)["images"] for b in ("first", "second", "one")]
    assert {each["digest"] for each in known[0]} == {each["digest"] for each in known[1]}
    assert [each["names"] for each in known[2]] == [["zoo/gzip:1"]]
    again = with_toy("import", tmp_path / "second", "--to", there, "--json")
    assert {each["status"] for each in json.loads(again.out)["images"]} == {"present"}
    wrong = with_toy("images", "--from", "tyo:x")
    assert wrong.code == 2
    assert toy.TRANSPORT.form in wrong.err


@pytest.mark.parametrize("name", TRANSPORTS)
def test_every_engine_is_told_of(name: str) -> None:
    reads = bool(TRANSPORTS[name].source)
    assert f"{name}:" in forms(sinks=not reads)
    assert f"{name}:" in says("images", "--from", "nonsense:x")[1]
    assert (f"{name}:" in "".join(says("images", "--help")[1].split())) == reads
    assert f"{name}:" in "".join(says("import", "--help")[1].split())


@pytest.mark.parametrize("text", ["nonsense", "oci", "oci:", "oci-archive:", ":x", "docker:nginx"])
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"unknown transport|(path|registry) is missing"):
        locate(text)


def test_a_way_that_an_engine_does_not_have_is_told(tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    code, said = says("export", "--from", f"oci:{tmp_path}/oci", "--via", "api", "-o", tmp_path / "b")
    assert code == 2
    assert "oci:" in said and "auto" in said
