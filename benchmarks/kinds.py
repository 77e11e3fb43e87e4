"""Deltas of content that the reference corpus has little of, kind by kind: `python -m benchmarks.kinds --place TMPFS --packages DIR`.

Two versions of each package, out of the public indexes (kept in DIR): Python wheels, installed and as files; jars; programs in Go. Each
kind is an image with one layer; its second version is exported given the first, at the default level, at 9, and with compressed files left as
they are, beside zstd's --patch-from of the whole layer (what diffah does; the best of levels 3, 9 and 19) and what casync, restic and borg grow by.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.deltas import peers
from benchmarks.run import Bench, mb, timed, weight, write
from tests.support.zoo import Layout

WHEELS = {
    "numpy": ("2.1.0", "2.1.3"),
    "scipy": ("1.14.0", "1.14.1"),
    "pillow": ("10.4.0", "11.0.0"),
    "lxml": ("5.3.0", "5.3.1"),
    "pandas": ("2.2.2", "2.2.3"),
}
JARS = {
    "com/fasterxml/jackson/core/jackson-databind": ("2.22.0", "2.22.4"),
    "com/fasterxml/jackson/core/jackson-core": ("2.22.0", "2.22.4"),
    "com/google/guava/guava": ("33.7.0-jre", "33.8.0-jre"),
}
MAVEN = "https://repo1.maven.org/maven2"
PROGRAMS = {
    "github.com/caddyserver/caddy/v2/cmd/caddy": ("v2.11.8", "v2.11.9"),
    "github.com/google/go-containerregistry/cmd/crane": ("v0.21.4", "v0.22.1"),
}
Files = Iterator[tuple[str, bytes]]
DEFAULT, NINE, AS_THEY_ARE = "level 3", "level 9", "layers"
WAYS: dict[str, list[object]] = {DEFAULT: [], NINE: ["--level", 9], AS_THEY_ARE: ["--gzip", "layers"]}


def wheels(folder: Path, version: int) -> list[Path]:
    target = folder / f"wheels-{version}"
    if not target.is_dir():
        names = [f"{name}=={each[version]}" for name, each in WHEELS.items()]
        words = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "-d", str(target)]
        subprocess.run([sys.executable, "-m", "pip", *words, *names], check=True)
    return sorted(target.glob("*.whl"))


def installed(folder: Path, version: int) -> Files:
    """Wheels as pip unpacks them."""
    for path in wheels(folder, version):
        with zipfile.ZipFile(path) as wheel:
            for name in sorted(wheel.namelist()):
                if not name.endswith("/"):
                    yield f"usr/lib/python3/site-packages/{name}", wheel.read(name)


def as_files(folder: Path, version: int) -> Files:
    for path in wheels(folder, version):
        yield f"wheels/{path.name}", path.read_bytes()


def jars(folder: Path, version: int) -> Files:
    for place, versions in JARS.items():
        name = f"{place.rpartition('/')[2]}-{versions[version]}.jar"
        path = folder / name
        if not path.exists():
            with urllib.request.urlopen(f"{MAVEN}/{place}/{versions[version]}/{name}") as reply:
                path.write_bytes(reply.read())
        yield f"app/lib/{name}", path.read_bytes()


def programs(folder: Path, version: int) -> Files:
    """As their authors' containers have them: stripped, without paths."""
    target = folder / f"go-{version}"
    for place, versions in PROGRAMS.items():
        path = target / place.rpartition("/")[2]
        if not path.exists():
            words = ["go", "install", "-trimpath", "-ldflags=-s -w", f"{place}@{versions[version]}"]
            subprocess.run(words, env={**os.environ, "GOBIN": str(target), "CGO_ENABLED": "0"}, check=True)
        yield f"usr/bin/{path.name}", path.read_bytes()


KINDS: dict[str, Callable[[Path, int], Files]] = {
    "wheels, installed": installed,
    "wheels, as files": as_files,
    "jars": jars,
    "programs in Go": programs,
}


