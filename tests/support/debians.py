"""Roots of Debian, each made once on a machine."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path


def root(cache: Path, suite: str, *words: str) -> Path:
    """The one at this place; mmdebstrap makes it, with these words, if it is not there. Never half a root."""
    with open(f"{cache}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.is_dir():
            part = cache.with_name(f"{cache.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            command = ["mmdebstrap", "-q", "--variant=minbase", *words, suite, str(part)]
            subprocess.run(command, check=True, capture_output=True)
            part.rename(cache)
    return cache
