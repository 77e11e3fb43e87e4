"""The engines of the tests start, do their work, and leave nothing behind."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support import engines
from tests.support.engines import SMALL_IMAGE, Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
START = dict[str, Callable[[Path], AbstractContextManager[Daemon]]]

DAEMONS: START = {
    "docker": lambda folder: engines.docker(folder),
    "docker28-overlay2": lambda folder: engines.docker28(folder, root=engines.docker28_root(), store="overlay2"),
    "docker28-containerd": lambda folder: engines.docker28(folder, root=engines.docker28_root(), store="containerd"),
}
STORES = {"docker": "overlay2", "docker28-overlay2": "overlay2", "docker28-containerd": "containerd"}

OWNER = """
import sys, time
from pathlib import Path
from tests.e2e.test_engines_start import DAEMONS
with DAEMONS[sys.argv[1]](Path(sys.argv[2])) as daemon:
    print(daemon.host, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", DAEMONS)
def test_a_daemon_runs_an_image_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    engines.promised(kind.partition("-")[0])
    archive = engines.small_image(tmp_path)
    with DAEMONS[kind](tmp_path / "engine") as daemon:
        assert daemon.store == STORES[kind]
        assert daemon.version == daemon.get("/version")["Version"]
        assert kind == "docker" or int(daemon.version.partition(".")[0]) >= 28
        daemon.load(archive)
        assert daemon.run(SMALL_IMAGE) == "tiny\n"
        assert daemon.run(SMALL_IMAGE, "/bin/echo", "a", "b") == "a b\n"
        with pytest.raises(engines.EngineError, match="No such file or directory"):
            daemon.run(SMALL_IMAGE, "/bin/cat", "/absent")
        assert daemon.ids() == {SMALL_IMAGE: daemon.get(f"/images/{SMALL_IMAGE}/json")["Id"]}
        daemon.remove_all()
        assert daemon.get("/images/json", all="1") == []
    assert left_by(daemon, tmp_path) == []


@pytest.mark.parametrize("kind", DAEMONS)
def test_a_failing_test_stops_daemon_and_containers(kind: str, tmp_path: Path) -> None:
    engines.promised(kind.partition("-")[0])
    archive = engines.small_image(tmp_path)
    seconds = str(10_000_000 + time.monotonic_ns() % 1_000_000)
    with pytest.raises(ZeroDivisionError), DAEMONS[kind](tmp_path / "engine") as daemon:
        daemon.load(archive)
        command = ["docker", "run", "--detach", "--network=none", SMALL_IMAGE, "/bin/sleep", seconds]
        subprocess.run(command, env=daemon.environment(), check=True, capture_output=True)
        until = time.monotonic() + 10
        while not processes_with(seconds) and time.monotonic() < until:
            time.sleep(0.05)  # the runtime tells its daemon first
        assert processes_with(seconds)
        raise ZeroDivisionError
    assert left_by(daemon, tmp_path) == []
    assert processes_with(seconds) == []


def test_two_daemons_at_once(tmp_path: Path) -> None:
    engines.promised("docker")
    archive = engines.small_image(tmp_path)
    with engines.docker(tmp_path) as first, engines.docker(tmp_path, name="b") as second:
        first.load(archive)
        assert list(first.ids()) == [SMALL_IMAGE]
        assert second.ids() == {}
    assert left_by(first, tmp_path / "docker") + left_by(second, tmp_path / "docker") == []


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    engines.promised("docker")
    archive = tmp_path / "none.tar"
    archive.write_bytes(b"none")
    with engines.docker(tmp_path) as daemon, pytest.raises(engines.EngineError):
        daemon.load(archive)


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    engines.promised("docker28")
    (tmp_path / "root").mkdir()
    failing = engines.docker28(tmp_path / "engine", root=tmp_path / "root", store="overlay2")
    with pytest.raises(engines.EngineError, match="umount"), failing:
        pass
    assert list((tmp_path / "engine").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize("kind", DAEMONS)
def test_a_killed_test_process_takes_its_daemon_along(kind: str, tmp_path: Path) -> None:
    engines.promised(kind.partition("-")[0])
    command = [sys.executable, "-c", OWNER, kind, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as owner:
        assert owner.stdout is not None
        run = Path(owner.stdout.readline().strip().removeprefix("unix://")).parent
        assert processes_with(run.name)
        data = (run / "data").readlink()
        assert data.is_dir()
        owner.kill()
    deadline = time.monotonic() + 10
    while processes_with(run.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(run.name) == []
    with DAEMONS[kind](tmp_path):  # this start removes what is left, if another worker's has not begun to
        deadline = time.monotonic() + 10
        while run.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not run.exists()
        assert not data.exists()


def test_the_registry_serves_a_daemon_and_leaves_nothing(tmp_path: Path) -> None:
    engines.promised("registry")
    engines.promised("docker28")
    archive = engines.small_image(tmp_path)
    with (
        engines.registry(tmp_path / "registry") as address,
        engines.docker28(tmp_path, root=engines.docker28_root(), store="containerd") as daemon,
    ):
        assert catalog(address) == []
        daemon.load(archive)
        for command in (["tag", SMALL_IMAGE, f"{address}/test/tiny:1"], ["push", f"{address}/test/tiny:1"]):
            subprocess.run(["docker", *command], env=daemon.environment(), check=True, capture_output=True)
        assert catalog(address) == ["test/tiny"]
    assert list((tmp_path / "registry").iterdir()) == []
    assert processes_with(str(tmp_path)) == []
    with pytest.raises(httpx.ConnectError):
        catalog(address)


def test_the_small_image_is_always_the_same(tmp_path: Path) -> None:
    first, second = (engines.small_image(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_missing_engine_skips_the_test_unless_it_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("TRANSFER_MUST_TEST", raising=False)
    with pytest.raises(pytest.skip.Exception, match="docker-registry not installed"):
        engines.promised("registry")
    monkeypatch.setenv("TRANSFER_MUST_TEST", "docker, registry")
    with pytest.raises(pytest.fail.Exception, match="docker-registry not installed"):
        engines.promised("registry")


def left_by(daemon: Daemon, folder: Path) -> list[str]:
    """What is left of a daemon that has been stopped: processes, mounts, folders, cgroups."""
    run = Path(daemon.host.removeprefix("unix://")).parent
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [
        *processes_with(run.name),
        *processes_with(str(folder)),
        *(line for line in mounts if run.name in line or str(folder) in line),
        *(str(path) for path in [run, *Path("/sys/fs/cgroup").glob(f"**/{run.name}")] if path.exists()),
        *(str(path) for path in [*folder.glob("docker*-*"), *folder.glob("engine/*")]),
    ]


def processes_with(text: str) -> list[str]:
    """The command lines that contain a text."""
    return [line for line in map(command_line, Path("/proc").glob("[0-9]*/cmdline")) if text in line]


def command_line(path: Path) -> str:
    """The command line of a process, empty if it has just ended."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def catalog(address: str) -> list[str]:
    """The repositories of a registry."""
    answer = httpx.get(f"http://{address}/v2/_catalog", trust_env=False).raise_for_status().json()
    names: list[str] = answer["repositories"]
    return names
