"""Damage is asked for by frame, and mended by an answer: in the import, or by copying it over the damaged bundle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.run import files, run, says
from tests.support.specimens import first_frame, flip
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.reader import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pack of some frames, each of some MB: text, programs and others."""
    folder = tmp_path_factory.mktemp("repair")
    layout = Layout()
    contents = {f"bin/p{n}": b"\x7fELF" + noise(n, 3 << 20) for n in range(12)}
    contents |= {f"data/d{n}": noise(50 + n, 3 << 20) for n in range(12)}
    layout.name(layout.image([layer(contents)]), "app:1")
    layout.name(layout.image([layer({"small": b"s" * 500})]), "small:1")
    layout.write(folder / "o")
    run("export", "--from", f"oci:{folder}/o", "-o", folder / "b", "-q", "--no-store", "--level", "1")
    return folder / "b"


def pack(bundle: Path) -> Path:
    with Bundle(bundle) as opened:
        return opened.path_of(opened.header.packs[0])


def _garbage(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"garbage")


def _two_bits(path: Path) -> None:
    flip(path, first_frame(path).data_offset + 9)
    flip(path, path.stat().st_size - 9)


DAMAGE: dict[str, tuple[Callable[[Path], object], bool]] = {
    # what is done to the pack, and whether frames are enough to mend it
    "a bit in a frame": (lambda path: flip(path, path.stat().st_size // 2), True),
    "bits in two frames": (_two_bits, True),
    "a bit in a frame's header": (lambda path: flip(path, 40), True),
    "a bit in the pack's header": (lambda path: flip(path, 1), True),
    "cut short": (lambda path: os.truncate(path, path.stat().st_size - 5000), True),
    "longer": (_garbage, True),
    "empty": (lambda path: os.truncate(path, 0), True),
    "gone": (lambda path: path.unlink(), False),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_asked_for_and_mended(what: str, bundle: Path, tmp_path: Path) -> None:
    hurt, by_frames = DAMAGE[what]
    bad, small = tmp_path / "bad", tmp_path / "small"
    shutil.copytree(bundle, bad)
    hurt(pack(bad))
    code, said = says("verify", bad, "--request", tmp_path / "request")
    assert (code, "export --repair-request" in said) == (13 if what != "gone" else 14, True), said
    asked = json.loads((tmp_path / "request").read_text())
    assert bool(asked.get("frames")) == by_frames
    done = json.loads(run("export", "--answer", tmp_path / "request", "-o", small, "--seed", bundle, "--json"))
    size = sum(map(len, files(small).values()))
    if what in ("a bit in a frame", "a bit in the pack's header", "longer", "cut short"):
        assert size < 20 << 20 < pack(bundle).stat().st_size
    assert done["files"] == (0 if by_frames else 1)
    assert "an answer to a request" in run("verify", small)
    run("import", bad, "--repair", small, "--to", f"oci:{tmp_path / 'o'}", "--no-store", "-q")
    run("import", bad, "--repair", small, "--to", f"oci:{tmp_path / 'o'}", "--store", tmp_path / "s", "-q")
    run("store", "check", "--store", tmp_path / "s")
    code, said = says("verify", bad)
    assert code in (13, 14), "the import changed the bundle"
    over, straight = tmp_path / "over", tmp_path / "straight"
    for place in (over, straight):
        shutil.copytree(bad, place)
        shutil.copytree(small, place, dirs_exist_ok=True)
    run("import", straight, "--to", f"oci:{tmp_path / 'p'}", "--no-store", "-q")
    run("verify", "--deep", over, "-q")
    mended = files(over)
    assert {name: data for name, data in mended.items() if name != "answer.json"} == files(bundle) or not by_frames
    assert files(tmp_path / "p") == files(tmp_path / "o")


def test_an_answer_for_another_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"other": b"1"})]), "other:1")
    layout.write(tmp_path / "l")
    run("export", "--from", f"oci:{tmp_path / 'l'}", "-o", tmp_path / "other", "-q", "--no-store")
    bad = tmp_path / "bad"
    shutil.copytree(bundle, bad)
    flip(pack(bad), 5000)
    says("verify", bad, "--request", tmp_path / "request")
    run("export", "--answer", tmp_path / "request", "-o", tmp_path / "small", "--seed", bundle, "-q")
    out = f"oci:{tmp_path / 'o'}"
    run("import", tmp_path / "other", "--repair", tmp_path / "small", "--to", out, "--no-store", code=2)
    run("import", bad, "--repair", tmp_path / "l", "--to", out, "--no-store", code=10)
    run("export", "--answer", tmp_path / "request", "-o", tmp_path / "none", "--seed", bad, "-q", code=13)


def test_an_answer_that_lies_mends_nothing(bundle: Path, tmp_path: Path) -> None:
    """Frames are put into a copy of the pack, which is believed only when its digest is right."""
    bad, small = tmp_path / "bad", tmp_path / "small"
    shutil.copytree(bundle, bad)
    flip(pack(bad), 5000)
    says("verify", bad, "--request", tmp_path / "request")
    run("export", "--answer", tmp_path / "request", "-o", small, "--seed", bundle, "-q")
    given = next((small / "repair").iterdir())
    answer = json.loads((small / "answer.json").read_text())
    name = next(iter(answer["frames"]))
    for frames in ("0-3", "1", "4194303", "5-2", "x"):
        (small / "answer.json").write_text(json.dumps({**answer, "frames": {name: frames}}))
        code, said = says("import", bad, "app:1", "--repair", small, "--to", f"oci:{tmp_path / 'o'}", "--no-store")
        assert code == 13, said
    (small / "answer.json").write_text(json.dumps(answer))
    for change in (lambda: flip(given, 200), lambda: os.truncate(given, 100), lambda: given.write_bytes(b"")):
        change()
        code, said = says("import", bad, "app:1", "--repair", small, "--to", f"oci:{tmp_path / 'o'}", "--no-store")
        assert code == 13, said
    assert "internal error" not in said
