"""Real engines for the tests: Docker daemons and a registry that live only as long as a `with` block.

Every engine runs under a small shell guard which holds the reading end of a pipe; the test process holds the
writing end. When the block ends the pipe is closed, and when the test process dies, however it dies, the kernel
closes it: in both cases the guard stops the engine. The Docker daemons moreover run in a PID and a mount namespace
of their own whose first process is the guard, so that nothing they started and nothing they mounted outlives it.

What a killed test process can leave behind is only files (and empty cgroups): the next start of a daemon finds and
removes them, because each daemon's folder in /run holds a lock that is free once its owner is dead.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, TypeVar

import httpx
import pytest

from transfer.chunks.deflate import DISTRIBUTION, codec

PREFIX = "transfer-test-"
RUN = Path("/run")
CGROUPS = Path("/sys/fs/cgroup")
SID_ROOT_VARIABLE = "TRANSFER_SID_ROOT"
SID_ROOT_CACHE = Path("/var/tmp/transfer-test-sid")
MUST_TEST_VARIABLE = "TRANSFER_MUST_TEST"
SMALL_IMAGE = "test/tiny:1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
CALL_SECONDS = 300.0

Store = Literal["overlay2", "containerd"]
Answer = TypeVar("Answer")

# Runs "$@" until it ends or until standard input is closed. In a PID namespace this shell is process 1: it reaps
# orphans, and when it exits the kernel kills whatever is left in the namespace.
_NOT_NEEDED = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.opt"]
_GUARD = """
set +eu
exec 3<&0
"$@" </dev/null 3<&- &
engine=$!
{ read -r _ <&3; kill -KILL $engine; } >/dev/null 2>&1 &
watch=$!
wait $engine
status=$?
kill $watch
exit $status
"""

# A Docker daemon joins the containerd of the machine when it finds one, so it must not find one.
_HOST_SETUP = """
set -eu
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
"""

# Arguments: the root to run in, the daemon's folder in /run, its data folder. The root itself is never written to.
_ROOT_SETUP = """
set -eu
lower=$1 run=$2 data=$3
shift 3
mkdir "$run/root"
mount -t tmpfs tmpfs "$run/root"
cd "$run/root"
mkdir upper work new
mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" overlay new
cd new
mkdir -p proc sys dev old "./$run" "./$data"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount --bind "$run" "./$run"
mount --bind "$data" "./$data"
pivot_root . old
cd /
umount --lazy /old
"""

_TOOL_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cat(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "r");
        int byte;
        if (!file) {
            perror(names[i]);
            return 1;
        }
        while ((byte = getc(file)) != EOF)
            putchar(byte);
        fclose(file);
    }
    return 0;
}

static int echo(int count, char **words)
{
    for (int i = 1; i < count; i++)
        printf(i > 1 ? " %s" : "%s", words[i]);
    putchar('\n');
    return 0;
}

int main(int count, char **words)
{
    const char *slash = strrchr(words[0], '/');
    const char *name = slash ? slash + 1 : words[0];
    if (!strcmp(name, "true"))
        return 0;
    if (!strcmp(name, "cat"))
        return cat(count, words);
    if (!strcmp(name, "echo"))
        return echo(count, words);
    if (!strcmp(name, "sleep") && count == 2)
        return sleep(atoi(words[1])) != 0;
    fprintf(stderr, "%s: no such command\n", name);
    return 127;
}
"""


class EngineError(Exception):
    """An engine did not start, or did not do what it was asked."""


