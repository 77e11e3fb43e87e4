"""verify.py on every Python at hand, alone: it ends, says one line, and shows nothing raw, whatever it is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import hostile
from tests.support.hostile import changed
from tests.support.run import SCRIPT, run, says
from tests.support.specimens import GOLDEN, blobs_in

NAMES = [f"python3.{minor}" for minor in range(6, 16)]


def pythons() -> list[str]:
    """Every Python of this machine, one a version: in PATH, and where pyenv puts them."""
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    found = [path for name in NAMES if (path := shutil.which(name))]
    found += [str(path) for home in homes if home.is_dir() for path in sorted(home.glob("3.*/bin/python3"))]
    by_version: dict[str, str] = {}
    for path in [sys.executable, *found]:
        command = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            by_version.setdefault(done.stdout.strip(), path)
    return [path for version, path in sorted(by_version.items()) if tuple(map(int, version.split("."))) >= (3, 6)]


def verify(python: str, *words: object) -> tuple[int, str]:
    command = [python, "-I", "-S", str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert "Traceback" not in said, said
    assert said.replace("\n", "").isprintable(), ascii(said)
    return done.returncode, said


@pytest.mark.parametrize("python", pythons())
def test_it_runs_on_this_python(python: str, tmp_path: Path) -> None:
    assert verify(python, GOLDEN / "zoo")[0] == 0
    assert json.loads(verify(python, "--json", GOLDEN / "zoo")[1])["sound"]
    if shutil.which("zstd"):
        assert verify(python, GOLDEN / "zoo", "--rebuild", tmp_path / "o", "zoo/plain:1")[0] == 0
        assert blobs_in(tmp_path / "o")
    assert verify(python, GOLDEN / "zoo", "--nonsense")[0] == 2
    assert verify(python, tmp_path / "nothing")[0] == 14
    shutil.copytree(GOLDEN / "zoo", tmp_path / "b")
    pack = max((tmp_path / "b" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:-1])
    assert verify(python, tmp_path / "b")[0] == 13
    pack.unlink()
    assert verify(python, tmp_path / "b")[0] == 14


@pytest.mark.parametrize("version", ["2.7", "3.5"])
def test_an_older_python_is_told(version: str) -> None:
    """The first lines are read by any Python, and end it."""
    text = SCRIPT.read_text(encoding="utf-8")
    major, minor = version.split(".")
    text = text.replace("sys.version_info", f"({major}, {minor}, 0)")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, f"this is Python {version}" in done.stderr) == (2, True)


def test_a_python_that_is_not_whole_is_told() -> None:
    """As Debian's python3-minimal."""
    text = "import sys; sys.modules['argparse'] = None\n" + SCRIPT.read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, "apt install python3" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.sound(tmp_path_factory.mktemp("sound"))


ODD = {
    "escape codes": hostile.saying("app:1", names=["\x1b]0;owned\x07\x1b[2Jsound"]),
    "names that are none": hostile.saying("app:1", names=[5]),
    "no names": lambda p: hostile.image(p).pop("names"),
    "no images": lambda p: p.header.pop("images"),
    "no prerequisites": lambda p: p.header.pop("prerequisites"),
    "prerequisites that are none": lambda p: p.header.update(prerequisites={"chunks": 0, "bundles": [5]}),
    "words that are none": lambda p: p.header.update(prerequisites={"chunks": 0, "bundles": [], "about": 5}),
    "frames that are none": hostile.saying("app:1", frames=7),
    "endless frames": hostile.saying("app:1", frames="0-99999999999"),
    "packs that are none": lambda p: p.header.update(packs=[7]),
    "a size that is none": hostile.of_pack(size=-1),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_told_in_one_line(what: str, sound: Path, tmp_path: Path) -> None:
    bundle = changed(sound, tmp_path / "b", ODD[what])
    for path in (bundle / "blobs" / "sha256").iterdir():
        if path.read_bytes()[:4] == b"\x89TPK":
            path.unlink()
    assert verify(sys.executable, bundle)[0] in (13, 14)


@pytest.mark.parametrize("name", ["index.json", "medium.json", "blobs"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "text"])
def test_nothing_that_lies_there_makes_it_wait(name: str, kind: str, sound: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(sound, bundle)
    if (bundle / name).exists():
        shutil.rmtree(bundle / name) if (bundle / name).is_dir() else (bundle / name).unlink()
    if kind == "fifo":
        os.mkfifo(bundle / name)
    elif kind == "folder":
        (bundle / name).mkdir()
    elif kind == "link":
        (bundle / name).symlink_to("/dev/zero")
    else:
        (bundle / name).write_text("nonsense")
    if name == "medium.json":  # advice for people: without it the bundle is what it was
        assert (verify(sys.executable, bundle)[0], says("verify", bundle)[0]) == (0, 0)
        return
    assert verify(sys.executable, bundle)[0] in (13, 14)
    assert says("verify", bundle)[0] in (10, 13, 14)


def test_a_rebuild_goes_through_no_link(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "o").mkdir()
    for name in ("index.json.part", "manifest.json.part", "oci-layout"):
        (tmp_path / "o" / name).symlink_to(tmp_path / "victim")
    if shutil.which("zstd"):
        assert verify(sys.executable, sound, "--rebuild", tmp_path / "o")[0] == 0
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_strange_script_is_told_and_not_carried_on(sound: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(sound, bundle)
    (bundle / "verify.py").write_text("print('sound')")
    code, said = says("verify", bundle)
    assert (code, "is not the verify.py of this version" in said) == (0, True)
    (tmp_path / "usb").mkdir()
    run("ship", bundle, tmp_path / "usb", "-q", "--no-store")
    assert (tmp_path / "usb" / "b" / "verify.py").read_bytes() == SCRIPT.read_bytes()
