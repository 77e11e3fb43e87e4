"""Another program's commands: run with words this program made, its output bounded, its complaints told in one line."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import IO

from transfer.errors import EngineAway, EngineError, NoSpace, TransferError
from transfer.streams import BLOCK

OUTPUT_MAX = 64 << 20
"""More than a program may say (bytes)."""
PATIENCE = 30.0
"""Seconds for a program to end that was asked to."""


def find(name: str, *places: str) -> str | None:
    """Where a program is: in PATH, in the folders of root's PATH, else in one of these places."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(name, path=search) or next((each for each in places if os.access(each, os.X_OK)), None)


def own_module(name: str, *words: str) -> list[str]:
    """The command line that runs one of our modules with these words, by the Python that runs now.

    Modules come from where they come from now, and never from the folder it is started in.
    """
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", name, *words]


class Program:
    """One program and the words that stand before every command of it. `where` is for messages.

    `env`: variables that are other ones for it; None: it does not get them. `spool`: the folder in which the program puts what it takes, to be named when that is full.
    """

    def __init__(
        self, words: Sequence[str], where: str, *, env: Mapping[str, str | None] | None = None, spool: str = ""
    ) -> None:
        self.words, self.where = tuple(words), where
        own = {**os.environ, **(env or {})}
        self._env = {name: value for name, value in own.items() if value is not None}
        self._spool = spool

    def run(
        self,
        *words: str,
        data: Iterable[bytes] = (),
        env: Mapping[str, str] | None = None,
        fds: Collection[int] = (),
    ) -> bytes:
        """The output of a command that is fed `data`. EngineError if it fails; NoSpace if it says so.

        `fds`: open files of this process that the command has under the same numbers.
        Where `data` fails, the program is left with an input that ends too early, and that failure is raised.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
            with self._started(words, subprocess.PIPE, out, complaints, env, fds) as process:
                assert process.stdin
                try:
                    with contextlib.suppress(BrokenPipeError):  # why it wants no more, it says itself
                        for block in data:
                            process.stdin.write(block)
                finally:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
            self._heed(process.returncode, words, complaints)
            if out.seek(0, os.SEEK_END) > OUTPUT_MAX:
                raise EngineError(f"{self.where}: `{self._called(words)}` says more than {OUTPUT_MAX} bytes")
            out.seek(0)
            return out.read()

    def open(self, *words: str) -> Output:
        """A command's output, as a stream."""
        return Output(self.blocks(*words))

    def blocks(self, *words: str) -> Generator[bytes, None, None]:
        """A command's output, block by block. The command is ended where nobody wants more."""
        with tempfile.TemporaryFile() as complaints:
            with self._started(words, subprocess.DEVNULL, subprocess.PIPE, complaints) as process:
                assert process.stdout
                while block := process.stdout.read(BLOCK):
                    yield block
            self._heed(process.returncode, words, complaints)

    @contextlib.contextmanager
    def _started(
        self,
        words: Sequence[str],
        stdin: int,
        out: IO[bytes] | int,
        complaints: IO[bytes],
        env: Mapping[str, str] | None = None,
        fds: Collection[int] = (),
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The program, in a session of its own: Ctrl-C is ours to handle. It has ended when this ends."""
        try:
            process = subprocess.Popen(
                [*self.words, *words],
                stdin=stdin,
                stdout=out,
                stderr=complaints,
                env={**self._env, **(env or {})},
                start_new_session=True,
                pass_fds=tuple(fds),
            )
        except OSError as error:
            raise EngineAway(f"{self.where}: {self.words[0]} cannot be started: {error.strerror or error}") from error
        failed = True
        try:
            yield process
            failed = False
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
            for patience, asked in ((5.0, signal.SIGTERM), (PATIENCE, signal.SIGKILL), (None, None)):
                try:
                    process.wait(patience if failed else None)
                    break
                except subprocess.TimeoutExpired:
                    if asked:
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, asked)

    def _called(self, words: Sequence[str]) -> str:
        return " ".join([self.words[0].rpartition("/")[2], *words[:3]])[:200]

    def _heed(self, code: int, words: Sequence[str], complaints: IO[bytes]) -> None:
        if code:
            raise self.failure(code, words, _told(complaints))

    def failure(self, code: int, words: Sequence[str], text: str) -> TransferError:
        """What a command's end with this code means."""
        if "no space left on device" in text or "disk quota exceeded" in text:
            place = f" (it puts what it takes into {self._spool} first)" if self._spool else ""
            return NoSpace(f"{self.where}: {text}{place}", hint="free space there and run the same command again")
        return EngineError(f"{self.where}: `{self._called(words)}` failed: {text or f'status {code}'}")


class Output:
    """A program's output (`Readable`). The program is stopped when this is closed, or dropped."""

    def __init__(self, parts: Generator[bytes, None, None]) -> None:
        self._parts, self._rest = parts, b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            block = next(self._parts, b"")
            if not block:
                return b""
            self._rest = block
        out, self._rest = self._rest[:size], self._rest[size:]
        return out

    def close(self) -> None:
        self._parts.close()


def _told(complaints: IO[bytes]) -> str:
    """The last lines of what a program complained about, in one."""
    end = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(0, end - 4096))
    lines = [line for line in complaints.read().decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("time=") and "DEPRECAT" not in line] or lines
    return " ".join(" ".join(told[-3:]).split())[:500]
