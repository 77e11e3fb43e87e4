"""Where chunks and layers are in a store: a cache in SQLite, rebuilt from the catalogs whenever it is not to be trusted.

It is written without a journal. A mark beside it says that a write is under way; where one is found, the index is made anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from transfer.chunks.name import ID_SIZE
from transfer.errors import FormatError, MediumError, from_os_error
from transfer.folders import open_own
from transfer.model import Digest
from transfer.streams import publish, sync_folder

VERSION = 2
_SCHEMA = """
create table bundle(id integer primary key, digest text unique not null);
create table chunk(key integer not null, bundle integer not null, number integer not null, primary key (key, bundle)) without rowid;
create table layer(digest text not null, bundle integer not null, primary key (digest, bundle)) without rowid;
"""
_ASK = 500
_BATCH = 400_000
"""Names that are inserted together (some 80 MB of memory)."""


class IndexSpoiled(Exception):
    """The index cannot be read: it is made anew."""


class ChunkIndex:
    """Names of chunks by their first 64 bits: a hit is a hint, which the catalog it points to confirms. Without a folder it is in memory."""

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / "index.sqlite" if folder else None
        self._mark = folder / "index.dirty" if folder else None
        self._open: sqlite3.Connection | None = None
        self._waiting: list[tuple[int, int, int]] = []

    @property
    def sound(self) -> bool:
        """Whether it is there, whole as far as a glance tells, and of this version."""
        if self.path and ((self._mark and self._mark.exists()) or not self.path.is_file()):
            return False
        try:
            return bool(self._db().execute("pragma user_version").fetchone()[0] == VERSION)
        except sqlite3.DatabaseError:
            return False

    def _db(self) -> sqlite3.Connection:
        if self._open is None:
            if self.path:
                _is_plain(self.path)
            self._open = sqlite3.connect(self.path or ":memory:", isolation_level=None, check_same_thread=False)
            for each in ("journal_mode=off", "synchronous=off", "cache_size=-131072", "temp_store=memory"):
                self._open.execute(f"pragma {each}")
        return self._open

    def clear(self) -> None:
        """An empty index, whatever was there."""
        self.close()
        if self.path and self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        elif self.path:
            self.path.unlink(missing_ok=True)
        with self.writing():
            self._db().executescript(_SCHEMA)
            self._db().execute(f"pragma user_version={VERSION}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Changes inside are all there afterwards, or the index counts as broken."""
        if self._mark:
            publish(self._mark, b"being written\n")
        try:
            yield
            self._flush()
            if self.path and self._mark:
                self.close()
                with self.path.open("rb+") as file:
                    os.fsync(file.fileno())
                self._mark.unlink()
                sync_folder(self.path.parent)
        except sqlite3.Error as error:
            number = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise from_os_error(OSError(number, str(error)), f"writing {self.path}") from error
        finally:
            self._waiting = []
            if self.path:
                self.close()

    def bundles(self) -> set[Digest]:
        """Whose chunks it knows."""
        with _spoiled():
            return {Digest.parse(text) for (text,) in self._db().execute("select digest from bundle")}

    def add(self, digest: Digest, names: Iterable[bytes], layers: Iterable[Digest]) -> None:
        """A bundle's chunks (names end to end, frame by frame, in the order of their numbers) and layers. Inside `writing`."""
        db = self._db()
        number = db.execute("insert into bundle(digest) values (?)", (str(digest),)).lastrowid
        assert number is not None
        first = 0
        for each in names:
            keys = (_key(each[at : at + ID_SIZE]) for at in range(0, len(each), ID_SIZE))
            self._waiting += ((key, number, n) for n, key in enumerate(keys, first))
            first += len(each) // ID_SIZE
        db.execute("begin")
        db.executemany("insert or ignore into layer values (?, ?)", ((str(each), number) for each in layers))
        db.execute("commit")
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        """Insert what waits by rising keys: many then fall on each page of the tree, however large it is. Of a bundle's equal keys the earlier stays."""
        rows, self._waiting = self._waiting, []
        rows.sort()
        db = self._db()
        db.execute("begin")
        db.executemany("insert or ignore into chunk values (?, ?, ?)", rows)
        db.execute("commit")

    def find(self, names: Iterable[bytes]) -> list[tuple[bytes, Digest, int]]:
        """(name, bundle, chunk number) of those it has, in each bundle that has it, the earliest first. IndexSpoiled if it cannot be read."""
        by_key = {_key(name): name for name in names}
        keys = list(by_key)
        out: list[tuple[bytes, Digest, int]] = []
        for at in range(0, len(keys), _ASK):
            part = keys[at : at + _ASK]
            marks = ",".join("?" * len(part))
            with _spoiled():
                rows = self._db().execute(
                    f"select key, digest, number from chunk join bundle on bundle.id = chunk.bundle where key in ({marks}) order by bundle.id",
                    part,
                )
                out += [(by_key[key], Digest.parse(digest), int(number)) for key, digest, number in rows]
        return out

    def holders(self, layer: Digest) -> list[Digest]:
        """The bundles with a recipe for this layer."""
        rows = self._db().execute(
            "select bundle.digest from layer join bundle on bundle.id = layer.bundle where layer.digest = ?",
            (str(layer),),
        )
        return [Digest(text) for (text,) in rows]

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


@contextlib.contextmanager
def _spoiled() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError, KeyError, FormatError) as error:
        raise IndexSpoiled(str(error)) from error


def _is_plain(path: Path) -> None:
    """Make the file, for its owner alone; UsageError if what is there is a link, or another name of another file."""
    try:
        os.close(open_own(path, 0o600))
    except MediumError:
        if not path.is_file() or path.is_symlink():  # one that cannot be written is read
            raise


def _key(name: bytes) -> int:
    return int.from_bytes(name[:8], "little", signed=True)
