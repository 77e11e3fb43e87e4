"""A line through the system's own ssh program: certificates, FIDO keys, GSSAPI, jump hosts and ControlMaster as its configuration has them."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence

from transfer.errors import CredentialsError, HostKeyError, LinkError, TransferError, UsageError
from transfer.ship.address import Address, Options, settings, ssh_words
from transfer.ship.socketed import SocketChannel
from transfer.work import background

SAID_MAX = 16 << 10
BUFFER = 1 << 20
END_SECONDS = 10.0
_SEEN = re.compile(r"transfer-host-key (\S+) (SHA256:\S+)")


def _ignore_interrupts() -> None:
    """Ctrl-C reaches all that run at the terminal: this program says that it stops, and ssh is not to say that the line broke."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class SshProcess(SocketChannel):
    """An ssh process whose standard input and output are the other end of the socket."""

    def __init__(self, command: Sequence[str], where: str) -> None:
        ours, theirs = _Socket.pair()
        super().__init__(ours, where)
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                preexec_fn=_ignore_interrupts,
            )
        self._said = bytearray()
        self._listening = background(self._listen, "said")

    def _listen(self) -> None:
        assert self.process.stderr
        with contextlib.suppress(ValueError, OSError):
            while block := self.process.stderr.read1(4096):  # type: ignore[attr-defined]
                self._said += block
                del self._said[:-SAID_MAX]

    def ended(self) -> int | None:
        """The exit code, once the process has ended; None if it goes on."""
        try:
            code = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        self._listening.join(END_SECONDS)
        return code

    @property
    def said(self) -> str:
        """What it printed to standard error, the last of it."""
        lines = self._said.decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("transfer-host-key "))

    def close(self) -> None:
        super().close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._listening.join(1)
        if self.process.stderr:
            self.process.stderr.close()


class _Socket(socket.socket):
    """A socket that an SFTP client takes for a channel."""

    @staticmethod
    def pair() -> tuple[_Socket, socket.socket]:
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return _Socket(fileno=ours.detach()), theirs

    def recv_ready(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])

    def get_name(self) -> str:
        return "ssh"


class OpensshLine:
    """Starts one ssh process for each thing that is run. `quietly`: it must not ask anybody anything."""

    def __init__(self, address: Address, options: Options, *, quietly: bool) -> None:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UsageError("the ssh program is not installed", hint="install openssh-client, or use --ssh paramiko")
        self._ssh, self.address, self._options = ssh, address, options
        self._quietly = quietly or options.ask is None
        self._ciphers = settings(address, options).ciphers()

    def _command(self, *, fingerprint: bool = False) -> list[str]:
        strict = "accept-new" if self._options.accept_new else "yes"
        chosen = {
            "StrictHostKeyChecking": strict,
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "3",
            "ConnectTimeout": "20",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "RequestTTY": "no",
            "EscapeChar": "none",
            "Compression": "no",
            "RemoteCommand": "none",
        }
        if self._quietly or fingerprint:
            chosen["BatchMode"] = "yes"
        if self._ciphers:
            chosen["Ciphers"] = ",".join(self._ciphers)
        pin = self._options.host_key
        if pin or fingerprint:
            chosen["KnownHostsCommand"] = _known_hosts_command(pin)
        if pin:
            chosen |= {"UserKnownHostsFile": "/dev/null", "GlobalKnownHostsFile": "/dev/null"}
        words = [word for key, value in chosen.items() for word in ("-o", f"{key}={value}")]
        return [self._ssh, "-T", "-x", *words, *ssh_words(self.address, self._options)]

    def run(self, command: str) -> SshProcess:
        """A command over there. It has to be looked at whether it came to life: `fault`."""
        words = ["-o", "SessionType=default", "--", self.address.host, command]
        return SshProcess([*self._command(), *words], self.address.where)

    def sftp(self) -> SshProcess:
        """The file transfer subsystem."""
        return SshProcess([*self._command(), "-s", "--", self.address.host, "sftp"], self.address.where)

    def fault(self, channel: SshProcess) -> TransferError | None:
        """Why ssh itself failed; None if it got through and the command ended by itself."""
        if channel.ended() != 255:
            return None
        where, said = self.address.where, channel.said
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "the connection ended").strip()
        if "ost key verification failed" in said or "REVOKED HOST KEY" in said.upper():
            return self._host_key_fault(said)
        if "Permission denied" in said or "Too many authentication failures" in said:
            return CredentialsError(f"{where}: {last}")
        if "ad configuration option" in said or "ad owner or permissions" in said:
            return UsageError(f"ssh refuses its configuration: {last}", hint="look at ~/.ssh/config")
        return LinkError(f"{where}: {last}")

    def _host_key_fault(self, said: str) -> HostKeyError:
        probe = subprocess.run(
            [
                *self._command(fingerprint=True),
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "SessionType=default",
                "--",
                self.address.host,
                "true",
            ],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        seen = _SEEN.search(probe.stderr)
        kind, fingerprint = (seen.group(1), seen.group(2)) if seen else ("", "")
        changed = "HAS CHANGED" in said or "has changed" in said
        return host_key_error(
            self.address, kind, fingerprint, pinned=self._options.host_key, changed=changed, revoked="REVOKED" in said
        )

    def close(self) -> None:
        """Each process ends with its channel."""


def _known_hosts_command(pin: str) -> str:
    """For ssh: tell the fingerprint it sees, and say that it knows the key if it is the pinned one."""
    accept = f"case %f in {pin}) echo %H %t %K;; esac" if pin else "true"
    return f'/bin/sh -c "echo transfer-host-key %t %f >&2; {accept}"'


def host_key_error(
    address: Address, kind: str, fingerprint: str, *, pinned: str, changed: bool, revoked: bool
) -> HostKeyError:
    """The refusal, in the same words for both ways of connecting."""
    shown = f"{kind} {fingerprint}".strip() or "that it shows"
    where = address.where
    if revoked:
        return HostKeyError(
            f"{where}: the host key {shown} is revoked in known_hosts",
            hint="do not continue; ask the administrator of that host",
        )
    if pinned:
        return HostKeyError(
            f"{where}: the host key is {shown}, not {pinned} as --host-key says",
            hint="compare it at the console of that host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    if changed:
        return HostKeyError(
            f"{where}: the host key is {shown}, but known_hosts has another one: somebody may intercept the connection",
            hint=f"if that host was installed again, compare the fingerprint at its console, then ssh-keygen -R {address.host}"
            f"{f' (or [{address.host}]:{address.port})' if address.port else ''}, or pin it: --host-key {fingerprint or 'SHA256:...'}",
        )
    return HostKeyError(
        f"{where}: the host key {shown} is unknown",
        hint="compare the fingerprint at that host's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then pin it: "
        f"--host-key {fingerprint or 'SHA256:...'}, or trust it without checking: --accept-new",
    )
