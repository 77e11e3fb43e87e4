"""A line through paramiko, for hosts without an ssh program here."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from transfer.errors import CredentialsError, CutOff, HostKeyError, LinkError, TransferError, UsageError
from transfer.ship.address import GCM, Address, Options, settings
from transfer.ship.openssh import SshProcess, host_key_error
from transfer.ship.wire import Channel

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what matters comes as an exception

CONNECT, ANSWER, PATIENCE = 20.0, 60.0, 2.0
"""Seconds to wait for a connection, for any answer on it, and for a program there to end."""
SSH_WINDOW, PACKET = 128 << 20, 256 << 10
LINE_GONE = (EOFError, paramiko.SSHException, ConnectionError, TimeoutError, paramiko.SFTPError)
"""What paramiko raises when the line is gone. A plain OSError is an answer of the far side."""


class ParamikoChannel:
    """A wire channel over one of a connection's channels."""

    def __init__(self, channel: paramiko.Channel, where: str, *, program: bool = False) -> None:
        """`program`: a command runs there, which ends with its input and is waited for."""
        self.channel, self._where, self._program = channel, where, program

    def send(self, data: bytes | memoryview) -> None:
        try:
            send_all(self.channel, data)
        except (OSError, *LINE_GONE) as error:
            raise CutOff(f"{self._where}: the connection broke: {error or type(error).__name__}") from error

    def recv(self, size: int) -> bytes:
        try:
            return self.channel.recv(size)
        except (OSError, *LINE_GONE) as error:
            raise CutOff(f"{self._where}: the connection broke: {error or type(error).__name__}") from error

    @property
    def said(self) -> str:
        """What it printed to standard error, as far as that has come."""
        out = b""
        while self.channel.recv_stderr_ready() and len(out) < 16 << 10:
            out += self.channel.recv_stderr(4096)
        return out.decode(errors="replace")

    def close(self) -> None:
        with contextlib.suppress(OSError, *LINE_GONE):
            if self._program:
                self.channel.shutdown_write()
                self.channel.status_event.wait(PATIENCE)  # a receiver clears its locks away in the end
            self.channel.close()


def send_all(channel: paramiko.Channel, data: bytes | memoryview) -> None:
    """As the channel's own `sendall`, which copies what is left for each packet. OSError or EOFError if the line is gone."""
    view = memoryview(data)
    while view:
        sent = channel.send(view)  # type: ignore[arg-type]
        if not sent:
            raise EOFError("the channel is closed")
        view = view[sent:]


