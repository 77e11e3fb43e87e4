"""The whole road between two sites that share nothing: a Docker here, a Docker there, and a breaking line or a handful of sticks between them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines, media
from tests.support.run import run, says
from tests.support.ssh import sshd
from tests.support.wires import namespaces
from tests.support.zoo import Layout, layer, noise, noisy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
STICK = 200 << 20


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    """A Docker with ten images of 40 MB that do not compress."""
    engines.promised("docker")
    folder = tmp_path_factory.mktemp("here")
    noisy(10, "plant/app").write(folder / "oci")
    with engines.docker(folder, name="here") as daemon:
        run("export", "--from", f"oci:{folder}/oci", "-o", folder / "b", "-q", "--no-store")
        run("import", folder / "b", "-q", "--no-store", env={"DOCKER_HOST": daemon.host})
        shutil.rmtree(folder / "oci")
        yield daemon


@pytest.fixture
def there(tmp_path: Path) -> Iterator[engines.Daemon]:
    with engines.docker(tmp_path, name="there") as daemon:
        yield daemon


def some(daemon: engines.Daemon, *numbers: int) -> dict[str, str]:
    return {name: found for name, found in daemon.ids().items() if int(name[-1]) in numbers}


def test_over_a_line_that_is_cut_three_times(here: engines.Daemon, there: engines.Daemon, tmp_path: Path) -> None:
    bundle, inbox = tmp_path / "night.bundle", tmp_path / "in"
    names = [f"plant/app:{number}" for number in (0, 1)]
    run("export", *names, "-o", bundle, "-q", "--no-store", env={"DOCKER_HOST": here.host})
    far = {"DOCKER_HOST": there.host, "TRANSFER_STORE": str(tmp_path / "far-store")}
    with (
        namespaces(rate="200mbit") as (ours, theirs),
        sshd(tmp_path / "sshd", path=BIN, env=far, host=theirs.address, prefix=theirs.command()) as server,
    ):
        words = ["ship", bundle, f"plant:{inbox}", "--ssh-config", server.config, "--import", "--json", "--no-store"]
        shipping = subprocess.Popen(
            ours.command(sys.executable, "-m", "transfer", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"},
        )
        for reached in (12 << 20, 30 << 20, 50 << 20):
            while arrived(inbox) < reached and shipping.poll() is None:
                time.sleep(0.02)
            assert shipping.poll() is None, "it was over before the cut"
            server.kill_sessions(commands=True)
        out, said = shipping.communicate()
    assert shipping.returncode == 0, said
    assert said.count("trying again") >= 3
    assert len(json.loads(out)["import"]["images"]) == 2
    assert there.ids() == some(here, 0, 1)
    run("verify", inbox / "night.bundle")


def arrived(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def test_on_four_sticks_of_which_one_is_destroyed(here: engines.Daemon, there: engines.Daemon, tmp_path: Path) -> None:
    bundle, far = tmp_path / "night.bundle", {"DOCKER_HOST": there.host}
    run("export", "plant/*", "-o", bundle, "-q", "--no-store", env={"DOCKER_HOST": here.host})
    with contextlib.ExitStack() as stack:
        sticks = [stack.enter_context(media.tmpfs(tmp_path, STICK)) for _ in range(4)]
        run("ship", bundle, *sticks, "--parity", "30%")
        shutil.rmtree(bundle)
        shutil.rmtree(sticks[1] / "night.bundle")
        left = [sticks[3], sticks[2], sticks[0]]
        for stick in left:
            code, said = says("import", stick, "--store", tmp_path / "far-store", env=far)
            assert code == (0 if stick == left[-1] else 14), said
    assert there.ids() == here.ids()
    code, said = says("store", "check", "--store", tmp_path / "far-store")
    assert code == 0, said


@pytest.mark.parametrize("program", ["far-transfer", "none"])
def test_over_a_line_of_8_kbit(tmp_path: Path, program: str) -> None:
    """What is sent ahead over it would take longer than any patience: here nothing breaks, though it takes its time."""
    held = Layout()
    held.name(held.image([layer({"app": noise(1, 20_000)})]), "plant/small:1")
    held.write(tmp_path / "layout")
    bundle = tmp_path / "night.bundle"
    run("export", "--from", f"oci:{tmp_path / 'layout'}", "-o", bundle, "-q", "--no-store")
    with (
        namespaces(rate="8kbit", queue="burst 1600 latency 3s") as (ours, theirs),
        sshd(tmp_path / "sshd", path=BIN, host=theirs.address, prefix=theirs.command()) as server,
    ):
        words = ["ship", bundle, f"plant:{tmp_path / 'in'}", "--ssh-config", server.config, "--remote", program]
        command = ours.command(sys.executable, "-m", "transfer", *words)
        shipped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shipped.returncode == 0, shipped.stderr
    assert "trying again" not in shipped.stderr
    run("verify", tmp_path / "in" / "night.bundle")
