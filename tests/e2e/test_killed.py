"""kill -9 at random moments of an export from and an import into a real daemon: the same command again ends right."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_docker import KINDS, daemon_of, transfer
from tests.support.run import files
from tests.support.zoo import Layout, layer, noise

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

KILLS = 5


def sizeable() -> Layout:
    """Three images of some tens of megabytes, two on a common base: enough to be hit in the middle."""
    out = Layout()
    base = layer({f"base/{n}": noise(n, 700_000) + b"text\n" * 40_000 for n in range(30)})
    for number in range(3):
        own = layer({f"own/{number}/{n}": noise(1000 * number + n, 400_000) for n in range(30)})
        out.name(out.image([base, own] if number else [base]), f"killed/image{number}:1")
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], Path]:
    """A docker-archive of the images, their config digests by name, and the bundle of an undisturbed export."""
    folder = tmp_path_factory.mktemp("source")
    sizeable().write(folder / "o")
    run(["export", "--from", f"oci:{folder / 'o'}", "-o", str(folder / "b"), "-q"])
    done = json.loads(run(["inspect", str(folder / "b"), "--json"]))
    run(["import", str(folder / "b"), "--to", f"docker-archive:{folder / 'a.tar'}", "-q"])
    return folder / "a.tar", {i["names"][0]: i["config_digest"] for i in done["images"]}, folder / "b"


def run(words: list[str], env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", "transfer", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **(env or {})}).stdout


def kill_at(words: list[str], host: str, seconds: float) -> bool:
    """Start the command, kill it after so long; whether it was still at it."""
    command = [sys.executable, "-m", "transfer", *words]
    with subprocess.Popen(command, env={**os.environ, "DOCKER_HOST": host}, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        running = process.poll() is None
        process.kill()
    return running


@pytest.mark.parametrize("kind", KINDS)
def test_export_and_import_survive_kills(source: tuple[Path, dict[str, str], Path], tmp_path: Path, kind: str) -> None:
    archive, configs, _ = source
    chance = random.Random(kind)
    with daemon_of(kind, tmp_path) as daemon:
        daemon.load(archive)
        before = daemon.ids()
        exporting = ["export", "killed/*", "-q", "-o"]
        started = time.monotonic()
        transfer(daemon, *exporting[:-2], "-o", tmp_path / "whole")
        taken = time.monotonic() - started
        hits = 0
        for _ in range(KILLS):
            hits += kill_at([*exporting, str(tmp_path / "killed")], daemon.host, chance.uniform(0.2, 0.9) * taken)
        transfer(daemon, *exporting[:-2], "-o", tmp_path / "killed")
        assert files(tmp_path / "killed") == files(tmp_path / "whole")
        importing = ["import", str(tmp_path / "whole"), "-q"]
        daemon.remove_all()
        started = time.monotonic()
        transfer(daemon, *importing[:-1])
        taken = time.monotonic() - started
        for _ in range(KILLS):
            daemon.remove_all()
            hits += kill_at(importing, daemon.host, chance.uniform(0.2, 0.9) * taken)
            done = transfer(daemon, *importing[:-1])
            assert {i["name"]: i["config_digest"] for i in done["images"]} == configs  # type: ignore[attr-defined]
            assert daemon.ids() == before
        assert hits
        again = transfer(daemon, "import", tmp_path / "whole")
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0)