@dataclass(frozen=True)
class Daemon:
    """A running Docker daemon: where it listens, its version, and how it stores images."""

    host: str
    version: str
    store: str

    def get(self, path: str, **params: str) -> Any:
        """The JSON which the Engine API answers to a GET of the path."""
        return _call(self.host, "GET", path, params=params).json()

    def run(self, image: str, *argv: str) -> str:
        """The standard output of a new container of the image, which is removed afterwards."""
        command = ["docker", "run", "--rm", "--pull", "never", "--network", "none", image, *argv]
        return _output(command, env=self.environment())

    def environment(self) -> dict[str, str]:
        """The environment in which a docker command talks to this daemon."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return {**kept, "PATH": _search_path(), "DOCKER_HOST": self.host}

    def ids(self) -> dict[str, str]:
        """The image Id of each repository:tag."""
        return {tag: image["Id"] for image in self.get("/images/json") for tag in _tags(image)}

    def load(self, path: Path) -> None:
        """Load an archive, as docker load does."""
        with path.open("rb") as archive:
            headers = {"Content-Type": "application/x-tar"}
            answer = _call(self.host, "POST", "/images/load", params={"quiet": "1"}, content=archive, headers=headers)
        errors = [line["error"] for line in map(json.loads, answer.text.splitlines()) if "error" in line]
        if errors:
            raise EngineError(f"loading {path}: {'; '.join(errors)}")

    def remove_all(self) -> None:
        """Remove all images, and all containers because they would keep images."""
        for container in self.get("/containers/json", all="1"):
            self._delete(f"/containers/{container['Id']}")
        images = self._all_images()
        while images:
            for image in images:
                self._delete(f"/images/{image}")
            before, images = images, self._all_images()
            if images == before:
                raise EngineError(f"{self.host} does not remove {', '.join(sorted(images))}")

    def _all_images(self) -> set[str]:
        """The Ids of all images, also of those without a tag."""
        return {image["Id"] for image in self.get("/images/json", all="1")}

    def _delete(self, path: str) -> None:
        """Force the removal of one object, which may be gone already or still have others that depend on it."""
        _call(self.host, "DELETE", path, params={"force": "1"}, accepted=(404, 409))


@contextlib.contextmanager
def docker(folder: Path, *, name: str = "a", more: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Daemon]:
    """The Docker daemon that is installed on this machine, with its data in a new folder inside the given one."""
    config = {"storage-driver": "overlay2", **more}
    with _workplace(folder, f"docker-{name}-") as (run, data):
        command = [*_namespace(_HOST_SETUP), *_dockerd(run, data, config)]
        with _guarded(command, run / "log") as engine:
            yield _ready(engine, run / "log", _host(run))


@contextlib.contextmanager
def docker28(folder: Path, *, root: Path, store: Store) -> Iterator[Daemon]:
    """The Docker daemon of a Debian root (see docker28_root), with its data in a new folder inside the given one."""
    features = {"features": {"containerd-snapshotter": store == "containerd"}}
    config = features if store == "containerd" else {**features, "storage-driver": "overlay2"}
    with _workplace(folder, f"docker28-{store}-") as (run, data):
        places = [str(root.resolve()), str(run), str(data)]
        command = [*_namespace(_ROOT_SETUP), *places, *_dockerd(run, data, config)]
        with _guarded(command, run / "log") as engine:
            daemon = _ready(engine, run / "log", _host(run))
            if daemon.store != store:
                raise EngineError(f"Docker {daemon.version} uses the store {daemon.store} instead of {store}")
            yield daemon


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of 127.0.0.1, with its storage in a new folder inside the given one."""
    place = _new_folder(folder, "registry-")
    try:
        (place / "config.yml").write_text(json.dumps(_registry_config(place / "storage")), encoding="utf-8")
        command = ["sh", "-c", _GUARD, "guard", "docker-registry", "serve", str(place / "config.yml")]
        with _guarded(command, place / "log") as engine:
            yield _wait(engine, place / "log", lambda: _registry_address(place / "log"))
    finally:
        _remove(place)


