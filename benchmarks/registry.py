"""Figures of registries beside skopeo and docker-registry, in one run: `python -m benchmarks.registry --place TMPFS`.

On the reference corpus: CORPUS names the folder with v1.tar and v1.list. With `--quick` a small corpus is made from this machine's own
files. Debian's docker-registry and skopeo must be installed; everything goes over loopback, without TLS.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.run import TRANSFER, Bench, Ran, mb, quick_corpus, timed, weight, write
from tests.support import engines

CLIENTS = 50


class Registries(Bench):
    """The corpus in a registry, and what is pulled out of it and pushed into others."""

    host = ""

    def all(self) -> None:
        with engines.registry(self.place) as self.host:
            self._fill()
            self._pull()
            bundle = self.place / "b"
            self._push(bundle)
            self._serve(bundle)
        self.add("peak memory, any command", f"{self.memory:.0f} MB", "", None, "<= 512 MB", self.memory <= 512)

    def _fill(self) -> None:
        """As `docker push` does it: layers as gzip."""
        for image in self.images:
            source = f"docker-archive:{self.tar}:{image}"
            timed(["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{self.host}/{image}"])

    def _names(self) -> list[str]:
        return [f"docker://{self.host}/{image}" for image in self.images]

    def _skopeo(self, target: Path) -> Ran:
        """All of them into one layout, one after the other, as people write it."""
        shutil.rmtree(target, ignore_errors=True)
        copies = [
            f"skopeo copy -q --src-tls-verify=false {name} oci:{target}:{number}"
            for number, name in enumerate(self._names())
        ]
        return timed(" && ".join(copies))

    def _pull(self) -> None:
        bundle, layout = self.place / "b", self.place / "l"
        label = f"skopeo copy of the {len(self.images)} to one oci:"
        words = [*self._names(), "--platform", "all"]
        self.paired("pull into a bundle", lambda: self.export(bundle, *words), lambda: self._skopeo(layout), label, 1.2)
        delta = self.place / "d"
        seconds = [self.export(delta, *words, "--base", bundle).seconds for _ in range(self.repeat)]
        theirs = self._skopeo(layout).seconds
        ratio = statistics.median(seconds) / theirs
        ours = f"{statistics.median(seconds):.1f} s, {mb(weight(delta))}"
        self.add(
            "pull again as a delta, nothing changed", ours, f"{label}: {theirs:.1f} s", ratio, "<= 0.1", ratio <= 0.1
        )

    def _push(self, bundle: Path) -> None:
        again: list[Ran] = []

        def ours() -> Ran:
            with tempfile.TemporaryDirectory(dir=self.place) as folder, engines.registry(Path(folder)) as empty:
                words = ["import", bundle, "--to", f"docker://{empty}", "--json", "-q"]
                ran = self.ours(*words)
                again.append(self.ours(*words))
                return ran

        def theirs() -> Ran:
            with tempfile.TemporaryDirectory(dir=self.place) as folder, engines.registry(Path(folder)) as empty:
                copies = [
                    f"skopeo copy -q --dest-tls-verify=false oci:{self.place / 'l'}:{number} docker://{empty}/{image}"
                    for number, image in enumerate(self.images)
                ]
                return timed(" && ".join(copies))

        self.paired("push to an empty registry", ours, theirs, "skopeo copy from oci:", 1.1)
        took = statistics.median(ran.seconds for ran in again)
        sent = sum(json.loads(ran.out)["layers_sent"] for ran in again)
        self.add(
            "push again", f"{took:.1f} s, {sent} layers sent", "", None, "<= 2 s, 0 layers", took <= 2 and not sent
        )

    def _serve(self, bundle: Path) -> None:
        """The largest layer under 200 MB: from docker-registry's file, and rebuilt out of the bundle."""
        found = json.loads(timed([*TRANSFER, "inspect", str(bundle), "--json"]).out)["images"]
        layers = {each["digest"]: (each["size"], image["names"][0]) for image in found for each in image["layers"]}
        digest, (size, name) = max(
            ((digest, at) for digest, at in layers.items() if at[0] < 200e6), key=lambda pair: pair[1][0]
        )
        repository = name.removeprefix(f"{self.host}/").partition(":")[0]
        path = f"/v2/{repository}/blobs/{digest}"
        for clients in (1, CLIENTS):
            theirs, ours = [], []
            for _ in range(self.repeat):
                theirs.append(fetched(self.host, path, size, clients))
                with served(bundle, self.place) as (host, process):
                    ours.append(fetched(host, f"/v2/{self.host}/{repository}/blobs/{digest}", size, clients))
                    self.memory = max(self.memory, peak(process))
            mine, other = statistics.median(ours), statistics.median(theirs)
            rates = [f"{clients * size / seconds / 1e6:.0f} MB/s" for seconds in (mine, other)]
            ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
            label = f"serve a layer of {size / 1e6:.0f} MB to {clients} client{'s' * (clients > 1)}"
            self.add(f"{label} (rate)", rates[0], f"docker-registry: {rates[1]}", ratio, ">= 0.5", ratio >= 0.5)


def fetched(host: str, path: str, size: int, clients: int) -> float:
    """Seconds until so many clients have it whole, each with a connection of its own."""
    failed: list[str] = []

    def one() -> None:
        connection = http.client.HTTPConnection(host)
        connection.request("GET", path)
        reply, count, buffer = connection.getresponse(), 0, bytearray(1 << 18)
        while read := reply.readinto(buffer):
            count += read
        if reply.status != 200 or count != size:
            failed.append(f"{reply.status}, {count} bytes")
        connection.close()

    threads = [threading.Thread(target=one) for _ in range(clients)]
    started = time.monotonic()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise SystemExit(f"benchmark: {host}{path}: {failed[0]}")
    return time.monotonic() - started


@contextlib.contextmanager
def served(bundle: Path, place: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The bundle, with a cache that is empty at first."""
    with tempfile.TemporaryDirectory(dir=place) as cache:
        words = [*TRANSFER, "serve", str(bundle), "--listen", "127.0.0.1:0", "--cache", f"{cache}/c:2G"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            yield process.stdout.readline().split("//")[-1].strip(), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def peak(process: subprocess.Popen[str]) -> float:
    """The largest resident memory of a process so far (MB)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small corpus made here")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--place", type=Path, help="a folder to work in, best on tmpfs (8 GB)")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.place)))
        corpus = os.environ.get("CORPUS", "")
        quick = options.quick or not corpus
        tar = quick_corpus(place) if quick else Path(corpus) / "v1.tar"
        images = ["bench/base:1", "bench/app:1"] if quick else (Path(corpus) / "v1.list").read_text("utf-8").split()
        bench = Registries(tar, images, place, options.repeat)
        bench.all()
        write(bench, "registry-quick" if quick else "registry")


if __name__ == "__main__":
    main()
