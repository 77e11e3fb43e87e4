"""Shipping beside scp, cp and the old ritual: over SSH on loopback, through a slow and a breaking line, onto a medium, and the whole road.

Needs sshd and root. `--bundle` is a folder to ship (else one of 767 MB that does not compress is made). With CORPUS (v1.tar, v2.tar, v1.list, v2.list) and
DOCKER_HOST, the daemon that holds those images, the whole road of a month's update is measured as well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.run import TRANSFER, Bench, Ran, mb, timed, weight, write
from tests.support import engines
from tests.support.ssh import Sshd, sshd
from tests.support.wires import Proxy
from tests.support.zoo import Layout, layer, noise

WAYS = {
    "receiver, openssh": ("openssh", "far-transfer", 1.0),
    "receiver, paramiko": ("paramiko", "far-transfer", 1.35),
    "sftp, openssh": ("openssh", "none", 1.6),
    "sftp, paramiko": ("paramiko", "none", 1.6),
}
# what transfer is called over there: it notes the memory it needed
FAR = """#!{python}
import os, resource, subprocess, sys
code = subprocess.call([{python!r}, "-m", "transfer", *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open({log!r}, "a") as log:
    log.write(f"{{peak}}\\n")
sys.exit(code)
"""


class Shipping(Bench):
    """The rows about ships."""

    def __init__(self, bundle: Path, place: Path, repeat: int, server: Sshd) -> None:
        super().__init__(bundle, [], place, repeat)
        self.bundle, self.server, self.log = bundle, server, place / "far-memory"
        self.inbox = place / "in"

    def ship(self, way: str, *words: object, config: Path | None = None, bundle: Path | None = None) -> Ran:
        ssh, remote, _ = WAYS[way]
        shutil.rmtree(self.inbox, ignore_errors=True)
        options = ("-q", "--json", "--ssh", ssh, "--remote", remote, "--ssh-config", config or self.server.config)
        return self.ours("ship", bundle or self.bundle, f"plant:{self.inbox}", *options, *words)

    def scp(self, config: Path | None = None, bundle: Path | None = None) -> Ran:
        shutil.rmtree(self.inbox, ignore_errors=True)
        self.inbox.mkdir()
        config = config or self.server.config
        return timed(["scp", "-q", "-r", "-F", str(config), str(bundle or self.bundle), f"plant:{self.inbox}/"])

    def loopback(self) -> None:
        for name, (_, _, most) in WAYS.items():
            self.paired(f"ssh {name}", lambda name=name: self.ship(name), self.scp, "scp -r", most)  # type: ignore[misc]

    def slow(self, small: Path) -> None:
        """A line of 100 Mbit/s, and one of 50 ms each way."""
        for label, delay, rate in (("100 Mbit/s", 0.0, 12.5e6), ("50 ms of delay", 0.025, 0.0)):
            with Proxy((self.server.host, self.server.port), delay=delay, rate=rate) as proxy:
                config = self.server.via(proxy.port)
                self.paired(
                    f"through {label} ({mb(weight(small))})",
                    lambda config=config: self.ship("receiver, openssh", config=config, bundle=small),  # type: ignore[misc]
                    lambda config=config: self.scp(config, small),  # type: ignore[misc]
                    "scp -r",
                    1.05,
                )

    def cuts(self, small: Path) -> None:
        total = weight(small)
        for name in WAYS:
            with Proxy((self.server.host, self.server.port)) as proxy:
                proxy.cut_after(*([total // 22] * 20))
                self.ship(name, config=self.server.via(proxy.port), bundle=small)
                over = proxy.sent - total
                reached = over <= (20 << 20) + 0.01 * total + 20 * 8192
                self.add(f"cut 20 times, {name}: bytes beyond", mb(over), "", None, "<= 20 parts and framing", reached)

    def medium(self) -> None:
        stick = self.place / "stick"

        def empty() -> Path:
            shutil.rmtree(stick, ignore_errors=True)
            stick.mkdir()
            (self.bundle / "media.json").unlink(missing_ok=True)
            return stick

        def ours() -> Ran:
            return self.ours("ship", self.bundle, empty(), "-q", "--anew")

        def theirs() -> Ran:
            sums = self.place / "sums"
            listed = (path.relative_to(self.bundle) for path in self.bundle.rglob("*") if path.is_file())
            if not sums.exists():
                names = " ".join(map(str, listed))
                timed(f"cd {self.bundle} && sha256sum {names} > {sums}")
            empty()
            return timed(f"cp -r {self.bundle} {stick}/b && sync && cd {stick}/b && sha256sum --quiet -c {sums}")

        self.paired("onto a medium, read back", ours, theirs, "cp -r, sync, sha256sum -c", 1.1)
        empty()

    def peaks(self) -> None:
        far = max((int(line) for line in self.log.read_text().split()), default=0) / 1000
        self.add("peak memory here", f"{self.memory:.0f} MB", "", None, "<= 256 MB", self.memory <= 256)
        self.add("peak memory over there", f"{far:.0f} MB", "", None, "<= 256 MB", far <= 256)

    def whole_road(self, corpus: Path, base: Path) -> None:
        """A month's update, from the daemon that has it into one that has last month's."""
        images = " ".join((corpus / "v2.list").read_text(encoding="utf-8").split())
        store = self.place / "far-store"

        def road(act: Callable[[Path], Ran]) -> tuple[Ran, int]:
            """What it took, and the bytes on the wire, with a far side that has last month's images."""
            shutil.rmtree(store, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.place) as folder, engines.docker(Path(folder)) as daemon:
                timed([*TRANSFER, "import", str(base), "-q", "--store", str(store)], daemon.environment())
                env = {"DOCKER_HOST": daemon.host, "TRANSFER_STORE": str(store)}
                with (
                    sshd(Path(folder) / "sshd", path=self.place / "bin", env=env) as server,
                    Proxy((server.host, server.port)) as proxy,
                ):
                    return act(server.via(proxy.port)), proxy.sent

        def theirs(config: Path) -> Ran:
            far = "zstd -dc | docker load -q"
            return timed(f"docker save {images} | zstd -T0 -3 -q -c | ssh -F {config} plant '{far}'")

        def ours(config: Path) -> Ran:
            delta, us = self.place / "delta", " ".join(TRANSFER)
            for folder in (delta, self.inbox):
                shutil.rmtree(folder, ignore_errors=True)
            return timed(
                f"{us} export {images} --base {base} -o {delta} -q --no-store && "
                f"{us} ship {delta} plant:{self.inbox} --remote far-transfer --ssh-config {config} -q --import --no-store"
            )

        pairs = [(road(theirs), road(ours)) for _ in range(self.repeat)]
        name, label = "whole road, a month's update of 13 images", "docker save | zstd | ssh | docker load"
        ratio = statistics.median(new.seconds / old.seconds for (old, _), (new, _) in pairs)
        old, new = (statistics.median(ran.seconds for ran, _ in each) for each in zip(*pairs, strict=True))
        self.add(name, f"{new:.1f} s", f"{label}: {old:.1f} s", ratio, "<= 0.6", ratio <= 0.6)
        old, new = (statistics.median(sent for _, sent in each) for each in zip(*pairs, strict=True))
        self.add(f"{name}: on the wire", mb(new), f"{label}: {mb(old)}", new / old, "<= 1/15", new / old <= 1 / 15)


def made(place: Path, size: int) -> Path:
    """`make_bundle`, by another process: what this one needs at its peak would count for whatever it starts."""
    call = f"from benchmarks.ship import *; make_bundle(Path({str(place)!r}), {size})"
    subprocess.run([sys.executable, "-c", call], check=True)
    return place / f"noise{size >> 20}.bundle"


def make_bundle(place: Path, size: int) -> Path:
    """A bundle of so many bytes that do not compress."""
    held = Layout()
    files = {f"app/{number}": noise(number, 4 << 20) for number in range(size >> 22)}
    held.name(held.image([layer(files)]), "bench/noise:1")
    held.write(place / "noise")
    bundle = place / f"noise{size >> 20}.bundle"
    timed([*TRANSFER, "export", "-q", "--no-store", "--from", f"oci:{place / 'noise'}", "-o", str(bundle)])
    shutil.rmtree(place / "noise")
    return bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bundle", type=Path, help="ship this one")
    parser.add_argument("--place", type=Path, help="a folder to work in, best on tmpfs (4 GB; 14 with a daemon)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        place = Path(folder)
        (place / "bin").mkdir()
        program = place / "bin" / "far-transfer"
        program.write_text(FAR.format(python=sys.executable, log=str(place / "far-memory")), encoding="utf-8")
        program.chmod(0o755)
        bundle = options.bundle or made(place, 767_000_000)
        small, middle = made(place, 84_000_000), made(place, 252_000_000)
        with sshd(place / "sshd", path=place / "bin", env={"TRANSFER_STORE": "none"}) as server:
            bench = Shipping(bundle, place, options.repeat, server)
            bench.loopback()
            bench.slow(middle)
            bench.cuts(small)
        bench.medium()
        bench.peaks()
        corpus = os.environ.get("CORPUS", "")
        if corpus and os.environ.get("DOCKER_HOST"):
            base = place / "v1.bundle"
            bench.ours("export", "-q", "--no-store", "--from", f"docker-archive:{corpus}/v1.tar", "-o", base)
            bench.whole_road(Path(corpus), base)
        write(bench, "ship")


if __name__ == "__main__":
    main()
