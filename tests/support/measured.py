"""A command in a process of its own, held to what this program promises: so much memory, and an end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

MEMORY_MAX = 512 << 20
"""Peak memory of any command, whatever it is given (bytes)."""
SECONDS_MAX = 20
"""Processor seconds after which a command on a hostile input of a few kB is killed."""


@dataclass(frozen=True)
class Measured:
    """What a command said, its exit code (negative: the signal that killed it), and its peak memory (bytes)."""

    code: int
    said: str
    memory: int


def measured(*words: object, env: Mapping[str, str] | None = None, script: str = "") -> Measured:
    """A transfer command, or a script with Python alone. It is killed when it takes too long; AssertionError for a traceback or too much memory."""
    start = [sys.executable, "-I", "-S", script] if script else [sys.executable, "-m", "transfer"]
    read, write = os.pipe()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_MAX, SECONDS_MAX))

    with os.fdopen(read, "rb") as out:
        process = subprocess.Popen(
            [*start, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            preexec_fn=limit,
            env={**os.environ, **(env or {})},
        )
        os.close(write)
        said = out.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = Measured(process.returncode, said, used.ru_maxrss << 10)
    assert "Traceback" not in said and "internal error" not in said and "unexpected" not in said, said
    assert found.memory < MEMORY_MAX, f"{found.memory >> 20} MB: {said[-500:]}"
    assert found.code >= 0, f"killed by signal {-found.code}: {said[-500:]}"
    return found
