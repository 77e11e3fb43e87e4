"""The servers, wires and media of the tests do what they say, and leave nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support import engines, media, wires
from tests.support.ssh import make_key, missing_sshd, needed, sshd
from tests.support.wires import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
MIB = 1 << 20
QUIET = ["-o", "BatchMode=yes"]

Medium = Callable[[Path], AbstractContextManager[Path]]
MEDIA: dict[str, Medium] = {
    "tmpfs": lambda folder: media.tmpfs(folder, 8 * MIB),
    "ext4": lambda folder: media.loop_ext4(folder, 16 * MIB),
    "exfat": lambda folder: media.loop_exfat(folder, 16 * MIB),
    "counterfeit": lambda folder: media.counterfeit(folder, 64 * MIB, 16 * MIB),
}

OWNER = """
import sys, time
from pathlib import Path
from tests.e2e.test_harness import MEDIA
from tests.support.ssh import sshd
from tests.support.wires import namespaces
folder = Path(sys.argv[1])
with sshd(folder / "sshd") as server, namespaces() as ends, MEDIA["counterfeit"](folder) as mount:
    print(server.port, ends[0].name, mount, flush=True)
    time.sleep(600)
"""


# ssh


def test_ssh_runs_a_command_in_an_environment_of_its_own(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "transfer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho this one, $COLOUR\n", encoding="ascii")
    program.chmod(0o755)
    with sshd(tmp_path / "sshd", path=program.parent, env={"COLOUR": "dark red"}) as server:
        assert server.run("cat", data=b"\0\xff" * 50_000).stdout == b"\0\xff" * 50_000
        assert server.run("echo ~; pwd").stdout.decode().split() == [str(server.home)] * 2
        assert server.run("transfer").stdout == b"this one, dark red\n"
        assert server.run("exit 7").returncode == 7
        (server.home / "file").write_bytes(b"over sftp")
        sftp(server.config, f"get file {tmp_path}/got")
        assert (tmp_path / "got").read_bytes() == b"over sftp"
    assert server.run("true").returncode == 255


def test_ssh_that_serves_only_files_refuses_a_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    with sshd(tmp_path / "sshd", sftp_only=True) as server:
        done = server.run("echo", "told")
        assert (done.returncode, done.stdout) == (1, b"This service allows sftp connections only.\n")
        sftp(server.config, f"put {tmp_path}/file there")
        assert (server.home / "there").read_bytes() == b"a file"
        assert not sftp(server.config, "cd /etc").returncode


def test_ssh_in_a_chroot(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    with sshd(tmp_path / "sshd", chroot=True) as server:
        sftp(server.config, f"put {tmp_path}/file /there")
        assert (server.home / "there").read_bytes() == b"a file"
        assert sftp(server.config, "cd /etc", status=1).stdout.startswith(b"sftp> cd /etc")
        assert server.run("true").returncode == 1
    assert not Path("/mnt/there").exists()


def test_ssh_with_a_forced_command(tmp_path: Path) -> None:
    with sshd(tmp_path, forced='echo "$SSH_ORIGINAL_COMMAND" was asked') as server:
        assert server.run("rm", "everything").stdout == b"rm everything was asked\n"


def test_ssh_with_a_key_that_has_a_passphrase(tmp_path: Path) -> None:
    with sshd(tmp_path) as server:
        key = make_key(tmp_path / "locked", passphrase="secret")
        server.config.write_text(server.config.read_text().replace(str(server.identity), str(key)))
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho secret\n", encoding="ascii")
        ask.chmod(0o755)
        env = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        command = server.command("echo", "in")
        assert b"Permission denied" in subprocess.run(command, env=env, capture_output=True, check=False).stderr
        server.authorize(key)
        assert subprocess.run(command, env=env, capture_output=True, check=False).stdout == b"in\n"
        batch = ["ssh", *QUIET, *command[1:]]
        assert b"Permission denied" in subprocess.run(batch, env=env, capture_output=True, check=False).stderr


def test_ssh_restarts_and_changes_its_host_key(tmp_path: Path) -> None:
    with sshd(tmp_path) as server:
        before = server.fingerprint
        server.restart()
        assert server.run("true").returncode == 0
        server.change_host_key()
        assert server.fingerprint.startswith("SHA256:") and server.fingerprint != before
        done = server.run("true")
        assert done.returncode == 255
        assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
        assert server.fingerprint.encode() in done.stderr


@pytest.mark.parametrize("commands", [False, True])
def test_ssh_sessions_are_killed(commands: bool, tmp_path: Path) -> None:
    with sshd(tmp_path) as server:
        mark = f"echo $$; read x; echo ended >{tmp_path}/ended"
        with subprocess.Popen(server.command(mark), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline()
            assert len(server.sessions()) == 1
            server.kill_sessions(commands=commands)
            assert client.wait(10) == 255
        assert server.sessions() == []
        assert soon((tmp_path / "ended").exists, 0.5 if commands else 3.0) is not commands
        assert server.run("true").returncode == 0


# The proxy


def test_a_proxy_counts_and_passes_on_the_end(tmp_path: Path) -> None:
    with echo() as server, Proxy(server) as proxy, connected(proxy) as client:
        client.sendall(bytes(3 * MIB))
        client.shutdown(socket.SHUT_WR)
        assert len(rest(client)) == 3 * MIB
        assert (proxy.sent, proxy.received, proxy.connections, proxy.cuts) == (3 * MIB, 3 * MIB, 1, 0)


def test_a_proxy_cuts_where_it_was_told() -> None:
    with echo() as server, Proxy(server, schedule=[MIB, 10]) as proxy:
        with connected(proxy) as client, pytest.raises(ConnectionError):
            while True:
                client.sendall(bytes(1000))
        assert (proxy.sent, proxy.cuts) == (MIB, 1)
        with connected(proxy) as client, connected(proxy) as other:
            assert answer(other, b"12345") == b"12345"
            client.sendall(b"12345")
            for each in (client, other):
                with pytest.raises(ConnectionResetError):
                    rest(each)
        assert (proxy.sent, proxy.cuts) == (MIB + 10, 2)
        with connected(proxy) as client:
            assert answer(client, b"again") == b"again"
            proxy.cut_after(0)
            with pytest.raises(ConnectionResetError):
                rest(client)


def test_a_proxy_freezes_and_thaws() -> None:
    with echo() as server, Proxy(server) as proxy, connected(proxy) as client:
        assert answer(client, b"before") == b"before"
        proxy.freeze()
        client.settimeout(0.3)
        with connected(proxy) as late:
            late.sendall(b"late")
            with pytest.raises(TimeoutError):
                answer(client, b"during")
            assert (proxy.sent, proxy.connections) == (6, 1)
            proxy.thaw()
            assert answer(client, b"") == b"during"
            assert answer(late, b"") == b"late"


def test_a_proxy_delays_without_slowing() -> None:
    with echo() as server, Proxy(server, delay=0.1) as proxy, connected(proxy) as client:
        start = time.monotonic()
        assert answer(client, b"x") == b"x"
        assert time.monotonic() - start >= 0.2
        start = time.monotonic()
        sender = threading.Thread(target=client.sendall, args=(bytes(32 * MIB),))
        sender.start()
        assert len(rest(client, 32 * MIB)) == 32 * MIB
        sender.join()
        assert 0.2 <= time.monotonic() - start < 50  # a delay for each block would make this 100 s


def test_a_proxy_throttles() -> None:
    with echo() as server, Proxy(server, rate=4 * MIB) as proxy, connected(proxy) as client:
        start = time.monotonic()
        client.sendall(bytes(2 * MIB))
        assert len(rest(client, 2 * MIB)) == 2 * MIB
        assert time.monotonic() - start > 0.4


def test_a_flipped_bit_is_found_by_ssh(tmp_path: Path) -> None:
    with sshd(tmp_path) as server, Proxy((server.host, server.port)) as proxy:
        command = ["ssh", *QUIET, "-F", str(server.via(proxy.port)), "plant", "wc -c"]
        proxy.flip_at(100_000)
        done = subprocess.run(command, input=bytes(MIB), capture_output=True, check=False)
        assert (done.returncode, proxy.flips) == (255, 1)
        # The second where the byte belongs to a length.
        assert re.search("message authentication code incorrect|Bad packet length", server.log.read_text())
        done = subprocess.run(command, input=bytes(MIB), capture_output=True, check=False)
        assert done.stdout.split() == [b"1048576"]
        proxy.flip_at(0)
        assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 255
        assert proxy.flips == 2


def test_a_flipped_bit_of_what_is_not_ssh() -> None:
    with echo() as server, Proxy(server) as proxy:
        proxy.flip_at(3)
        with connected(proxy) as client:
            assert answer(client, b"SS") + answer(client, b"0000") == b"SS0100"
        with connected(proxy) as client:
            assert answer(client, b"000000") == b"000000"


# Namespaces


def test_namespaces_reach_each_other_and_nothing_else(tmp_path: Path) -> None:
    with (
        wires.namespaces(rate="100mbit") as (here, there),
        sshd(tmp_path, host=there.address, port=22, prefix=there.command()) as server,
    ):
        start = time.monotonic()
        done = here.run(*server.command("wc -c"), data=bytes(5 * MIB))
        assert done.stdout.split() == [b"5242880"], done.stderr
        assert time.monotonic() - start > 0.35
        away = ["ssh", "-o", "ConnectTimeout=1", *server.command("true")[1:]]
        assert subprocess.run(away, capture_output=True, check=False).returncode == 255
    assert not Path("/run/netns", here.name).exists()
    assert not Path("/run/netns", there.name).exists()


def test_namespaces_with_delay() -> None:
    program = "import socket, sys; socket.socket().connect_ex((sys.argv[1], 9))"
    with wires.namespaces(delay="100ms") as (here, there):
        start = time.monotonic()
        here.run(sys.executable, "-c", program, there.address)
        assert time.monotonic() - start > 0.2


# Media


@pytest.mark.parametrize("kind", MEDIA)
def test_a_medium_takes_a_file_and_no_more_than_fits(kind: str, tmp_path: Path) -> None:
    with MEDIA[kind](tmp_path) as mount:
        assert mount.is_mount()
        (mount / "file").write_bytes(b"content")
        assert (mount / "file").read_bytes() == b"content"
        with pytest.raises(OSError) as caught, (mount / "big").open("wb") as big:
            while True:
                big.write(bytes(MIB))
                big.flush()
        assert caught.value.errno == errno.ENOSPC
    assert left_in(tmp_path) == []


def test_a_medium_that_is_read_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    with media.read_only(source) as mount:
        assert (mount / "file").read_bytes() == b"content"
        with pytest.raises(OSError) as caught:
            (mount / "new").write_bytes(b"")
        assert caught.value.errno == errno.EROFS
    assert (source / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["source"]


def test_a_counterfeit_loses_what_it_took(tmp_path: Path) -> None:
    with media.counterfeit(tmp_path, 64 * MIB, 16 * MIB) as mount:
        assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize > 56 * MIB
        contents = {f"folder/{number}": os.urandom(MIB) for number in range(6)}
        (mount / "folder").mkdir()
        assert write_and_compare(mount, contents) == set()
        more = {f"folder/more-{number}": os.urandom(MIB) for number in range(34)}
        lost = write_and_compare(mount, {**contents, **more})
        assert 25 < len(lost) < 40
        media.drop_caches()
        assert {name for name, data in {**contents, **more}.items() if (mount / name).read_bytes() != data} == lost
    assert left_in(tmp_path) == []


def test_a_medium_that_cannot_be_made_shows_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(engines.EngineError, match="mkfs"), media.loop_ext4(tmp_path, 100):
        pass
    assert left_in(tmp_path) == []


def test_a_medium_in_use_goes_all_the_same(tmp_path: Path) -> None:
    with media.loop_ext4(tmp_path, 16 * MIB) as mount, (mount / "file").open("wb") as kept:
        kept.write(b"x")
        with contextlib.suppress(ValueError), media.tmpfs(tmp_path, MIB):
            raise ValueError
    assert left_in(tmp_path) == []


# All of them


def test_a_killed_test_process_leaves_nothing_that_the_next_does_not_remove(tmp_path: Path) -> None:
    with owner(tmp_path) as (process, port, name, mount):
        assert mount.is_mount()
        assert Path("/run/netns", name).exists()
        process.kill()
    assert soon(lambda: not mount.is_mount() and not processes_with(str(tmp_path)))
    assert not loops_in(tmp_path)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with wires.namespaces():
        assert not Path("/run/netns", name).exists()


def test_a_mount_whose_keeper_was_killed_too_is_removed_by_the_next(tmp_path: Path) -> None:
    with owner(tmp_path) as (process, _, _, mount):
        process.send_signal(signal.SIGSTOP)
        for pid in [pid for pid, line in command_lines() if str(mount.parent) in line]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert mount.is_mount()
    with media.tmpfs(tmp_path / "next", MIB), wires.namespaces():
        assert not mount.parent.exists()
    assert soon(lambda: not loops_in(tmp_path))


def test_what_is_missing_skips_the_test_unless_it_was_promised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "_found", lambda program: False)
    monkeypatch.delenv("TRANSFER_MUST_TEST", raising=False)
    others: dict[str, Callable[[Path], AbstractContextManager[object]]] = {
        "sshd": lambda folder: sshd(folder),
        "netns": lambda folder: wires.namespaces(),
    }
    makers = {**MEDIA, **others}
    del makers["tmpfs"]
    for name, make in makers.items():
        with pytest.raises(pytest.skip.Exception, match=f"no {name} here: .* not installed"), make(tmp_path):
            pass
    monkeypatch.setenv("TRANSFER_MUST_TEST", "docker, exfat")
    with pytest.raises(pytest.fail.Exception, match=r"names exfat, but mkfs\.exfat"), MEDIA["exfat"](tmp_path):
        pass


@contextlib.contextmanager
def owner(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, str, Path]]:
    """A process that holds a server, namespaces and a medium, and is killed: with a port, a name and a mount of these."""
    needed("sshd", missing_sshd())
    with media.counterfeit(folder, 64 * MIB, 16 * MIB), wires.namespaces():
        pass
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None
            port, name, mount = process.stdout.readline().split()
            yield process, int(port), name, Path(mount)
        finally:
            process.kill()


@contextlib.contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """The address of a server which sends back what it gets."""

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            while data := peer.recv(MIB):
                peer.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(door.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield door.getsockname()
        finally:
            door.shutdown(socket.SHUT_RDWR)
            accepting.join()


def connected(proxy: Proxy) -> socket.socket:
    """A connection to the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def answer(client: socket.socket, data: bytes) -> bytes:
    """What comes back first."""
    client.sendall(data)
    return client.recv(MIB)


