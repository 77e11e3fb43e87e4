"""A command in a process of its own, held to what this program promises: so much memory, and an end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

MEMORY_MAX = 512 << 20
"""Peak memory of any command, whatever it is given (bytes)."""
SECONDS_MAX = 20
"""Processor seconds after which a command on a hostile input of a few kB is killed."""


_WATCH = """
import os, resource, sys
child = os.fork()
if child == 0:
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
    os.execv(sys.argv[3], sys.argv[3:])
_, status, used = os.wait4(child, 0)
os.write(int(sys.argv[1]), b"%d %d" % (os.waitstatus_to_exitcode(status), used.ru_maxrss))
"""
"""Starts a command out of a small process: a peak that is told counts the memory of what was forked, and the tests' own is large."""


@dataclass(frozen=True)
class Measured:
    """What a command said, its exit code (negative: the signal that killed it), and its peak memory (bytes)."""

    code: int
    said: str
    memory: int


def measured(*words: object, env: Mapping[str, str] | None = None, script: str = "") -> Measured:
    """A transfer command, or a script with Python alone. It is killed when it takes too long; AssertionError for a traceback or too much memory."""
    start = [sys.executable, "-I", "-S", script] if script else [sys.executable, "-m", "transfer"]
    told, tell = os.pipe()
    watch = [sys.executable, "-I", "-S", "-c", _WATCH, str(tell), str(SECONDS_MAX), *start, *map(str, words)]
    with os.fdopen(told, "rb") as result:
        done = subprocess.run(
            watch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(tell,),
            env={**os.environ, **(env or {})},
            check=True,
        )
        os.close(tell)
        code, memory = map(int, result.read().split())
    said = done.stdout.decode(errors="replace")
    found = Measured(code, said, memory << 10)
    assert "Traceback" not in said and "internal error" not in said and "unexpected" not in said, said
    assert found.memory < MEMORY_MAX, f"{found.memory >> 20} MB: {said[-500:]}"
    assert found.code >= 0, f"killed by signal {-found.code}: {said[-500:]}"
    return found
