"""The program as a user runs it: in a process of its own (forked where that does the same), never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.forked import can_fork, forked

SCRIPT = Path(__file__).parents[2] / "bundles" / "verify.py"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def transfer(*words: object, env: Mapping[str, str] | None = None) -> Done:
    """A transfer command."""
    if can_fork(env or {}):
        ended = forked([*map(str, words)], env or {})
        done = Done(ended.code, ended.out, ended.err)
    else:
        command = [sys.executable, "-m", "transfer", *map(str, words)]
        own = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
        done = Done(own.returncode, own.stdout, own.stderr)
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