def rest(client: socket.socket, count: int = 1 << 40) -> bytes:
    """All that comes back until the end, or so many bytes."""
    got = bytearray()
    while len(got) < count and (data := client.recv(MIB)):
        got += data
    return bytes(got)


def sftp(config: Path, batch: str, *, status: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Commands of sftp, which must end with this status."""
    command = ["sftp", "-F", str(config), "-b", "-", "plant"]
    done = subprocess.run(command, input=batch.encode(), capture_output=True, check=False, timeout=30)
    assert done.returncode == status, done.stderr
    return done


def write_and_compare(mount: Path, contents: dict[str, bytes]) -> set[str]:
    """Write files, and name those that are not the same when they come from the device."""
    for name, data in contents.items():
        with (mount / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {name for name, data in contents.items() if (mount / name).read_bytes() != data}


def soon(check: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Whether it becomes true."""
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.02)
    return check()


def left_in(folder: Path) -> list[str]:
    """What is left of media: processes, mounts, loop devices, files."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [
        *processes_with(str(folder)),
        *(line for line in mounts if str(folder) in line),
        *(line for line in loops_in(folder) if not soon(lambda: not loops_in(folder))),
        *os.listdir(folder),
    ]


def loops_in(folder: Path) -> list[str]:
    """The loop devices with files in the folder."""
    lines = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(folder) in line]


def processes_with(text: str) -> list[str]:
    """The command lines that contain a text."""
    return [line for _, line in command_lines() if text in line]


def command_lines() -> Iterator[tuple[int, str]]:
    """The processes with their command lines."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
