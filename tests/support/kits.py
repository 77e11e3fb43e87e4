"""Kits for the tests: real ones, made once in a run, and small ones whose program is a few lines of shell."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INSTALLER = REPOSITORY / "transfer/kits/install.sh"
NEXT = "0.1.999"
"""The version of the kit that is newer than this program."""


def transfer(*words: object, program: Path = REPOSITORY) -> str:
    """A command of this program, or of a copy of it."""
    environment = {**os.environ, "PYTHONPATH": str(program)}
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    with open("/var/tmp/transfer-test-kits.lock", "w", encoding="ascii") as lock:  # other tests make kits, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=program)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def newer_program(place: Path) -> Path:
    """This program, copied, as if its version were NEXT."""
    place.mkdir()
    for name in ("docs", "systemd", "bundles"):
        (place / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "transfer", place / "transfer", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "transfer/__init__.py").write_text(f'"""Newer."""\n\n__version__ = "{NEXT}"\n', encoding="utf-8")
    return place


def small(place: Path, version: str, program: str = "#!/bin/sh\nexit 0\n") -> Path:
    """A kit whose program is a script; its installer is the real one."""
    tree = place.with_name(f"{place.name}-tree")
    (tree / "bin").mkdir(parents=True)
    (tree / "share").mkdir()
    for name, text in (("transfer", program), ("python3", "#!/bin/sh\nexit 1\n")):
        (tree / "bin" / name).write_text(text, encoding="utf-8")
        (tree / "bin" / name).chmod(0o755)
    shutil.copy(INSTALLER, tree / "share/install.sh")
    place.mkdir()
    machine = os.uname().machine
    with tarfile.open(place / f"transfer-{machine}.tar.gz", "w:gz") as archive:
        archive.add(tree, ".")
    shutil.copy(INSTALLER, place / "install.sh")
    (place / "kit.txt").write_text(f"{machine} {version}\n", encoding="ascii")
    (place / "docs").mkdir()
    (place / "docs/install.md").write_text("how\n", encoding="ascii")
    write_sums(place)
    return place


def write_sums(kit: Path) -> None:
    """SHA256SUMS for what is there now."""
    files = sorted(path for path in kit.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(kit)}\n" for path in files]
    (kit / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
