"""Another program's commands: fed, bounded, ended, and its complaints in one line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from transfer.engines import program as module
from transfer.engines.program import Program
from transfer.errors import Damaged, EngineAway, EngineError, NoSpace

PYTHON = (sys.executable, "-c")


def test_what_it_is_fed_and_what_it_says() -> None:
    code = "import sys; data = sys.stdin.buffer.read(); print(len(data), sys.argv[1:])"
    assert Program(PYTHON, "here").run(code, "-x", "a b", data=[b"12", b"345"]) == b"5 ['-x', 'a b']\n"


def test_why_it_failed_is_told_in_one_line() -> None:
    code = "import sys; print('time=now level=info', file=sys.stderr); print('first\\n second', file=sys.stderr); sys.exit(3)"
    with pytest.raises(EngineError, match=r"here: .* failed: first second$"):
        Program(PYTHON, "here").run(code)


def test_a_full_disk_is_named() -> None:
    code = "import sys; print('write: no space left on device', file=sys.stderr); sys.exit(1)"
    with pytest.raises(NoSpace, match="/var/spool"):
        Program(PYTHON, "here", spool="/var/spool").run(code)


def test_one_that_is_not_there() -> None:
    with pytest.raises(EngineAway, match="cannot be started"):
        Program(("/nowhere/at/all",), "here").run("x")


def test_one_that_wants_no_more_says_why_itself() -> None:
    code = "import sys; sys.stdin.close(); print('enough', file=sys.stderr); sys.exit(1)"
    with pytest.raises(EngineError, match="enough"):
        Program(PYTHON, "here").run(code, data=(b"x" * 65536 for _ in range(1000)))


def test_a_failure_of_what_it_is_fed_is_that_failure_and_it_ends(tmp_path: Path) -> None:
    def feeding() -> Iterator[bytes]:
        yield b"x"
        raise Damaged("the pack is damaged")

    code = f"import sys; data = sys.stdin.buffer.read(); open({str(tmp_path / 'end')!r}, 'wb').write(data)"
    with pytest.raises(Damaged, match="pack"):
        Program(PYTHON, "here").run(code, data=feeding())
    assert (tmp_path / "end").read_bytes() == b"x"


def test_one_that_says_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_MAX", 1000)
    with pytest.raises(EngineError, match="says more"):
        Program(PYTHON, "here").run("print('x' * 2000)")


def test_a_stream_that_is_dropped_ends_the_program() -> None:
    started = time.monotonic()
    with contextlib.closing(Program(PYTHON, "here").open("while True: print('x' * 1000)")) as stream:
        assert stream.read(4) == b"xxxx"
    assert time.monotonic() - started < 20


def test_a_stream_of_one_that_fails_fails_at_its_end() -> None:
    stream = Program(PYTHON, "here").open("import sys; print('some'); sys.exit('why')")
    assert stream.read(100) == b"some\n"
    with pytest.raises(EngineError, match="why"):
        stream.read(100)


def test_variables_it_gets_and_does_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")
    program = Program(PYTHON, "here", env={"ONE": None, "TWO": "2"})
    assert program.run("import os; print(os.environ.get('ONE'), os.environ.get('TWO'))") == b"None 2\n"