def layer_of(files: Files) -> bytes:
    """A tar as engines make it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Kinds(Bench):
    """Rows for each kind, and for all of them."""

    def measure(self, packages: Path) -> None:
        total: dict[str, int] = dict.fromkeys(WAYS, 0)
        fulls: dict[str, dict[str, int]] = {}
        for kind, files in KINDS.items():
            tars = [self._make(files, packages, version) for version in (0, 1)]
            sizes, fulls[kind] = {}, {}
            for way in WAYS:
                fulls[kind][way], sizes[way] = self._deltas(way)
                total[way] += sizes[way]
            others = {"zstd --patch-from": self._patch(*tars)}
            shutil.rmtree(self.place / "peers", ignore_errors=True)
            (self.place / "peers").mkdir()
            for peer in peers(self.place / "peers"):
                peer.add(tars[0])
                others[peer.name] = peer.add(tars[1])[1]
            said = f"{mb(sizes[DEFAULT])}, level 9 {mb(sizes[NINE])}, files as they are {mb(sizes[AS_THEY_ARE])}"
            beside = ", ".join(f"{name}: {mb(size)}" for name, size in others.items())
            best = sizes[DEFAULT] / min(others.values())
            self.add(f"{kind}: the second given the first", said, beside, best, "-", True)
        for kind, whole in fulls.items():
            ratio = whole[DEFAULT] / whole[AS_THEY_ARE]
            must = 0.85 if kind == "jars" else 1.02
            said = f"{mb(whole[DEFAULT])}, files as they are {mb(whole[AS_THEY_ARE])}"
            self.add(f"{kind}: full bundle, against files as they are", said, "", ratio, f"<= {must}", ratio <= must)
        for name, way, other, must in (
            ("all deltas, against files as they are", DEFAULT, AS_THEY_ARE, 0.72),
            ("all deltas, level 9 against the default", NINE, DEFAULT, 1),
        ):
            ratio = total[way] / total[other]
            self.add(name, f"{mb(total[way])} for {mb(total[other])}", "", ratio, f"<= {must}", ratio <= must)
        self.add("peak memory, any command", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def _make(self, files: Callable[[Path, int], Files], packages: Path, version: int) -> Path:
        """A version of a kind as a tar, and as an image in a layout beside."""
        layer = layer_of(files(packages, version))
        tar = self.place / f"{version}.tar"
        tar.write_bytes(layer)
        layout = Layout()
        layout.name(layout.image([layer]), f"kinds/it:{version}")
        shutil.rmtree(self.place / f"oci{version}", ignore_errors=True)
        layout.write(self.place / f"oci{version}")
        return tar

    def _deltas(self, way: str) -> tuple[int, int]:
        """The first version's bundle, and the second's given that (bytes)."""
        for version in (0, 1):
            bundle = self.place / f"b{version}"
            base = ["--base", self.place / "b0"] if version else []
            shutil.rmtree(bundle, ignore_errors=True)
            words = ["--from", f"oci:{self.place}/oci{version}", "-o", bundle, "-q", *WAYS[way], *base]
            self.ours("export", *words)
        return weight(self.place / "b0"), weight(self.place / "b1")

    def _patch(self, old: Path, new: Path) -> int:
        """The best of three levels."""
        sizes = []
        for level in (3, 9, 19):
            timed(f"zstd -q -f -{level} --long=27 --patch-from={old} {new} -o {self.place}/patch")
            sizes.append((self.place / "patch").stat().st_size)
        return min(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--packages", type=Path, required=True)
    args = parser.parse_args()
    shutil.rmtree(args.place, ignore_errors=True)
    for folder in (args.place, args.packages):
        folder.mkdir(parents=True, exist_ok=True)
    bench = Kinds(args.packages, [], args.place, 1)
    bench.measure(args.packages)
    write(bench, "kinds")


if __name__ == "__main__":
    main()
