"""Fuzzes folds and frames by subtraction: `python -m tests.support.fuzz_nested SEED SECONDS`.

From walking odd files to importing broken bundles: only a TransferError may come out, and what comes back whole must be the layer.
"""

from __future__ import annotations

import collections
import contextlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyzstd

from tests.support.nested import There, compressed_files, fat_jar, gz, jar, odd_zips, tarred, zipped
from tests.support.run import says
from tests.support.specimens import GOLDEN, Patient
from tests.support.zoo import floats, go_program, layer, noise
from transfer.chunks import walk
from transfer.chunks.difference import decode, encode
from transfer.chunks.fold import folded
from transfer.errors import TransferError
from transfer.streams import IterReader, blocks
from transfer.work import Pool

LIMIT = 60
"""Seconds one attempt may take."""
MARKS = [b"PK\x03\x04", b"PK\x05\x06", b"PK\x01\x02", b"\x1f\x8b\x08\0"]


class Hang(BaseException):
    """An attempt took too long."""


def mutated(rand: random.Random, data: bytes, most: int = 4) -> bytes:
    """Bytes changed, taken out, put in and copied."""
    out = bytearray(data)
    for _ in range(rand.randrange(1, most + 1)):
        if not out:
            break
        at, other = rand.randrange(len(out)), rand.randrange(len(out))
        changes: list[tuple[slice, bytes]] = [
            (slice(at, at + 1), bytes([out[at] ^ 1 << rand.randrange(8)])),
            (slice(at, at + 1), bytes([rand.choice([0, 1, 0x7F, 0x80, 0xFF])])),
            (slice(at, at + rand.choice([1, 4, 32, 4000])), b""),
            (slice(at, at), bytes(rand.choice([1, 4, 32]))),
            (slice(at, at + 64), bytes(out[other : other + 64])),
            (slice(at, at), rand.choice(MARKS) + rand.randbytes(rand.randrange(60))),
        ]
        where, what = rand.choice(changes)
        out[where] = what
    return bytes(out)


def _patch(prefix: bytes, data: bytes) -> bytes:
    dictionary = pyzstd.ZstdDict(prefix, is_raw=True).as_prefix
    return pyzstd.compress(data, {pyzstd.CParameter.contentSizeFlag: 1}, dictionary)


class Fuzzer:
    """What is tried, in turns that the seed decides."""

    def __init__(self, seed: int) -> None:
        self._rand = random.Random(seed)
        many = {**odd_zips(), **compressed_files(), "jar": jar(1, 80), "fat": fat_jar()}
        many["noise"] = zipped({"a": noise(1, 9) * 9000})
        many["tar"] = gz(tarred({"a": bytes(3 << 20)}) + noise(4, 2 << 20))
        self._files = list(many.values())
        self._there = [
            There(layer(compressed_files(wide=False))),
            There(layer({"a": fat_jar(), "b": gz(bytes(9 << 20))})),
        ]
        self._pairs = [
            (go_program(1, 0), go_program(1, 999), 1),
            (floats(1, 0, "f", 30_000), floats(1, 0.001, "f", 30_000), 4),
            (floats(1, 0, "e", 30_000), floats(1, 0.001, "e", 30_000), 2),
        ]

    def ways(self) -> list[Callable[[], None]]:
        return [self.walked, self.refolded, self.refolded, self.subtracted, self.subtracted, self.imported]

    def walked(self) -> None:
        """Files that are no longer what they begin as."""
        rand = self._rand
        files = [rand.choice(self._files) for _ in range(rand.randrange(1, 4))]
        changed = [mutated(rand, each) if rand.random() < 0.8 else each for each in files]
        data = layer({f"f{n}": each for n, each in enumerate(changed)})
        walk.GZIP_MIN, walk.ZIP_MIN = rand.choice([(2 << 20, 64 << 10), (40, 40)])
        there = There(data, rand.randrange(3))
        assert there.back() == data
        there.paths_again()

    def refolded(self) -> None:
        """Folds that are others, unfolded bytes that are."""
        rand, there = self._rand, self._rand.choice(self._there)
        runs = []
        for lead, run in there.runs():
            bad = mutated(rand, b"".join(blocks(run, 1 << 20)))
            runs.append((lead if rand.random() < 0.9 else rand.randrange(1 << 40), IterReader(iter([bad]))))
        unfolded = mutated(rand, there.unfolded) if rand.random() < 0.3 else there.unfolded
        with Pool(rand.randrange(3), "fuzz") as pool:
            made = folded(runs, IterReader(iter([unfolded])), pool, 2, "fuzz")
            assert sum(map(len, made)) < 1 << 28

    def subtracted(self) -> None:
        """Frames by subtraction."""
        rand = self._rand
        old, new, width = rand.choice(self._pairs)
        if rand.random() < 0.5:
            new = mutated(rand, new)
            assert decode(encode(new, old, partial(_patch, old), 3, width), old, len(new), "fuzz") == new
            return
        data = encode(new, old, partial(_patch, old), 3, width)
        bad = mutated(rand, data[:60]) + data[60:] if rand.random() < 0.6 else mutated(rand, data)
        with contextlib.suppress(pyzstd.ZstdError, EOFError):  # `decode_frame` turns these into Damaged
            assert len(decode(bad, old, len(new), "fuzz")) == len(new)

    def imported(self) -> None:
        """Golden bundles with records that are others, all digests right."""
        rand = self._rand
        name, seeds = rand.choice([("folds1", []), ("folds2", ["folds1"]), ("go2", ["go1"])])
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            shutil.copytree(GOLDEN / name, place / "b")
            patient = Patient(place / "b", [GOLDEN / each for each in seeds])
            records = list(patient.records)
            for _ in range(rand.choice([1, 1, 2])):
                at = rand.randrange(len(records))
                if records[at][:1] == b"R" or rand.random() < 0.3:
                    records[at] = mutated(rand, records[at], 2) or b"Z"
            patient.recatalog(records)
            words = [word for each in seeds for word in ("--seed", GOLDEN / each)]
            code, text = says("import", place / "b", "--to", f"oci:{place / 'o'}", "--no-store", *words)
            assert code in (0, 2, 3, 12, 13, 14), (code, text)


def _too_long(*_: object) -> None:
    raise Hang


def main(seed: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    signal.signal(signal.SIGALRM, _too_long)
    fuzzer, stat, turns = Fuzzer(seed), collections.Counter[tuple[str, str]](), random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        way = turns.choice(fuzzer.ways())
        signal.alarm(LIMIT)
        try:
            way()
            told = "ok"
        except TransferError as error:
            told = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - this is what is looked for
            told = f"FAULT {type(error).__name__}"
            traceback.print_exc()
        finally:
            signal.alarm(0)
        stat[way.__name__, told] += 1
    print(seed, dict(stat), "peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MB")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
