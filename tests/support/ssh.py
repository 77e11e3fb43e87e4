"""A private OpenSSH server for the tests, with keys and a home of its own, for as long as a `with` block.

The server runs in a PID namespace whose first process is the guard of engines.py: when the block ends or the test
process dies, the server, its sessions and all that ran in them die. It sees what is mounted later, but in a chroot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import engines

PRIVILEGE_SEPARATION = Path("/run/sshd")
REMOTE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALIAS = "plant"

# The server must not see the mount, and no other place is owned by root all the way up as ChrootDirectory wants it.
_CHROOT = "/mnt"


@dataclass
class Sshd:
    """A running server: where it listens, and what a client needs to know. All its files are in `folder`."""

    folder: Path
    host: str
    port: int
    command_line: list[str]
    user: str = "root"
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _guard: int = 0

    @property
    def identity(self) -> Path:
        """The user's private key; the public one has .pub."""
        return self.folder / "identity"

    @property
    def known_hosts(self) -> Path:
        """The host key the server began with, under [host]:port."""
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        """The client configuration in which `plant` is this server."""
        return self.folder / "ssh_config"

    @property
    def home(self) -> Path:
        """HOME of the sessions, and where they begin if root's shell is bash; the root of all with `chroot`."""
        return self.folder / "home"

    @property
    def log(self) -> Path:
        """What the server says, level VERBOSE."""
        return self.folder / "log"

    @property
    def fingerprint(self) -> str:
        """SHA256:... of the present host key."""
        return engines._output(["ssh-keygen", "-lf", str(self.folder / "host_key.pub")]).split()[1]

    def command(self, *words: object) -> list[str]:
        """The command line which runs these words there."""
        return ["ssh", "-F", str(self.config), ALIAS, *map(str, words)]

    def run(self, *words: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run words there with this standard input; any status will do."""
        return subprocess.run(self.command(*words), input=data, capture_output=True, check=False, timeout=60)

    def via(self, port: int, host: str = "127.0.0.1") -> Path:
        """A client configuration in which `plant` is this server behind a proxy; known_hosts learns of it."""
        path = self.folder / f"ssh_config.{port}"
        self._write_client(path, host, port)
        return path

    def authorize(self, identity: Path, *, forced: str = "") -> None:
        """Let one more key in, by the name of its private file; with `forced`, only to run that command."""
        public = identity.with_name(f"{identity.name}.pub").read_text(encoding="ascii")
        quoted = forced.replace('"', '\\"')
        with (self.folder / "authorized_keys").open("a", encoding="utf-8") as keys:
            keys.write(f'restrict,command="{quoted}" {public}' if forced else public)

    def start(self) -> None:
        """Start the server on its port; raises EngineError with the end of the log if it does not start."""
        pid = self.folder / "pid"
        pid.unlink(missing_ok=True)
        engine = self._running.enter_context(engines._guarded(self.command_line, self.log))
        self._guard = engine.pid
        # Written once it listens; to connect would not do where the server is in a network namespace of its own.
        engines._wait(engine, self.log, lambda: pid.exists() or None)

    def stop(self) -> None:
        """Stop the server, its sessions and what runs in them, as a machine that goes down without a word."""
        self._running.close()

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def change_host_key(self) -> None:
        """Restart with another host key. known_hosts still has the old one: that is the point."""
        (self.folder / "host_key").unlink()
        make_key(self.folder / "host_key")
        self.restart()

    def sessions(self) -> list[int]:
        """The processes of the open connections, also of those that have not logged in."""
        listeners = [pid for pid in _descendants(self._guard) if _name(pid) == "sshd"][:1]
        return [child for pid in listeners for child in _children(pid)]

    def kill_sessions(self, *, commands: bool = False) -> None:
        """Kill what serves the open connections; the server goes on. With `commands` also what runs in them."""
        sessions = self.sessions()
        below = [child for session in sessions for child in _descendants(session)]
        doomed = sessions + [pid for pid in below if commands or _name(pid).startswith("sshd")]
        for pid in reversed(doomed):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + engines.STOP_SECONDS
        while set(doomed) & set(_descendants(self._guard)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write_client(self, path: Path, host: str, port: int) -> None:
        """Write a client configuration, and let known_hosts know the host key under this address too."""
        lines = {
            "HostName": host,
            "Port": port,
            "User": self.user,
            "IdentityFile": f'"{self.identity}"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{self.known_hosts}"',
            "GlobalKnownHostsFile": "/dev/null",
        }
        text = "".join(f"  {key} {value}\n" for key, value in lines.items())
        path.write_text(f"Host {ALIAS}\n{text}", encoding="utf-8")
        name = host if port == 22 else f"[{host}]:{port}"
        key = (self.folder / "host_key.pub").read_text(encoding="ascii")
        with self.known_hosts.open("a", encoding="ascii") as known:
            known.write(f"{name} {key}")


@contextlib.contextmanager
def sshd(
    folder: Path,
    *,
    sftp_only: bool = False,
    forced: str = "",
    chroot: bool = False,
    options: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Sshd]:
    """A server for root, with everything it writes in the folder. Raises EngineError if it does not start.

    sftp_only: it serves files and refuses commands. forced: the one command it runs, whatever it is asked.
    chroot: sftp_only, and home is all there is. options: more lines of sshd_config, which win. path: a folder that
    comes first in PATH of what it runs. env: more of its environment. prefix: words before its command line, such
    as Namespace.command().
    """
    needed("sshd", missing_sshd())
    (folder / "home").mkdir(parents=True, exist_ok=True)
    PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    server = Sshd(folder.resolve(), host, port or _free_port(), [*prefix, *_command_line(folder.resolve(), chroot)])
    for key in (server.identity, folder / "host_key"):
        make_key(key)
    server.authorize(server.identity, forced=forced)
    server._write_client(server.config, host, server.port)
    # sshd goes to the folder that passwd names; bash reads this one in every session.
    (server.home / ".bashrc").write_text("cd\n", encoding="ascii")
    found = f"{path.resolve()}:{REMOTE_PATH}" if path else REMOTE_PATH
    variables = {"HOME": str(server.home), "PATH": found, **(env or {})}
    lines = [*options, *_server_lines(server, variables, sftp_only=sftp_only, chroot=chroot)]
    (folder / "sshd_config").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def make_key(path: Path, *, passphrase: str = "") -> Path:
    """Make an ed25519 key, unless there is one: the private file at the path, the public one with .pub."""
    if not path.exists():
        words = ["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
        path.with_name(f"{path.name}.pub").unlink(missing_ok=True)
        engines._output(["ssh-keygen", *words])
    return path


def needed(name: str, reason: str | None) -> None:
    """Skip the test if there is a reason why this machine has no such thing; fail it if TRANSFER_MUST_TEST names it."""
    if reason is None:
        return
    must = [each.strip() for each in os.environ.get(engines.MUST_TEST_VARIABLE, "").split(",")]
    if name in must:
        pytest.fail(f"{engines.MUST_TEST_VARIABLE} names {name}, but {reason}")
    pytest.skip(f"no {name} here: {reason}")


def missing_sshd() -> str | None:
    """Why there can be no server here; None if there can."""
    reason = engines._missing_programs("sshd", "ssh", "ssh-keygen", "unshare") or engines._missing_rights()
    if reason is None and Path("/etc/shadow").exists():
        locked = any(line.startswith("root:!") for line in Path("/etc/shadow").read_text(encoding="utf-8").splitlines())
        reason = "sshd without PAM refuses root as locked (usermod -p '*' root)" if locked else None
    return reason


def _command_line(folder: Path, chroot: bool) -> list[str]:
    """The server under the guard, in a PID namespace; and home mounted where a chroot is allowed, for it alone."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    mount = f"set -e; mount --bind '{folder}/home' {_CHROOT}\n" if chroot else ""
    guard = [*unshare, *(["--mount"] if chroot else []), "sh", "-c", f"{mount}{engines._GUARD}", "guard"]
    program = engines._output(["sh", "-c", "command -v sshd"], env={"PATH": engines._search_path()}).strip()
    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    # OpenSSH 9.8 shuts out for a while who fails to log in, which here is all the tests; older ones lack the word.
    probe = [program, "-G", "-f", "/dev/null", "-o", "PerSourcePenalties=no"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        command += ["-o", "PerSourcePenalties=no"]
    return [*guard, *command]


def _server_lines(server: Sshd, variables: Mapping[str, str], *, sftp_only: bool, chroot: bool) -> list[str]:
    """The lines of sshd_config; where one appears twice, sshd takes the first."""
    sftp = "internal-sftp" if chroot else f"internal-sftp -d {server.home}"
    assigned = " ".join(f'"{name}={value}"' for name, value in variables.items())
    return [
        f"ListenAddress {server.host}",
        f"Port {server.port}",
        f'HostKey "{server.folder}/host_key"',
        f'AuthorizedKeysFile "{server.folder}/authorized_keys"',
        f'PidFile "{server.folder}/pid"',
        f"Subsystem sftp {sftp}",
        f"SetEnv {assigned}",
        "UsePAM no",
        "StrictModes no",
        "PermitRootLogin yes",
        "PermitUserRC no",
        "AuthenticationMethods publickey",
        "MaxStartups 1000",
        "MaxSessions 1000",
        "UseDNS no",
        "PrintMotd no",
        "LogLevel VERBOSE",
        *([f"ForceCommand {sftp}"] if sftp_only or chroot else []),
        *([f"ChrootDirectory {_CHROOT}"] if chroot else []),
    ]


def _free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    """The processes which this process started; none if it has ended."""
    with contextlib.suppress(OSError):
        return engines._children(pid)
    return []


def _descendants(pid: int) -> list[int]:
    """The processes below this one, each before those it started."""
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _name(pid: int) -> str:
    """The name of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""
