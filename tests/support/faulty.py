"""A transfer command in a forked child, in which the N-th call of one system function fails or is the last thing it does."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.cli.main import main

KILLED = 137


@dataclass(frozen=True)
class Fault:
    """`call` is a function of os; `how` is "kill-before", "kill-after", or the name of an errno."""

    call: str
    at: int
    how: str


@dataclass(frozen=True)
class Ended:
    """How the child ended: exit code and what it said."""

    code: int
    said: str


def run_with(fault: Fault | None, log: Path, *words: object) -> Ended:
    """Run it. Nothing of the test process is disturbed."""
    child = os.fork()
    if child == 0:
        _child(fault, log, [str(word) for word in words])
    _, status = os.waitpid(child, 0)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in said, said
    return Ended(os.waitstatus_to_exitcode(status), said)


def count(call: str, log: Path, *words: object) -> int:
    """How often a run calls the function."""
    ended = run_with(Fault(call, 1 << 30, "count"), log, *words)
    assert ended.code == 0, ended.said
    return int(ended.said.rsplit("calls ", 1)[1])


def _child(fault: Fault | None, log: Path, words: list[str]) -> None:
    code = 99
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        calls = [0]
        if fault:
            setattr(os, fault.call, _broken(getattr(os, fault.call), fault, calls))
        try:
            main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        if fault and fault.how == "count":
            print("calls", calls[0])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _broken(real: Callable[..., Any], fault: Fault, calls: list[int]) -> Callable[..., Any]:
    def call(*words: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] != fault.at:
            return real(*words, **options)
        if fault.how == "kill-after":
            with contextlib.suppress(OSError):
                real(*words, **options)
        if fault.how.startswith("kill"):
            os._exit(KILLED)
        number = getattr(errno, fault.how)
        raise OSError(number, os.strerror(number), str(words[0]))

    return call
