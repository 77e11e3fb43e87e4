"""Files of a bundle, found sound or not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from transfer.errors import Damaged, MediumError, MissingPart, NotFound, TransferError
from transfer.model import Addressed
from transfer.streams import BLOCK, open_plain

T = TypeVar("T")


def size_there(path: Path) -> int:
    """Bytes of what is there; -1 if nothing is."""
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def first_sound(paths: Sequence[Path], read: Callable[[Path], T]) -> T:
    """What could be read first; if nothing can, the error of the first that is not just missing."""
    gone = (MissingPart, NotFound)
    failed: TransferError | None = None
    for path in paths:
        try:
            return read(path)
        except (Damaged, MissingPart, NotFound, MediumError) as error:
            if failed is None or (isinstance(failed, gone) and not isinstance(error, gone)):
                failed = error
    assert failed
    raise failed


def file_fault(path: Path, blob: Addressed, passed: Callable[[int], None] = lambda count: None) -> str:
    """What is wrong with a pack or catalog file as a whole; "" if nothing. NotFound if it is not there. `passed` hears of bytes read."""
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            hasher = hashlib.sha256()
            buffer = bytearray(BLOCK)
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                hasher.update(memoryview(buffer)[:count])
                passed(count)
    except NotFound:
        raise
    except TransferError as error:
        return error.message
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size != blob.size:
        return f"{size} bytes where it should have {blob.size}"
    return "" if hasher.hexdigest() == blob.digest.hex else "the content does not match the file name"
