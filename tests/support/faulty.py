"""A transfer command in a forked child, in which the N-th call of one system function fails or is the last thing it does."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import forked

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
    """Run it. Nothing of the test process is disturbed; `log` gets what was said."""
    calls = [0]

    def before() -> None:
        if fault:
            setattr(os, fault.call, _broken(getattr(os, fault.call), fault, calls))

    def after() -> None:
        if fault and fault.how == "count":
            print("calls", calls[0], file=sys.stderr)

    ended = forked([str(word) for word in words], before=before, after=after)
    said = ended.out + ended.err
    log.write_text(said, encoding="utf-8")
    assert "Traceback" not in said, said
    return Ended(ended.code, said)


def count(call: str, log: Path, *words: object) -> int:
    """How often a run calls the function."""
    ended = run_with(Fault(call, 1 << 30, "count"), log, *words)
    assert ended.code == 0, ended.said
    return int(ended.said.rsplit("calls ", 1)[1])


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
