"""A transfer command in a forked child of the test's process: as a process of its own, but without its start of a quarter of a second."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import transfer
from transfer.cli.main import main

for _module in pkgutil.walk_packages(transfer.__path__, "transfer."):
    if not _module.name.endswith(("__main__", "standalone")):
        importlib.import_module(_module.name)  # once here, and not again in every child
import httpx, paramiko, tqdm  # noqa: E401, E402, F401, I001 - what a command imports when it needs it

_STARTS_ANEW = ("PYTHON", "LC_", "LANG", "LANGUAGE")
"""Variables that an interpreter reads when it starts (beginnings of names)."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it) and what it printed."""

    code: int
    out: str
    err: str


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a forked child does what a new process would: no thread of the test holds a lock, nothing is read at the start."""
    return threading.active_count() == 1 and not any(name.startswith(_STARTS_ANEW) for name in env)


def forked(
    words: Sequence[str],
    env: Mapping[str, str] = {},
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command. `before` and `after` are called in the child. Nothing of the test's process is disturbed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(words, env, (out, err), before, after)
        _, status = os.waitpid(child, 0)
        return Ended(os.waitstatus_to_exitcode(status), *(_text(each) for each in (out, err)))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").replace("\r\n", "\n")


def _child(
    words: Sequence[str],
    env: Mapping[str, str],
    files: tuple[IO[bytes], IO[bytes]],
    before: Callable[[], None],
    after: Callable[[], None],
) -> None:
    code = 99
    try:
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the child ends with it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        before()
        try:
            main(list(words))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        after()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
