"""Figures of gzip layers, in one run: `CORPUS=DIR python -m benchmarks.compressed --place TMPFS`.

DIR has v1.tar, v2.tar and hot.tar (docs/architecture.md). A Docker 20.10 of its own pushes all of them into a docker-registry, so that layers are
as Docker makes them (Go's compress/gzip); skopeo copies the first corpus into another place there (pgzip).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.run import Bench, mb, weight, write
from tests.support import engines
from transfer.bundle.catalog import TOGETHER
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.chunks.deflate import codec

PARTS = 12
"""Segments over which a rate is measured: some 48 MiB."""


def names_in(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        return [name for each in json.load(manifest) for name in each["RepoTags"]]


class Compressed(Bench):
    """The corpus as gzip layers in a registry, and what bundles and deltas of it weigh."""

    host = ""

    def all(self) -> None:
        folder = self.tar.parent
        with engines.registry(self.place) as self.host:
            with engines.docker(self.place, name="bench") as daemon:
                names = {each: self._push(daemon, folder / f"{each}.tar") for each in ("v1", "v2", "hot")}
            blobs = {each: self._blobs(found) for each, found in names.items()}
            self._bundle("v1", names["v1"], blobs["v1"], [], 0.81)
            self._bundle("v2", names["v2"], blobs["v2"], ["v1"], 1 / 22)
            self._bundle("hot", names["hot"], blobs["hot"], ["v2", "v1"], 100e3 / max(1, sum(blobs["hot"].values())))
            self._residual("as Docker pushes them", self.place / "v1")
            self._back(self.place / "v1", blobs["v1"])
            self._rates("Go -1", names["v1"][1], 20, 35)
            with engines.registry(self.place) as other:
                self._skopeo(names["v1"][:3], other)
                self._rates("pgzip", f"docker://{other}/skopeo/1:1", 30, 60)
        self.add("peak memory, any command", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def _push(self, daemon: engines.Daemon, archive: Path) -> list[str]:
        env = daemon.environment()
        subprocess.run(["docker", "load", "-q", "-i", str(archive)], env=env, check=True, capture_output=True)
        found = []
        for name in names_in(archive):
            to = f"{self.host}/{name}"
            for words in (["tag", name, to], ["push", "-q", to]):
                subprocess.run(["docker", *words], env=env, check=True, capture_output=True)
            found.append(f"docker://{to}")
        return found

    def _blobs(self, names: list[str]) -> dict[str, int]:
        """Every layer's digest and size: what skopeo and its like move."""
        out: dict[str, int] = {}
        for name in names:
            words = ["skopeo", "inspect", "--raw", "--tls-verify=false", name]
            manifest = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
            out |= {each["digest"]: each["size"] for each in manifest["layers"]}
        return out

    def _bundle(self, label: str, names: list[str], blobs: dict[str, int], base: list[str], must: float) -> None:
        words = [word for each in base[:1] for word in ("--base", self.place / each)]
        words += [word for each in base[1:] for word in ("--seed", self.place / each)]
        ran = self.ours("export", *names, "-o", self.place / label, "-q", *words)
        ours, theirs = weight(self.place / label), sum(blobs.values())
        what = f"{label} given {base[0]}" if base else label
        self.add(
            what, f"{ours} B, {ran.seconds:.1f} s", mb(theirs), ours / theirs, f"<= {must:.4f}", ours <= must * theirs
        )

    def _residual(self, what: str, folder: Path) -> None:
        with Bundle(folder, library=BundleList(())) as bundle:
            catalog = bundle.catalog()
            recipes = [each for each in catalog.recipes.values() if each.encoding == TOGETHER]
            sizes = [
                catalog.size_of[n] for each in recipes for part in each.parts for n in catalog.numbers(part.payload)
            ]
            opaque = [each.size for each in catalog.recipes.values() if each.encoding == 1]
        ours, theirs = sum(sizes), sum(each.size for each in recipes)
        share = ours / theirs
        said = f"{ours} B; as they are: {len(opaque)} layers, {sum(opaque)} B"
        self.add(f"recipes of layers {what}", said, mb(theirs), share, "<= 0.0005", share <= 0.0005)

    def _skopeo(self, names: list[str], other: str) -> None:
        """pgzip: out of the registry as plain layers, and into another as skopeo compresses them."""
        copied = []
        for number, name in enumerate(names):
            plain, to = self.place / f"plain{number}", f"docker://{other}/skopeo/{number}:1"
            tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
            subprocess.run(["skopeo", "copy", "-q", *tls, "--dest-decompress", name, f"dir:{plain}"], check=True)
            subprocess.run(["skopeo", "copy", "-q", *tls, f"dir:{plain}", to], check=True)
            copied.append(to)
        self.ours("export", *copied, "-o", self.place / "skopeo", "-q")
        self._residual("as skopeo pushes them", self.place / "skopeo")

    def _back(self, bundle: Path, blobs: dict[str, int]) -> None:
        ran = self.ours("import", bundle, "--to", f"docker://{self.host}/back", "-q")
        found = self._blobs(
            [f"docker://{self.host}/back/{each.removeprefix(self.host + '/')}" for each in self._names(bundle)]
        )
        self.add(
            "v1 into another registry",
            f"{ran.seconds:.1f} s",
            mb(sum(blobs.values())),
            None,
            "same digests",
            found == blobs,
        )

    def _names(self, bundle: Path) -> list[str]:
        with Bundle(bundle) as opened:
            return [name for image in opened.images for name in image.names]

    def _rates(self, what: str, name: str, out: float, back: float) -> None:
        """Plain MB/s of one layer's first segments: on one core, and on two beside that."""
        target = self.place / f"layer of {what}"
        subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", name, f"dir:{target}"], check=True)
        data = max(target.iterdir(), key=lambda each: each.stat().st_size).read_bytes()
        module = codec()
        parser = module.Parser(1 << 40, 1 << 20)
        started = time.monotonic()
        segments: list[Any] = []
        for at in range(0, len(data), 1 << 18):
            segments += parser.feed(data[at : at + (1 << 18)])
            if len(segments) >= PARTS:
                break
        parsing = time.monotonic() - started
        plain = [each.plain() for each in segments]
        size = sum(map(len, plain)) / 1e6
        records = [each.record() for each in segments]
        begun, before = [0], [b""]
        for record, data in zip(records, plain, strict=True):
            begun.append((begun[-1] + module.head(record)[1]) & 7)
            before.append(data[-(1 << 15) :])

        def decode(number: int) -> Any:
            history = before[number][len(before[number]) - module.head(records[number])[2] :]
            return module.decode(records[number], begun[number], history, plain[number])

        def rate(call: Callable[[int], object], threads: int) -> float:
            with ThreadPoolExecutor(threads) as pool:
                started = time.monotonic()
                list(pool.map(call, range(len(segments))))
                return time.monotonic() - started

        def taken(number: int) -> Any:
            return segments[number].record()

        one, two = rate(taken, 1), rate(taken, 2)
        rate_out = size / (one + parsing)
        self.add(
            f"taking apart and proof, {what}, a core",
            f"{rate_out:.0f} MB/s",
            "",
            None,
            f">= {out}",
            rate_out >= 0.9 * out,
        )
        self.add(f"taking apart, two cores, {what}", "", "", one / two, ">= 1.7", one / two >= 1.7)
        one, two = rate(decode, 1), rate(decode, 2)
        self.add(
            f"putting together, {what}, a core",
            f"{size / one:.0f} MB/s",
            "",
            None,
            f">= {back}",
            size / one >= 0.9 * back,
        )
        self.add(f"putting together, two cores, {what}", "", "", one / two, ">= 1.7", one / two >= 1.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True)
    place = parser.parse_args().place
    place.mkdir(parents=True, exist_ok=True)
    bench = Compressed(Path(os.environ["CORPUS"]) / "v1.tar", [], place, 1)
    bench.all()
    write(bench, "compressed")


if __name__ == "__main__":
    main()