class ParamikoLine:
    """One connection. Its host key is checked before anything is said about the user."""

    def __init__(self, address: Address, options: Options) -> None:
        self.address, self._options = address, options
        self._settings = settings(address, options)
        self._process: SshProcess | None = None
        self._transport: paramiko.Transport | None = None
        try:
            self._transport = self._connect()
            self._check_host_key(self._transport)
            self._log_in(self._transport)
        except TransferError:
            self.close()
            raise
        except (OSError, *LINE_GONE) as error:
            self.close()
            raise LinkError(f"{address.where}: {error or type(error).__name__}") from error

    def _connect(self) -> paramiko.Transport:
        transport = paramiko.Transport(self._socket(), default_window_size=SSH_WINDOW, default_max_packet_size=PACKET)
        transport.daemon = True
        self._transport = transport
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = CONNECT + 10
        security = transport.get_security_options()
        allowed = self._settings.ciphers() or (*GCM, *security.ciphers)
        security.ciphers = (
            tuple(dict.fromkeys(each for each in allowed if each in security.ciphers)) or security.ciphers
        )
        known = [each.key.get_name() for each in self._known() if each.key and not each.revoked]
        if known and not self._options.host_key:
            # a host has keys of several kinds: ask for one that is known
            wanted = [*_kinds(known), *security.key_types]
            security.key_types = tuple(dict.fromkeys(each for each in wanted if each in security.key_types))
        transport.start_client(timeout=CONNECT + 10)
        transport.set_keepalive(10)
        return transport

    def _socket(self) -> socket.socket:
        host, port = self._settings.one("hostname", self.address.host), self._port
        jump, proxy = self._settings.one("proxyjump"), self._settings.one("proxycommand")
        if jump:
            config = f"-F {_quoted(str(self._options.config))} " if self._options.config else ""
            proxy = f"ssh {config}-W [%h]:%p -- {_quoted(jump)}"
            if "," in jump:
                *first, last = jump.split(",")
                proxy = f"ssh {config}-J {_quoted(','.join(first))} -W [%h]:%p -- {_quoted(last)}"
        if proxy:
            replaced = {"%h": host, "%p": str(port), "%r": self._user, "%n": self.address.host, "%%": "%"}
            for mark, value in replaced.items():
                proxy = proxy.replace(mark, value)
            self._process = SshProcess(["/bin/sh", "-c", f"exec {proxy}"], self.address.where)
            return self._process.connection
        connection = socket.create_connection((host, port), timeout=CONNECT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(ANSWER * 1000))
        return connection

    @property
    def _port(self) -> int:
        return self.address.port or int(self._settings.one("port", "22"))

    @property
    def _user(self) -> str:
        import getpass

        return self.address.user or self._settings.one("user") or getpass.getuser()

    # whether it is the host that is meant

    def _known(self) -> list[_Known]:
        """The lines of known_hosts that are about this host."""
        name = self._settings.one("hostkeyalias") or self._settings.one("hostname", self.address.host)
        names = [name if self._port == 22 else f"[{name}]:{self._port}"]
        files = self._settings.one("userknownhostsfile", "~/.ssh/known_hosts").split()
        files += self._settings.one("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split()
        out: list[_Known] = []
        for file in files:
            with contextlib.suppress(OSError):
                text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
                out += [each for line in text.splitlines() for each in _parse_known(line, names)]
        return out

    def _check_host_key(self, transport: paramiko.Transport) -> None:
        key = transport.get_remote_server_key()
        fingerprint, kind = key.fingerprint.rstrip("="), key.get_name()
        found = self._known()
        if any(each.key == key and each.revoked for each in found):
            raise self._refusal(kind, fingerprint, revoked=True)
        if self._options.host_key:
            if fingerprint != self._options.host_key:
                raise self._refusal(kind, fingerprint)
            return
        if any(each.key == key and not each.revoked for each in found):
            return
        changed = any(not each.revoked for each in found)
        if changed or not self._options.accept_new:
            raise self._refusal(kind, fingerprint, changed=changed)
        self._remember(key)

    def _refusal(self, kind: str, fingerprint: str, *, changed: bool = False, revoked: bool = False) -> HostKeyError:
        pinned = self._options.host_key
        return host_key_error(self.address, kind, fingerprint, pinned=pinned, changed=changed, revoked=revoked)

    def _remember(self, key: paramiko.PKey) -> None:
        """--accept-new: into the first known_hosts file, as ssh does."""
        name = self._settings.one("hostkeyalias") or self._settings.one("hostname", self.address.host)
        where = self._settings.one("userknownhostsfile", "~/.ssh/known_hosts").split()[0]
        path = Path(where).expanduser()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = name if self._port == 22 else f"[{name}]:{self._port}"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{host} {key.get_name()} {key.get_base64()}\n")

    # who we are

    def _log_in(self, transport: paramiko.Transport) -> None:
        user, where = self._user, self.address.where
        tried: list[str] = []
        for name, key in self._keys(tried):
            try:
                transport.auth_publickey(user, key)
                return
            except paramiko.AuthenticationException:
                tried.append(name)
            if not transport.is_active():
                raise CredentialsError(f"{where}: too many keys were tried", hint="name the right one with --identity")
        if self._options.ask:
            try:
                transport.auth_password(user, self._options.ask(f"{user}@{self.address.host}'s password: "))
                return
            except paramiko.AuthenticationException:
                tried.append("password")
        raise CredentialsError(f"{where}: {user} was refused ({', '.join(tried) or 'there is no key to try'})")

    def _keys(self, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
        """The agent's keys first, then key files; what cannot be used is noted in `tried`."""
        own = [str(self._options.identity)] if self._options.identity else self._settings.all("identityfile")
        if not self._options.identity and self._settings.one("identitiesonly") != "yes":
            with contextlib.suppress(paramiko.SSHException):
                for each in paramiko.Agent().get_keys():
                    yield f"agent: {each.get_name()}", each
        for text in own:
            path = Path(text).expanduser()
            if path.exists():
                key = self._key(path, tried)
                if key:
                    yield str(path), key
            elif self._options.identity:
                raise UsageError(f"{path}: the key file does not exist", hint="check --identity")

    def _key(self, path: Path, tried: list[str]) -> paramiko.PKey | None:
        try:
            return paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            if self._options.ask is None:
                tried.append(f"{path} has a passphrase, and there is no terminal to ask for it: use an agent")
                return None
        except (ValueError, OSError, paramiko.SSHException, UnknownKeyType) as error:
            tried.append(f"{path}: {error}")
            return None
        try:
            return paramiko.PKey.from_path(path, self._options.ask(f"passphrase for {path}: "))
        except (ValueError, TypeError, paramiko.SSHException) as error:
            raise CredentialsError(f"{path}: wrong passphrase") from error

    # using it

    def _open(self) -> paramiko.Channel:
        assert self._transport
        try:
            return self._transport.open_session(timeout=CONNECT + 10)
        except LINE_GONE as error:
            raise CutOff(f"{self.address.where}: no channel: {error}") from error

    def run(self, command: str) -> ParamikoChannel:
        """A command over there."""
        channel = self._open()
        try:
            channel.exec_command(command)
        except LINE_GONE as error:
            channel.close()
            if self._transport and self._transport.is_active():
                return ParamikoChannel(channel, self.address.where)  # it lets nothing be run
            raise CutOff(f"{self.address.where}: the connection broke") from error
        return ParamikoChannel(channel, self.address.where, program=True)

    def sftp(self) -> ParamikoChannel:
        """The file transfer subsystem."""
        channel = self._open()
        try:
            channel.invoke_subsystem("sftp")
        except LINE_GONE as error:
            raise LinkError(f"{self.address.where}: the host has no sftp server either: {error}") from error
        channel.settimeout(ANSWER)
        return ParamikoChannel(channel, self.address.where)

    def fault(self, channel: Channel) -> TransferError | None:
        """Why the line itself failed; None if it stands."""
        if self._transport and self._transport.is_active():
            return None
        return LinkError(f"{self.address.where}: the connection ended")

    def close(self) -> None:
        if self._transport:
            with contextlib.suppress(OSError, *LINE_GONE):
                self._transport.close()
        if self._process:
            self._process.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """One known_hosts line that matches: its key (None: of a kind that paramiko does not know)."""

    key: paramiko.PKey | None
    revoked: bool


def _parse_known(line: str, names: Sequence[str]) -> list[_Known]:
    """The line, if it is about one of the names."""
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#") or marker == "@cert-authority":
        return []
    if not any(_matches(pattern, name) for pattern in [fields[0]] for name in names):
        return []
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(["x", *fields[1:3]]))
    except (paramiko.SSHException, ValueError):
        entry = None
    return [_Known(entry.key if entry else None, marker == "@revoked")]


def _matches(patterns: str, name: str) -> bool:
    """ssh's own rules: names with commas between, hashed names, * and ?, and ! for what is not meant."""
    if patterns.startswith("|1|"):
        return paramiko.HostKeys.hash_host(name, patterns) == patterns
    hit = False
    for each in patterns.lower().split(","):
        plain = each.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name.lower(), plain):
            if each.startswith("!"):
                return False
            hit = True
    return hit


def _kinds(names: Sequence[str]) -> list[str]:
    """Signature kinds for key kinds: RSA keys sign in new ways."""
    return [each for name in names for each in (("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,))]


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
