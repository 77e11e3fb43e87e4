"""The `ctr` program: which one, which containerd it speaks to, in which namespace, and what it says, taken apart.

`ctr` is wherever containerd is. Its gRPC interface would cost 22 MB of packages and is slower for bytes: those are read in the content folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transfer.engines.contents import PLUGIN, ContentFolder
from transfer.engines.program import Output, Program, find
from transfer.errors import EngineAway, EngineError, NotFound, UsageError
from transfer.model import TEMPORARY, Digest

SOCKETS = {
    "/run/containerd/containerd.sock": (),
    "/run/k3s/containerd/containerd.sock": ("/var/lib/rancher/rke2/bin/ctr",),
    "/run/k0s/containerd.sock": (),
    "/var/snap/microk8s/common/run/containerd.sock": ("/snap/microk8s/current/bin/ctr",),
}
"""Where containerds listen, in the order in which they are looked for; and where a ctr is that came with them. Docker's own is not among them."""
KUBELET = ("/var/lib/kubelet", "/run/k3s", "/run/k0s")
"""What is there where Kubernetes runs: its images are in the namespace k8s.io."""
KUBERNETES = "k8s.io"
TEMPORARY_NAMES = f"localhost/{TEMPORARY}/"
"""What the names begin with that images have until they are whole."""
_NAMESPACE = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
_IMAGE = re.compile(r"(\S+)\s+(\S+/\S+)\s+(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\s+(\S.*)", re.ASCII)
_LABEL = re.compile(r"([^\s,=]+)=([^\s,]*)")
_COMPLETE = re.compile(r"complete \(\d+/\d+\)")


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a containerd: the root's media type and digest, and the name's labels."""

    name: str
    media_type: str
    digest: Digest
    labels: Mapping[str, str]


def namespace_and_name(text: str) -> tuple[str, str]:
    """`k8s.io/app:1` is the image app:1 in the namespace k8s.io; without a slash it is an image in the one found here."""
    space, slash, name = text.partition("/")
    return (space, name) if slash else ("", text)


class Ctr:
    """One containerd, in one namespace."""

    def __init__(self, namespace: str = "") -> None:
        address, program = _found()
        self.namespace = namespace or os.environ.get("CONTAINERD_NAMESPACE", "") or _usual()
        if not _NAMESPACE.fullmatch(self.namespace) or len(self.namespace) > 76:
            raise UsageError(
                f"{self.namespace!r:.100} is not a containerd namespace", hint="write containerd:NAMESPACE/NAME"
            )
        self.where = f"containerd {address}, namespace {self.namespace}"
        self._all = Program((program, "--address", address), self.where)
        self._here = Program((program, "--address", address, "--namespace", self.namespace), self.where)

    def namespaces(self) -> list[str]:
        """EngineAway if nothing answers."""
        try:
            return [line.split()[0] for line in _lines(self._all.run("namespaces", "ls", "-q"))]
        except EngineError as error:
            raise EngineAway(error.message, hint="is it running, and are you root?") from error

    def known(self) -> None:
        """NotFound for a namespace that nothing has; the usual ones are there, if only in name."""
        there = self.namespaces()
        if self.namespace not in (*there, "default", KUBERNETES):
            raise NotFound(
                f"{self.where}: there is no such namespace; it has {', '.join(there) or 'none'}",
                hint="write containerd:NAMESPACE/NAME",
            )

    def images(self, name: str = "") -> list[Name]:
        """All names, or this one alone, if it is there; not those of images that are on their way in."""
        found = self._here.run("images", "ls", *([f"name=={name}"] if name else []))
        return [
            each for each in _names(_lines(found)) if not each.name.startswith(TEMPORARY_NAMES) or each.name == name
        ]

    def checked(self, name: str = "") -> dict[str, bool]:
        """The images, or this one, of which containerd has all content for this host; and whether each is unpacked."""
        found = self._here.run("images", "check", *([f"name=={name}"] if name else []))
        rows = [row for row in map(_IMAGE.fullmatch, _lines(found)) if row and _COMPLETE.search(row[4])]
        return {row[1]: row[4].split()[-1] == "true" for row in rows}

    def digests(self) -> set[str]:
        """The blobs of the namespace. Another namespace's are not among them, be they in the same folder."""
        return {line.strip() for line in _lines(self._here.run("content", "ls", "-q"))}

    def content(self, proof: Iterable[Digest]) -> ContentFolder | None:
        """The content folder, if this process may read it and it holds one of these documents."""
        told = self._all.run("plugins", "ls", "-d", "id==content").decode("utf-8", "replace")
        roots = [Path(each) for each in re.findall(r"^\s*root\s+(/\S+)\s*$", told, re.MULTILINE)]
        return ContentFolder.of([each for each in roots if each.name == PLUGIN], proof)

    def get(self, digest: Digest) -> Output:
        """A blob's bytes."""
        return self._here.open("content", "get", str(digest))

    def load(self, archive: Iterable[bytes], *, unpack: bool) -> None:
        """Import an OCI archive with all its platforms; its index says under which name."""
        self._here.run("images", "import", "--all-platforms", *([] if unpack else ["--no-unpack"]), "-", data=archive)

    def tag(self, source: str, name: str) -> None:
        self._here.run("images", "tag", "--force", source, name)

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        self._here.run("images", "label", name, *(f"{key}={value}" for key, value in labels.items()))

    def remove(self, name: str) -> None:
        """Take a name away; what nothing names is collected before this ends."""
        self._here.run("images", "rm", "--sync", name)

    def containers(self) -> dict[str, str]:
        """Containers, and the name of the image each was made of."""
        rows = [line.split() for line in _lines(self._here.run("containers", "ls"))[1:]]
        return {row[0]: row[1] for row in rows if len(row) > 1}


def _lines(data: bytes) -> list[str]:
    return [line.rstrip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def _names(lines: Iterable[str]) -> Iterator[Name]:
    """What `ctr images ls` lists; a line that is none is left out."""
    for line in lines:
        found = _IMAGE.fullmatch(line)
        if found:
            labels = dict(_LABEL.findall(found[4]))
            yield Name(found[1], found[2], Digest(found[3]), labels)


def _found() -> tuple[str, str]:
    """The socket and the program. EngineAway says which is missing."""
    named = os.environ.get("CONTAINERD_ADDRESS", "").removeprefix("unix://")
    address = socket_here()
    if not address:
        raise EngineAway(
            f"no containerd here: {named or ', '.join(SOCKETS)} is not there",
            hint="start containerd, or set CONTAINERD_ADDRESS",
        )
    program = find("ctr", *SOCKETS.get(address, ()))
    if program is None:
        raise EngineAway(
            f"{address} is there, but the program ctr is not in PATH", hint="ctr comes with containerd; add it to PATH"
        )
    return address, program


def socket_here() -> str:
    """The socket that is named, or of those that are known the first that is there; "" for none."""
    named = os.environ.get("CONTAINERD_ADDRESS", "").removeprefix("unix://")
    return next((each for each in ([named] if named else SOCKETS) if Path(each).is_socket()), "")


def _usual() -> str:
    """The namespace that is meant where nobody says."""
    return KUBERNETES if any(Path(each).exists() for each in KUBELET) else "default"
