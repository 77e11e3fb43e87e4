"""The program as a user runs it: in a process of its own, never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bundles" / "verify.py"


def transfer(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A transfer command."""
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run(*words: object, code: int = 0, env: Mapping[str, str] | None = None) -> str:
    """A transfer command; its stdout. The exit code must be the one expected."""
    done = transfer(*words, env=env)
    assert done.returncode == code, done.stderr
    return done.stdout


def says(*words: object, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """A transfer command; its exit code and all it says."""
    done = transfer(*words, env=env)
    return done.returncode, done.stdout + done.stderr


def alone(bundle: Path, *words: object) -> int:
    """The exit code of the checker that lies in the bundle (else the repository's), run without any of our code or packages."""
    script = bundle / "verify.py" if (bundle / "verify.py").exists() else SCRIPT
    command = [sys.executable, "-I", "-S", str(script), str(bundle), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
