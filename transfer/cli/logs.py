"""What the program writes down about its own work: for whoever helps with a problem, on standard error or in a file."""

from __future__ import annotations

import logging
import os
import sys

from transfer.errors import UsageError

VARIABLE = "TRANSFER_LOG"
FORMAT = "%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s"


def start(verbose: int) -> None:
    """`verbose`: 1 for requests, locks and decisions, 2 for every frame. TRANSFER_LOG names a file that gets all of it."""
    logger = logging.getLogger("transfer")
    file = os.environ.get(VARIABLE, "")
    handlers: list[logging.Handler] = []
    if file:
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"{VARIABLE} names {file}, which cannot be written: {error.strerror}") from error
        handlers.append(logging.StreamHandler(open(fd, "a", encoding="utf-8", errors="backslashreplace")))  # noqa: SIM115
        handlers[-1].setLevel(logging.DEBUG)
    if verbose and sys.stderr is not None:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    for each in handlers:
        each.setFormatter(_Printable(FORMAT, "%Y-%m-%dT%H:%M:%S"))
        logger.addHandler(each)
    if handlers:
        logger.setLevel(min(each.level for each in handlers))
        logger.propagate = False
        logger.info("transfer %s", " ".join(sys.argv[1:]))


class _Printable(logging.Formatter):
    """No control characters, whoever the text is from."""

    def format(self, record: logging.LogRecord) -> str:
        from transfer.cli.exits import printable

        return printable(super().format(record))
