"""Next month's bundle given this month's, and a hotfix, beside the tools that deduplicate: sizes, times, memory, store.

Needs CORPUS: a folder with v1.tar, v2.tar and hot.tar (docker save of the same images, rebuilt a month later, and of one with a file more).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.run import Bench, Ran, mb, timed, weight, write

ENV = {"RESTIC_PASSWORD": "x", "BORG_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}


class Peer:
    """A tool with a repository that holds the first month; `add` takes another tar in."""

    def __init__(self, name: str, place: Path, init: str, add: str) -> None:
        self.name, self.folder = name, place / f"{name}-repository"
        self._add, self._env = add, {**ENV, "BORG_BASE_DIR": str(place / "borg-home")}
        self._count = 0
        timed(init.format(r=self.folder), self._env)

    def add(self, tar: Path) -> tuple[Ran, int]:
        """What it took, and by how much the repository grew (bytes)."""
        before = weight(self.folder)
        self._count += 1
        ran = timed(self._add.format(r=self.folder, t=tar, n=self._count), self._env)
        return ran, weight(self.folder) - before


def peers(place: Path) -> list[Peer]:
    commands = {
        "casync": ("mkdir {r}", "casync make --store={r}/s {r}/{n}.caibx {t}"),
        "restic": ("restic -q init -r {r}", "restic -q -r {r} backup {t}"),
        "borg": ("borg init -e none {r}", "borg create -C zstd,3 {r}::{n} {t}"),
    }
    return [Peer(name, place, *words) for name, words in commands.items() if shutil.which(name)]


class Deltas(Bench):
    """The rows about deltas."""

    def measure(self, corpus: Path) -> None:
        first, second, hot = (corpus / f"{name}.tar" for name in ("v1", "v2", "hot"))
        full = self.place / "v1"
        self.ours("export", "-q", "--from", f"docker-archive:{first}", "-o", full, "--no-store")
        repositories = peers(self.place)
        for each in repositories:
            each.add(first)
        delta, size = self.place / "v2", 0
        walls = []
        for _ in range(self.repeat):
            ran = self.delta(second, delta, full)
            walls.append(ran.seconds)
        size = weight(delta)
        self.add("v2 given v1, default level", mb(size), "", None, "<= 40 MB", size <= 40e6)
        wall = statistics.median(walls)
        self.add("delta export, from docker-archive: files", f"{wall:.1f} s", "", None, "<= 10 s", wall <= 10)
        for each in repositories:
            took, grew = each.add(second)
            self.add(f"v2 given v1 beside {each.name}", mb(size), f"{each.name}: {mb(grew)}", size / grew, "-", True)
            self.add(
                f"delta export beside {each.name}",
                f"{wall:.1f} s",
                f"{each.name}: {took.seconds:.1f} s",
                wall / took.seconds,
                "-",
                True,
            )
        self.delta(second, self.place / "v2-12", full, "--level", 12)
        high = weight(self.place / "v2-12")
        self.add("v2 given v1, --level 12", mb(high), "", None, "<= 37 MB", high <= 37e6)
        self.hotfix(hot, delta, full, repositories)
        self.importing(full, delta)
        self.add("peak memory, any of these", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def delta(self, tar: Path, bundle: Path, base: Path, *words: object) -> Ran:
        shutil.rmtree(bundle, ignore_errors=True)
        source = f"docker-archive:{tar}"
        return self.ours("export", "-q", "--json", "--no-store", "--from", source, "-o", bundle, "--base", base, *words)

    def hotfix(self, tar: Path, base: Path, full: Path, repositories: list[Peer]) -> None:
        bundle = self.place / "hot"
        ran = self.delta(tar, bundle, base, "--seed", full)
        size = weight(bundle)
        plain = timed(f"zstd -T0 -3 -q -c {tar} > {self.place / 'hot.zst'}")
        whole = (self.place / "hot.zst").stat().st_size
        label = f"docker save | zstd: {mb(whole)} in {plain.seconds:.1f} s"
        name = "hotfix (one file) given v2"
        self.add(name, f"{size / 1e3:.1f} kB in {ran.seconds:.1f} s", label, size / whole, "<= 100 kB", size <= 100e3)
        for each in repositories:
            took, grew = each.add(tar)
            label = f"{each.name}: {grew / 1e3:.0f} kB in {took.seconds:.1f} s"
            self.add(f"{name} beside {each.name}", f"{size / 1e3:.1f} kB", label, size / grew, "-", True)

    def importing(self, full: Path, delta: Path) -> None:
        store, out = self.place / "store", self.place / "o"
        self.ours("import", full, "-q", "--to", f"oci:{out}", "--store", store)
        speeds = []
        for _ in range(self.repeat):
            shutil.rmtree(out)
            words = ["import", delta, "-q", "--json", "--to", f"oci:{out}", "--store", store]
            value = json.loads(self.ours(*words).out)
            speeds.append(value["bytes_unpacked"] / 1e6 / value["seconds"])
        speed = statistics.median(speeds)
        self.add("delta import, unpack to oci:", f"{speed:.0f} MB/s", "", None, ">= 200 MB/s", speed >= 200)
        listed = json.loads(self.ours("store", "ls", "--store", store, "--json").out)["bundles"]
        packs = sum(each["bytes"] for each in listed)
        over = (weight(store) - packs) / packs
        self.add("store beyond packs and catalogs", f"{over:.2%}", "", None, "<= 3 %", over <= 0.03)
        timing = [self.ours("import", delta, "-q", "--to", f"oci:{out}", "--store", store) for _ in range(self.repeat)]
        again = statistics.median(ran.seconds for ran in timing)
        self.add("delta import again (nothing to do)", f"{again:.1f} s", "", None, "<= 3 s", again <= 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--place", type=Path, help="a folder to work in, best on tmpfs (8 GB)")
    options = parser.parse_args()
    corpus = Path(os.environ["CORPUS"])
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        bench = Deltas(corpus / "v2.tar", [], Path(place), options.repeat)
        bench.measure(corpus)
        write(bench, "deltas")


if __name__ == "__main__":
    main()
