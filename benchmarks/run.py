"""Figures beside those of the tools people use today, in one run: `make bench`, or `python -m benchmarks.run --quick`.

On the reference corpus: CORPUS names the folder with v1.tar and v1.list, DOCKER_HOST the daemon that holds its images. With `--quick` a
small corpus is made from this machine's own files, and whatever needs a daemon is left out unless dockerd can be started here.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import transfer
from tests.support import engines
from tests.support.zoo import Layout

RESULTS = Path(__file__).parent / "results"
TRANSFER = [sys.executable, "-m", "transfer"]


@dataclass(frozen=True)
class Ran:
    """One command: wall clock and CPU seconds, peak memory of its largest process (MB), what it printed."""

    seconds: float
    cpu: float
    memory: float
    out: str


def timed(command: Sequence[str] | str, env: dict[str, str] | None = None) -> Ran:
    """Run it; it must succeed. A string goes through bash with pipefail."""
    words = ["bash", "-c", f"set -o pipefail; {command}"] if isinstance(command, str) else list(command)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=out, stderr=said, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"benchmark: {words} ended with {process.returncode}: {said.read()[-2000:]}")
        out.seek(0)
        return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, out.read())


@dataclass(frozen=True)
class Row:
    """One figure: ours beside the incumbent's. `ratio` is the median of the paired runs' ratios, where there is an incumbent."""

    name: str
    ours: str
    incumbent: str
    ratio: float | None
    must: str
    reached: bool


class Bench:
    """The corpus, a place to work in (best on tmpfs), and the rows so far."""

    def __init__(self, tar: Path, images: list[str], place: Path, repeat: int) -> None:
        # as pip leaves a program; where PYTHONDONTWRITEBYTECODE is set, each command would compile all it uses
        compileall.compile_dir(Path(transfer.__file__).parent, quiet=1)
        self.tar, self.images, self.place, self.repeat = tar, images, place, repeat
        self.rows: list[Row] = []
        self.memory = 0.0

    def ours(self, *words: object, env: dict[str, str] | None = None) -> Ran:
        ran = timed([*TRANSFER, *map(str, words)], {"TRANSFER_STORE": "none", **(env or {})})
        self.memory = max(self.memory, ran.memory)
        return ran

    def paired(self, name: str, ours: Callable[[], Ran], theirs: Callable[[], Ran], label: str, most: float) -> None:
        """Both in turn, `repeat` times: the ratio of each pair counts, for the machine's mood changes by the minute."""
        pairs = [(theirs().seconds, ours().seconds) for _ in range(self.repeat)]
        ratio = statistics.median(o / t for t, o in pairs)
        mine, other = (statistics.median(each) for each in zip(*((o, t) for t, o in pairs), strict=True))
        self.add(name, f"{mine:.1f} s", f"{label}: {other:.1f} s", ratio, f"<= {most}", ratio <= most)

    def add(self, name: str, ours: str, incumbent: str, ratio: float | None, must: str, reached: bool) -> None:
        self.rows.append(Row(name, ours, incumbent, ratio and round(ratio, 3), must, reached))
        row = self.rows[-1]
        print(f"{row.name}: {row.ours} beside {row.incumbent or '-'}, ratio {row.ratio}, must {must}", file=sys.stderr)

    def all(self) -> None:
        bundle, zst = self.place / "b", self.place / "x.zst"
        self.files(bundle, zst)
        self.reading(bundle)
        if os.environ.get("DOCKER_HOST") and self.images:
            self.daemon(zst)
        if engines._missing("docker") is None:
            self.docker(bundle)
        self.add("peak memory, any command", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def export(self, bundle: Path, *words: object) -> Ran:
        shutil.rmtree(bundle, ignore_errors=True)
        return self.ours("export", "-q", "-o", bundle, "--json", *words)

    def files(self, bundle: Path, zst: Path) -> None:
        source = ["--from", f"docker-archive:{self.tar}"]
        self.paired(
            "export from a docker-archive: file",
            lambda: self.export(bundle, *source),
            lambda: timed(f"zstd -T0 -3 -q -c {self.tar} > {zst}"),
            "zstd -T0 -3 of the file",
            1.35,
        )
        plain = zst.stat().st_size
        for level, most in ((3, 0.92), (9, 0.82)):
            if level != 3:
                self.export(self.place / "b9", *source, "--level", level)
            size = weight(bundle if level == 3 else self.place / "b9")
            name = f"bundle size, level {level}"
            self.add(
                name,
                mb(size),
                f"docker save | zstd -T0 -3: {mb(plain)}",
                size / plain,
                f"<= {most}",
                size / plain <= most,
            )
        shutil.rmtree(self.place / "b9")
        for label, size in peers(self.tar, self.place):
            ratio = weight(bundle) / size
            self.add(f"bundle size beside {label}", mb(weight(bundle)), f"{label}: {mb(size)}", ratio, "-", True)

    def reading(self, bundle: Path) -> None:
        def rate(ran: Ran, key: str) -> float:
            return float(json.loads(ran.out)[key]) / 1e6 / float(json.loads(ran.out)["seconds"])

        checks = [self.ours("verify", bundle, "--json", "-q") for _ in range(self.repeat)]
        speed = statistics.median(rate(ran, "bytes_checked") for ran in checks) / 1000
        self.add("verify", f"{speed:.2f} GB/s", "", None, ">= 1 GB/s of packed bytes", speed >= 1)
        out = self.place / "o"
        speeds, frames = [], 0.0
        for _ in range(self.repeat):
            shutil.rmtree(out, ignore_errors=True)
            ran = self.ours("import", bundle, "--to", f"oci:{out}", "--json", "-q")
            speeds.append(rate(ran, "bytes_unpacked"))
            frames = json.loads(ran.out)["frames_decoded"] / json.loads(ran.out)["frames_needed"]
        shutil.rmtree(out)
        speed = statistics.median(speeds)
        self.add("unpack to oci:", f"{speed:.0f} MB/s", "", None, ">= 300 MB/s", speed >= 300)
        self.add("frames decoded", f"{frames:.2f} times", "", None, "<= 1.1", frames <= 1.1)

    def daemon(self, zst: Path) -> None:
        """The same images out of the daemon that holds them; by its files where this is root on its host."""
        bundle = self.place / "api"

        def pipe() -> Ran:
            return timed(f"docker save {' '.join(self.images)} | zstd -T0 -3 -q -c > {zst}")

        for name, way in (("through the API", "api"), ("of a daemon's images, by its files", "files")):
            ours = partial(self.export, bundle, *self.images, "--via", way)
            self.paired(f"export {name}", ours, pipe, "docker save | zstd -T0 -3", 1.1)
        shutil.rmtree(bundle)
        zst.unlink()

    def docker(self, bundle: Path) -> None:
        again: list[float] = []

        def fresh(act: Callable[[dict[str, str]], Ran]) -> Ran:
            with (
                tempfile.TemporaryDirectory(dir=self.place) as folder,
                engines.docker(Path(folder), name="bench") as daemon,
            ):
                return act(daemon.environment())

        def ours(env: dict[str, str]) -> Ran:
            store = self.place / "store"
            shutil.rmtree(store, ignore_errors=True)
            words = ["import", bundle, "-q", "--json", "--store", store]
            ran = self.ours(*words, env=env)
            again.append(self.ours(*words, env=env).seconds)
            return ran

        self.paired(
            "import into an empty Docker",
            lambda: fresh(ours),
            lambda: fresh(lambda env: timed(["docker", "load", "-q", "-i", str(self.tar)], env)),
            "docker load of the uncompressed tar",
            0.85,
        )
        took = statistics.median(again)
        self.add("import again (nothing to do)", f"{took:.1f} s", "docker load: all of it", None, "<= 3 s", took <= 3)


def mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def weight(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peers(tar: Path, place: Path) -> Iterator[tuple[str, int]]:
    """How large the same tar is in the deduplicating tools that are installed, with their own defaults."""
    env = {
        "RESTIC_PASSWORD": "x",
        "BORG_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_BASE_DIR": str(place / "borg-home"),
    }
    commands = {
        "restic": f"restic -q init -r {{}} && restic -q -r {{}} backup {tar}",
        "borg": f"borg init -e none {{}} && borg create -C zstd,3 {{}}::a {tar}",
        "casync": f"mkdir {{}} && casync make --store={{}}/s {{}}/i.caibx {tar}",
    }
    for name, command in commands.items():
        if shutil.which(name):
            repository = place / f"{name}-repository"
            timed(command.replace("{}", str(repository)), env)
            yield name, weight(repository)
            shutil.rmtree(repository)


def quick_corpus(place: Path) -> Path:
    """Two images from this machine's own files (about 200 MB), as a docker-archive."""
    held, parts = Layout(), []
    for number, top in enumerate((Path("/usr/bin"), Path(sys.prefix) / "lib", Path("/usr/lib/x86_64-linux-gnu"))):
        path = place / f"{number}.layer"
        budget = 80 << 20
        with tarfile.open(path, "w") as archive:
            for file in sorted(top.rglob("*")) if top.is_dir() else []:
                if file.is_file() and not file.is_symlink() and budget > 0:
                    archive.add(file, recursive=False)
                    budget -= file.stat().st_size
        parts.append(path.read_bytes())
        path.unlink()
    held.name(held.image(parts[:2]), "bench/base:1")
    held.name(held.image(parts), "bench/app:1")
    held.write(place / "quick")
    source, target = f"oci:{place / 'quick'}", f"docker-archive:{place / 'quick.tar'}"
    for words in (["export", "--from", source, "-o", place / "q.b"], ["import", place / "q.b", "--to", target]):
        timed([*TRANSFER, *map(str, words), "-q"])
    shutil.rmtree(place / "quick")
    shutil.rmtree(place / "q.b")
    return place / "quick.tar"


def write(bench: Bench, name: str) -> None:
    """The table as JSON and Markdown."""
    RESULTS.mkdir(exist_ok=True)
    about = {
        "corpus": f"{bench.tar.name}, {mb(weight(bench.tar) if bench.tar.is_dir() else bench.tar.stat().st_size)}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "runs": bench.repeat,
    }
    value = {"about": about, "rows": [asdict(row) for row in bench.rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    lines = [f"{about['corpus']}; {about['machine']}; {about['date']}; median of {bench.repeat} paired runs", ""]
    lines += ["| figure | transfer | beside | ratio | must | |", "|---|---|---|---|---|---|"]
    for r in bench.rows:
        ratio, mark = "-" if r.ratio is None else str(r.ratio), "yes" if r.reached else "**no**"
        cells = [r.name, r.ours, r.incumbent or "-", ratio, r.must, mark]
        lines.append("| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |")
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small corpus made here")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--place", type=Path, help="a folder to work in, best on tmpfs (4 GB; 14 with a daemon)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.place)))
        corpus = os.environ.get("CORPUS", "")
        if options.quick or not corpus:
            bench = Bench(quick_corpus(place), [], place, options.repeat)
        else:
            images = (Path(corpus) / "v1.list").read_text(encoding="utf-8").split()
            bench = Bench(Path(corpus) / "v1.tar", images, place, options.repeat)
        bench.all()
        write(bench, "quick" if options.quick or not corpus else "v1")


if __name__ == "__main__":
    main()