@contextlib.contextmanager
def containerd(folder: Path, *, root: Path | None = None) -> Iterator[list[str]]:
    """A containerd of its own, this machine's or that of a Debian root; the beginning of a `ctr` command that talks to it."""
    programs = root / "usr/bin" if root else None
    ctr_program = str(programs / "ctr") if programs else "ctr"
    containerd_program = str(programs / "containerd") if programs else "containerd"
    place, run = _new_folder(folder, "containerd-"), Path(tempfile.mkdtemp(prefix="tc-"))  # a socket's path is short
    socket = run / "c.sock"
    config = {"version": 2, "root": str(place / "root"), "state": str(run / "state"), "disabled_plugins": _NOT_NEEDED}
    config["grpc"] = {"address": str(socket)}
    try:
        (place / "config.toml").write_text(_toml(config), encoding="utf-8")
        command = ["sh", "-c", _GUARD, "guard", containerd_program, "--config", str(place / "config.toml")]
        with _guarded(command, place / "log") as engine:
            ctr = [ctr_program, "--address", str(socket)]
            _wait(engine, place / "log", lambda: _answers([*ctr, "version"]))
            yield ctr
    finally:
        _remove(place)
        _remove(run)


def collect(ctr: list[str]) -> None:
    """Have a containerd throw away now what no name and no lease holds, as it does by itself at some later moment."""
    for words in (["create", "--id", "the-tests"], ["rm", "--sync", "the-tests"]):
        subprocess.run([*ctr, "leases", *words], capture_output=True, check=True)


def lose(ctr: list[str], digest: str) -> None:
    """Take a blob away from the images that need it, out of a containerd's lists and out of its files."""
    subprocess.run([*ctr, "content", "rm", digest], capture_output=True, check=True)
    collect(ctr)


def _answers(command: list[str]) -> bool | None:
    """Whether a program ends well, for `_wait`."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0 or None


def _toml(value: Mapping[str, Any]) -> str:
    """A small file: JSON's strings and lists are TOML's as well."""
    plain = [f"{key} = {json.dumps(each)}" for key, each in value.items() if not isinstance(each, dict)]
    tables = [f"[{key}]\n{_toml(each)}" for key, each in value.items() if isinstance(each, dict)]
    return "\n".join([*plain, *tables]) + "\n"


def docker28_root(cache: Path = SID_ROOT_CACHE) -> Path:
    """A Debian sid root with Docker: the one TRANSFER_SID_ROOT names, else the cached one, which is built at need."""
    named = os.environ.get(SID_ROOT_VARIABLE)
    if named:
        return Path(named)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_name(f"{cache.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.is_dir():
            _build_root(cache)
    return cache


def promised(engine: str) -> None:
    """Skip the test if this machine lacks what the engine needs; fail it if TRANSFER_MUST_TEST names the engine."""
    reason = _missing(engine)
    if reason is None:
        return
    must = [name.strip() for name in os.environ.get(MUST_TEST_VARIABLE, "").split(",")]
    if engine in must:
        pytest.fail(f"{MUST_TEST_VARIABLE} names {engine}, but {reason}")
    pytest.skip(f"no {engine} here: {reason}")


def small_image(folder: Path) -> Path:
    """A docker-archive with a tiny image that has true, echo, cat and sleep, and says "tiny" when it is just run."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = [_tar(_tool_members(_static_tool())), _tar([_directory("etc"), _file("etc/tiny", b"tiny\n")])]
    config = _json(_image_config(layers))
    path = folder / "tiny.tar"
    path.write_bytes(_tar(_archive_members(config, layers)))
    return path


# Processes


