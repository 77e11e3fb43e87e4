"""Figures of podman and containerd, in one run: `CORPUS=DIR python -m benchmarks.engines --place TMPFS`.

DIR has v1.tar and v2.tar (docs/architecture.md). Everything lands in stores of its own below TMPFS, beside what people do today: an archive
for each image with podman, one archive of all with containerd. Plain layers, as in the archives; podman's own archives are made beforehand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compressed import names_in
from benchmarks.run import Bench, Ran, timed, write
from tests.support import engines
from tests.support.podmen import Store, podman


class Engines(Bench):
    """The corpus into podman and containerd, and out of podman."""

    def all(self) -> None:
        folder = self.tar.parent
        self.bundle("v1", folder / "v1.tar")
        self.bundle("v2", folder / "v2.tar", "--base", self.place / "v1")
        with self.store() as ours, self.store() as theirs:
            self.podman(ours, theirs)
        self.containerd()
        self.add("peak memory, any command", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def bundle(self, name: str, tar: Path, *more: object) -> None:
        self.ours("export", "-q", "--from", f"docker-archive:{tar}", "-o", self.place / name, *more)

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        folder = Path(tempfile.mkdtemp(prefix="podman-", dir=self.place))
        with podman(folder) as store:
            yield store
        shutil.rmtree(folder, ignore_errors=True)

    def into(self, name: str, to: str, env: dict[str, str]) -> Ran:
        seeds = [] if name == "v1" else ["--seed", self.place / "v1"]
        return self.ours("import", self.place / name, "--to", to, "--json", "-q", *seeds, env=env)

    def beside(self, name: str, ours: Ran, theirs: Ran, label: str, most: float) -> None:
        ratio = ours.seconds / theirs.seconds
        self.add(name, f"{ours.seconds:.1f} s", f"{label}: {theirs.seconds:.1f} s", ratio, f"<= {most}", ratio <= most)

    def again(self, name: str, ran: Ran) -> None:
        sent = json.loads(ran.out)["layers_sent"]
        said = f"{ran.seconds:.1f} s, {sent} layers sent"
        self.add(name, said, "", None, "<= 3 s, 0", ran.seconds <= 3 and sent == 0)

    def archives(self, name: str) -> list[Path]:
        """An archive for each image, as `docker save` makes it."""
        out = []
        for number, image in enumerate(names_in(self.tar.parent / f"{name}.tar")):
            path = self.place / f"{name}-{number}.tar"
            seeds = [] if name == "v1" else ["--seed", self.place / "v1"]
            self.ours("import", self.place / name, image, "--to", f"docker-archive:{path}", "-q", *seeds)
            out.append(path)
        return out

    def podman(self, ours: Store, theirs: Store) -> None:
        def load(paths: list[Path]) -> Ran:
            return timed(" && ".join(f"podman load -q -i {path}" for path in paths), theirs.env)

        first, second = self.archives("v1"), self.archives("v2")
        loaded, landed = load(first), self.into("v1", "podman:", ours.env)
        self.beside("podman: v1 into an empty store", landed, loaded, "podman load, an archive an image", 0.9)
        self.again("podman: again", self.into("v1", "podman:", ours.env))
        names = names_in(self.tar.parent / "v1.tar")
        target = self.place / "saved"
        saves = [f"podman save -q --format oci-archive -o {target}-{n}.tar {name}" for n, name in enumerate(names)]
        saved = timed(" && ".join(saves), ours.env)
        for path in self.place.glob("saved-*.tar"):
            path.unlink()
        out = self.ours("export", "--from", "podman:", *names, "-o", self.place / "out", "-q", env=ours.env)
        shutil.rmtree(self.place / "out")
        self.beside("podman: export of v1", out, saved, "podman save --format oci-archive, one after the other", 0.5)
        loaded, landed = load(second), self.into("v2", "podman:", ours.env)
        self.beside("podman: v2, a delta", landed, loaded, "the same as whole images", 0.6)
        for path in (*first, *second):
            path.unlink()

    def containerd(self) -> None:
        archives = {}
        for name in ("v1", "v2"):
            archives[name] = self.place / f"{name}.oci.tar"
            seeds = [] if name == "v1" else ["--seed", self.place / "v1"]
            self.ours("import", self.place / name, "--to", f"oci-archive:{archives[name]}", "-q", *seeds)
        with engines.containerd(self.place) as ours, engines.containerd(self.place) as theirs:
            env = {"CONTAINERD_ADDRESS": ours[2]}
            rows = (("v1 into an empty store", "v1", 1.0), ("v2, a delta", "v2", 0.6))
            for label, name, most in rows:
                loaded = timed([*theirs, "images", "import", str(archives[name])])
                landed = self.into(name, "containerd:default/", env)
                self.beside(f"containerd: {label}", landed, loaded, "ctr images import of one archive", most)
                self.again(f"containerd: {name} again", self.into(name, "containerd:default/", env))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=Path, required=True)
    place = parser.parse_args().place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    tar = Path(os.environ["CORPUS"]) / "v1.tar"
    bench = Engines(tar, [], place, 1)
    bench.all()
    write(bench, "engines")


if __name__ == "__main__":
    main()
