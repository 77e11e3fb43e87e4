"""Where a host is and how it is to be reached: what the user wrote, and what ssh's own configuration makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.errors import LinkError, UsageError

_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_.@+\\][A-Za-z0-9_.@+$\\-]*", re.ASCII)
_PIN = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
SPOOL = "spool:"
"""What the folder of a one-way link is written with."""
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""The fastest ciphers where processors have AES: ChaCha20, OpenSSH's first choice, takes more of them."""


@dataclass(frozen=True, slots=True)
class Address:
    """A folder on a host. `user` and `port` only if they were given; `folder` may be empty: the home, or the inbox."""

    host: str
    folder: str
    user: str = ""
    port: int = 0

    @property
    def where(self) -> str:
        """As messages name it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def place(self) -> str:
        """With the folder."""
        return f"{self.where}:{self.folder}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Options:
    """How to get in. `host_key`: the one fingerprint that is accepted. `ask`: asks at a terminal; None where there is none."""

    identity: Path | None = None
    host_key: str = ""
    accept_new: bool = False
    config: Path | None = None
    ask: Callable[[str], str] | None = None


def parse_address(text: str) -> Address | None:
    """`[user@]host:folder` or `ssh://[user@]host[:port]/folder`; None for anything that names no host. UsageError if it is malformed."""
    if text.startswith("ssh://"):
        rest, slash, path = text.removeprefix("ssh://").partition("/")
        folder = path if path.startswith("~") else slash + path
        return _address(text, rest, "" if folder == "/" and not path else folder, ported=True)
    before, colon, folder = text.partition(":")
    if before.count("[") > before.count("]"):
        bracketed = re.fullmatch(r"((?:[^@/\[]*@)?\[[^\]/]*\]):(.*)", text, re.DOTALL)
        if bracketed:
            before, folder = bracketed.groups()
    if not colon or "/" in before or not before:
        return None
    return _address(text, before, folder, ported=False)


def _address(text: str, place: str, folder: str, *, ported: bool) -> Address:
    user, _, host = place.rpartition("@")
    port = ""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    elif ported:
        host, _, port = host.partition(":")
    bad = not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)) or not folder.isprintable()
    if bad or (port and (not port.isdecimal() or not 0 < int(port) < 65536)):
        raise UsageError(
            f"{text!r:.200} has no host name", hint="write user@host:/folder or ssh://user@host:port/folder"
        )
    return Address(host, folder, user, int(port or 0))


def parse_pin(text: str) -> str:
    """A host key's fingerprint as ssh prints it. UsageError for anything else."""
    if text and not _PIN.fullmatch(text.rstrip("=")):
        raise UsageError(f"--host-key {text!r:.100} is not a fingerprint", hint="write SHA256: and 43 characters")
    return text.rstrip("=")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `ssh -G` says for this host; each key in lower case with its values in order."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def one(self, key: str, default: str = "") -> str:
        found = self.values.get(key, ())
        return found[0] if found and found[0] != "none" else default

    def all(self, key: str) -> list[str]:
        return [each for each in self.values.get(key, ()) if each != "none"]

    def ciphers(self) -> tuple[str, ...]:
        """The ciphers that may be used, the fast ones first."""
        allowed = self.one("ciphers").split(",") if self.one("ciphers") else []
        return tuple([each for each in GCM if each in allowed] + [each for each in allowed if each not in GCM])


def ssh_words(address: Address, options: Options) -> list[str]:
    """The arguments for ssh that say who and where, without the host."""
    words = ["-F", str(options.config)] if options.config else []
    words += ["-l", address.user] if address.user else []
    words += ["-p", str(address.port)] if address.port else []
    words += ["-i", str(options.identity), "-o", "IdentitiesOnly=yes"] if options.identity else []
    return words


def settings(address: Address, options: Options) -> Settings:
    """ssh's own configuration for this host, with Include and Match resolved; nothing where there is no ssh program."""
    ssh = shutil.which("ssh")
    if ssh is None:
        return Settings()
    command = [ssh, "-G", *ssh_words(address, options), "--", address.host]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise LinkError(
            f"{address.where}: ssh -G did not end in time", hint="check `Match exec` in ~/.ssh/config"
        ) from error
    if done.returncode:
        raise UsageError(f"ssh refuses its configuration: {done.stderr.strip()[-300:]}", hint="look at ~/.ssh/config")
    values: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key.lower(), []).append(value)
    return Settings(values)


def spool_folder(text: str) -> Path:
    """The folder in `spool:DIR`. UsageError if none is named."""
    place = Path(text.removeprefix(SPOOL))
    if place == Path():
        raise UsageError("spool: needs a folder", hint="write spool:DIR")
    return place