@contextlib.contextmanager
def _guarded(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command which ends when its standard input is closed; close that at the end, and wait."""
    with log.open("ab") as out:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env={**os.environ, "PATH": _search_path()},
            start_new_session=True,
        )
    try:
        yield engine
    finally:
        _stop(engine)


def _stop(engine: subprocess.Popen[bytes]) -> None:
    """Let the guard stop the engine; if it does not, kill what the command started, then the command."""
    if engine.stdin is not None:
        engine.stdin.close()
    try:
        engine.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for child in _children(engine.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(STOP_SECONDS)
        engine.kill()
        engine.wait()


def _children(pid: int) -> list[int]:
    """The processes which this process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _wait(engine: subprocess.Popen[bytes], log: Path, ask: Callable[[], Answer | None]) -> Answer:
    """Ask until there is an answer; raise with the end of the log if the engine ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        if engine.poll() is not None:
            raise EngineError(f"the engine ended with status {engine.returncode}:\n{_tail(log)}")
        time.sleep(0.05)
    raise EngineError(f"the engine was not ready after {START_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _output(command: list[str], env: Mapping[str, str] | None = None) -> str:
    """The standard output of a command, which must succeed."""
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _search_path() -> str:
    """PATH, with the folders where the daemons are even if the user's PATH does not have them."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _found(program: str) -> bool:
    """Whether the program is installed."""
    return shutil.which(program, path=_search_path()) is not None


# Docker daemons


def _namespace(setup: str) -> list[str]:
    """The start of a command that runs in namespaces of its own, after the setup, for as long as stdin is open."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*unshare, "sh", "-c", f"{setup}{_GUARD}", "guard"]


def _dockerd(run: Path, data: Path, config: Mapping[str, Any]) -> list[str]:
    """The daemon's command line; writes its configuration, so that the one of the machine does not count."""
    common = {
        "cgroup-parent": f"/{run.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "ip-forward": False,
        "ip6tables": False,
        "max-download-attempts": 2,  # of 5: each waits longer than the one before, 75 s in all for a layer that stays damaged
    }
    (run / "daemon.json").write_text(json.dumps({**common, **config}), encoding="utf-8")
    folders = ["--data-root", str(data / "root"), "--exec-root", str(run / "exec")]
    files = ["--config-file", str(run / "daemon.json"), "--pidfile", str(run / "pid"), "-H", _host(run)]
    return ["dockerd", *folders, *files, "--bridge=none", "--iptables=false"]


def _host(run: Path) -> str:
    """Where the daemon with this folder listens."""
    return f"unix://{run}/docker.sock"


def _ready(engine: subprocess.Popen[bytes], log: Path, host: str) -> Daemon:
    """Wait until the daemon answers, and ask it what it is."""
    _wait(engine, log, lambda: _ping(host))
    version = _call(host, "GET", "/version").json()["Version"]
    info = _call(host, "GET", "/info").json()
    return Daemon(host, version, _store(info))


def _ping(host: str) -> bool | None:
    """True when the daemon answers."""
    try:
        # httpx leaves a socket open when it cannot connect a Unix socket, so this is tried without it first.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host.removeprefix("unix://"))
        _call(host, "GET", "/_ping")
    except (OSError, httpx.TransportError, EngineError):
        return None
    return True


def _store(info: Mapping[str, Any]) -> str:
    """The image store: containerd, else the name of the graph driver."""
    kinds = {value for key, value in info["DriverStatus"] or () if key == "driver-type"}
    return "containerd" if "io.containerd.snapshotter.v1" in kinds else str(info["Driver"])


def _call(
    host: str,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    content: IO[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    accepted: Iterable[int] = (),
) -> httpx.Response:
    """One call of the Engine API, which must succeed or fail with an accepted status."""
    transport = httpx.HTTPTransport(uds=host.removeprefix("unix://"), verify=False)
    with httpx.Client(transport=transport, base_url="http://docker", timeout=CALL_SECONDS, trust_env=False) as client:
        answer = client.request(method, path, params=params, content=content, headers=headers)
    if answer.is_success or answer.status_code in accepted:
        return answer
    raise EngineError(f"{method} {path}: status {answer.status_code}: {answer.text.strip()}")


def _tags(image: Mapping[str, Any]) -> list[str]:
    """The tags of an image in a list of images; old daemons write <none>:<none> if there are none."""
    return [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]


# Folders


@contextlib.contextmanager
def _workplace(folder: Path, prefix: str) -> Iterator[tuple[Path, Path]]:
    """A new folder with a short path for sockets and state, and one for the data; both are removed at the end."""
    _sweep()
    run = Path(tempfile.mkdtemp(prefix=PREFIX, dir=RUN))
    with _locked(run):
        try:
            data = _new_folder(folder, prefix)
            (run / "data").symlink_to(data)
            yield run, data
        finally:
            _clear(run)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Hold the lock which tells others that the folder's owner is alive; it appears only when it is held."""
    with (run / "lock.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (run / "lock.new").rename(run / "lock")
        yield


def _sweep() -> None:
    """Remove what dead test processes left."""
    for path in RUN.glob(f"{PREFIX}*/lock"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(path.parent)


def _clear(run: Path) -> None:
    """Remove the folders and the cgroups of a daemon that has ended; the one with the lock goes last."""
    link = run / "data"
    if link.is_symlink():
        _remove(link.readlink())
    for top in [CGROUPS / run.name, *CGROUPS.glob(f"*/{run.name}")]:
        _retry(partial(_remove_cgroup, top))
    _remove(run)


def _remove_cgroup(top: Path) -> None:
    """Remove a cgroup and those below it."""
    for path, _, _ in os.walk(top, topdown=False):
        Path(path).rmdir()


def _new_folder(folder: Path, prefix: str) -> Path:
    """A new folder inside the given one."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder.resolve()))


def _remove(path: Path) -> None:
    """Remove a folder, but nothing of what may be mounted in it."""
    for mounted in reversed(_mounts_under(path)):
        _output(["umount", "--lazy", mounted])
    _retry(partial(_remove_tree, path))


def _remove_tree(path: Path) -> None:
    """Remove a folder if it exists."""
    if path.exists():
        shutil.rmtree(path)


def _mounts_under(path: Path) -> list[str]:
    """The mount points in a folder, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in lines]
    return [point for point in points if Path(point).is_relative_to(path)]


def _retry(action: Callable[[], None], seconds: float = 5.0) -> None:
    """Repeat an action that fails as long as a process which has been killed is not quite dead yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


# What a machine has


def _missing(engine: str) -> str | None:
    """What the engine lacks on this machine; None if nothing."""
    checks = {"docker": _missing_docker, "docker28": _missing_docker28, "registry": _missing_registry}
    checks |= {"containerd": _missing_containerd, "podman": partial(_missing_programs, "podman")}
    checks["systemd"] = lambda: (
        _missing_rights() or _missing_programs("systemd-nspawn", "systemd-analyze", "mmdebstrap")
    )
    checks["kit"] = lambda: (
        _missing_rights() or _missing_programs("apt-get", "dpkg-deb", "mmdebstrap", "busybox", "strace", "qemu-aarch64")
    )
    checks["deflate"] = lambda: None if codec() else f"{DISTRIBUTION} is not installed (make builds it where cargo is)"
    return checks[engine]()


def _missing_docker() -> str | None:
    """What the machine's own Docker daemon lacks."""
    return _missing_programs("dockerd", "containerd", "runc", "docker", "unshare") or _missing_rights()


def _missing_docker28() -> str | None:
    """What the Docker daemon of the sid root lacks."""
    return _missing_programs("docker", "unshare", "pivot_root") or _missing_rights() or _missing_root()


def _missing_containerd() -> str | None:
    return _missing_rights() or _missing_programs("containerd", "ctr")


def _missing_registry() -> str | None:
    """What the registry lacks."""
    return _missing_programs("docker-registry")


def _missing_programs(*programs: str) -> str | None:
    """The programs that are not installed."""
    absent = [program for program in programs if not _found(program)]
    return f"{', '.join(absent)} not installed" if absent else None


def _missing_rights() -> str | None:
    """Why a daemon cannot be started in its own namespaces."""
    if os.geteuid() != 0:
        return "not root"
    try:
        _output(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"])
    except EngineError as error:
        return str(error)
    return None


def _missing_root() -> str | None:
    """Why there is no root with Docker 28, and why none can be built."""
    named = os.environ.get(SID_ROOT_VARIABLE)
    if named:
        return None if (Path(named) / "usr/sbin/dockerd").exists() else f"no dockerd in {SID_ROOT_VARIABLE}={named}"
    if SID_ROOT_CACHE.is_dir() or _found("mmdebstrap"):
        return None
    return f"neither mmdebstrap nor {SID_ROOT_VARIABLE} nor {SID_ROOT_CACHE}"


def _build_root(cache: Path) -> None:
    """Build the sid root under another name and rename it, so that there is never half a root; needs the lock."""
    part = cache.with_name(f"{cache.name}.part")
    _remove(part)
    options = ['--aptopt=Acquire::Check-Valid-Until "false"', "--variant=minbase"]
    packages = "--include=docker.io,iptables,ca-certificates"
    _output(["mmdebstrap", *options, packages, "sid", str(part)])
    part.rename(cache)


# The registry


def _registry_config(storage: Path) -> dict[str, Any]:
    """The configuration of a registry (JSON is YAML too); the system chooses the port."""
    return {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
    }


def _registry_address(log: Path) -> str | None:
    """Where the registry listens, if it does already."""
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return None
    httpx.get(f"http://{found[1]}/v2/", trust_env=False).raise_for_status()
    return found[1]


# The small image

Member = tuple[tarfile.TarInfo, bytes]
_ELF_INTERPRETER = 3


def _static_tool() -> bytes:
    """A statically linked program which does what its name says: busybox if there is one, else one built here."""
    for busybox in (Path("/usr/bin/busybox"), Path("/bin/busybox")):
        if busybox.exists() and _is_static(busybox.read_bytes()):
            return busybox.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        source, tool = Path(folder, "tiny.c"), Path(folder, "tiny")
        source.write_text(_TOOL_SOURCE, encoding="ascii")
        _output(["gcc", "-static", "-Os", "-s", "-o", str(tool), str(source)])
        return tool.read_bytes()


def _is_static(program: bytes) -> bool:
    """Whether a program is an ELF file (64 bits, little-endian) that asks for no interpreter."""
    if program[:6] != b"\x7fELF\x02\x01":
        return False
    start = struct.unpack_from("<Q", program, 32)[0]
    size, count = struct.unpack_from("<HH", program, 54)
    kinds = [struct.unpack_from("<I", program, start + index * size)[0] for index in range(count)]
    return _ELF_INTERPRETER not in kinds


def _tool_members(tool: bytes) -> list[Member]:
    """The layer with the program and its names."""
    names = [_link(f"bin/{name}", "tool") for name in ("cat", "echo", "sleep", "true")]
    return [_directory("bin"), _file("bin/tool", tool, 0o755), *names]


def _image_config(layers: list[bytes]) -> dict[str, Any]:
    """The image's configuration."""
    machine = platform.machine()
    created = "1970-01-01T00:00:00Z"
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "config": {"Cmd": ["/bin/cat", "/etc/tiny"], "Env": ["PATH=/bin"], "Labels": {"test": "tiny"}},
        "created": created,
        "history": [{"created": created, "created_by": f"layer {number}"} for number in range(1, len(layers) + 1)],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
    }


def _archive_members(config: bytes, layers: list[bytes]) -> list[Member]:
    """The members of an archive in the format of docker save before version 25."""
    repository, tag = SMALL_IMAGE.split(":")
    ids: list[str] = []
    members: list[Member] = []
    for layer in layers:
        parent = {"parent": ids[-1]} if ids else {}
        ids.append(_sha256(_json({"layer": _sha256(layer), **parent})))
        members += _layer_members({"id": ids[-1], **parent, "created": "1970-01-01T00:00:00Z"}, layer)
    config_name = f"{_sha256(config)}.json"
    entry = {
        "Config": config_name,
        "RepoTags": [SMALL_IMAGE],
        "Layers": [f"{layer_id}/layer.tar" for layer_id in ids],
    }
    members.append(_file(config_name, config))
    members.append(_file("manifest.json", _json([entry])))
    members.append(_file("repositories", _json({repository: {tag: ids[-1]}})))
    return members


def _layer_members(description: dict[str, str], layer: bytes) -> list[Member]:
    """The folder of one layer in an archive."""
    name = description["id"]
    files = {"VERSION": b"1.0", "json": _json(description), "layer.tar": layer}
    return [_directory(name), *(_file(f"{name}/{file}", content) for file, content in files.items())]


def _tar(members: Iterable[Member]) -> bytes:
    """A tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _file(name: str, content: bytes, mode: int = 0o644) -> Member:
    """A regular file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def _directory(name: str) -> Member:
    """A directory."""
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member, b""


def _link(name: str, target: str) -> Member:
    """A symbolic link."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member, b""


def _json(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
