"""The one table of engines. An engine is a module and a line here: help texts, messages and every `open` are derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from transfer.engines.base import ImageSink, ImageSource, Keeper, SinkOptions, SourceOptions
from transfer.errors import NotFound, TransferError, UsageError

Split = Callable[[str], tuple[str, str]]


def path_and_name(text: str) -> tuple[str, str]:
    """`dir:name` as skopeo writes it; a path that exists with the colon in it is taken whole."""
    path, colon, name = text.partition(":")
    return (text, "") if not colon or Path(text).exists() else (path, name)


def registry_place(text: str) -> tuple[str, str]:
    """`//host/app:1` is an image, `//host` or `//host/team` a place."""
    from transfer.engines.registry import split_place

    return split_place(text)


def containerd_namespace(text: str) -> tuple[str, str]:
    """`k8s.io/app:1` is an image in a namespace."""
    from transfer.engines.ctr import namespace_and_name

    return namespace_and_name(text)


def podman_store(text: str) -> tuple[str, str]:
    """`[overlay@/root+/run]app:1` is an image in a store of podman's that is not the usual one."""
    from transfer.engines.podman import store_and_name

    return store_and_name(text)


def place_alone(text: str) -> tuple[str, str]:
    """For a place without names."""
    return text, ""


def name_alone(text: str) -> tuple[str, str]:
    """For an engine that needs no place."""
    return "", text


@dataclass(frozen=True, slots=True)
class Transport:
    """How an engine is written, and what its module can do.

    `form`: as it is typed after --from and --to. `source` and `sink`: the functions of the module that open one, `keeper`: a module whose `open_keeper` does; "" for none.
    `split`: place and image name. `reads`, `writes`: what --via may say. `host`: it is found on this host, so no place is named, and
    `inventory` asks it; its module's `is_here` says, without asking it, whether it may be. `optional`: a place may be named, and is known
    where none is. `grows`: it keeps what it has when more is imported, so later imports may read from it and add to it.
    """

    name: str
    form: str
    module: str
    source: str = "open_source"
    sink: str = "open_sink"
    keeper: str = ""
    split: Split = path_and_name
    reads: tuple[str, ...] = ("auto",)
    writes: tuple[str, ...] = ("auto",)
    host: bool = False
    optional: bool = False
    grows: bool = True

    @property
    def is_here(self) -> bool:
        """Whether this host seems to have it, as far as this user can see."""
        try:
            return self.host and cast(Callable[[], bool], self._function("is_here"))()
        except OSError:
            return False

    def _function(self, name: str) -> object:
        return getattr(import_module(self.module), name)

    def open_source(self, place: str, options: SourceOptions) -> ImageSource:
        if not self.source:
            raise UsageError(f"{self.name}: cannot be read", hint=f"use one of {forms()}")
        self._allow("--via", options.via, self.reads)
        return cast(Callable[[str, SourceOptions], ImageSource], self._function(self.source))(place, options)

    def open_sink(self, place: str, options: SinkOptions) -> ImageSink:
        self._allow("--via", options.via, self.writes)
        return cast(Callable[[str, SinkOptions], ImageSink], self._function(self.sink))(place, options)

    def open_keeper(self, place: str, options: SourceOptions) -> Keeper:
        if not self.keeper:
            able = ", ".join(each.form for each in TRANSPORTS.values() if each.keeper)
            raise UsageError(f"names in {self.name}: cannot be changed one by one", hint=f"possible with {able}")
        return cast(Callable[[str, SourceOptions], Keeper], import_module(self.keeper).open_keeper)(place, options)

    def _allow(self, option: str, value: str, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            raise UsageError(
                f"{option} {value!r:.40} does not work with {self.name}:", hint=f"it accepts {', '.join(allowed)}"
            )


TRANSPORTS: dict[str, Transport] = {
    each.name: each
    for each in (
        Transport(
            "docker-daemon",
            "docker-daemon:[NAME]",
            "transfer.engines.docker",
            split=name_alone,
            reads=("auto", "files", "api"),
            writes=("auto", "pull", "load"),
            host=True,
            keeper="transfer.engines.docker_keeper",
        ),
        Transport(
            "docker",
            "docker://HOST/NAME[:TAG]",
            "transfer.engines.registry",
            split=registry_place,
            keeper="transfer.engines.registry_keeper",
        ),
        Transport(
            "podman",
            "podman:[NAME]",
            "transfer.engines.podman",
            split=podman_store,
            reads=("auto", "files", "api"),
            writes=("auto", "pull", "load"),
            host=True,
            keeper="transfer.engines.podman_keeper",
        ),
        Transport(
            "containerd",
            "containerd:[NAMESPACE/][NAME]",
            "transfer.engines.containerd",
            split=containerd_namespace,
            host=True,
            keeper="transfer.engines.containerd_keeper",
        ),
        Transport(
            "agent-images",
            "agent-images:[DIR]",
            "transfer.engines.agentimages",
            source="",
            split=place_alone,
            optional=True,
            grows=False,
        ),
        Transport("oci", "oci:DIR[:NAME]", "transfer.engines.ocilayout"),
        Transport(
            "docker-archive",
            "docker-archive:FILE[:NAME]",
            "transfer.engines.archive",
            sink="open_docker_sink",
            grows=False,
        ),
        Transport(
            "oci-archive", "oci-archive:FILE[:NAME]", "transfer.engines.archive", sink="open_oci_sink", grows=False
        ),
    )
}
ALIASES = {"containers-storage": "podman"}
"""What containers/image calls a transport that has another name here."""
DEFAULT = "docker-daemon:"
"""What is meant where no engine is named, if this host has a Docker; else see `usual`."""
REGISTRIES = "docker"
"""The transport of images in registries, as skopeo and containers/image call it."""


def forms(*, sinks: bool = False) -> str:
    """All that may be typed, for help texts and messages."""
    return ", ".join(each.form for each in TRANSPORTS.values() if (each.sink if sinks else each.source))


def usual() -> str:
    """The engine that is meant where none is named: Docker, or the only other one that this host has. UsageError where it has several."""
    docker, *others = [each for each in TRANSPORTS.values() if each.host]
    here = [each.name for each in others if not docker.is_here and each.is_here]
    if len(here) > 1:
        raise UsageError(
            f"no Docker is here, and there are several other engines: {', '.join(here)}",
            hint=f"name the one that is meant with --from or --to, for example {here[0]}:",
        )
    return f"{here[0]}:" if here else DEFAULT


@dataclass(frozen=True, slots=True)
class Location:
    """A --from or --to, taken apart: which engine, where it is, and the image's name (either may be empty)."""

    transport: Transport
    place: str
    name: str

    def __str__(self) -> str:
        return f"{self.transport.name}:{self.place}"

    def open_source(self, options: SourceOptions = SourceOptions()) -> ImageSource:  # noqa: B008 - frozen
        return self.transport.open_source(self.place, options)

    def open_sink(self, options: SinkOptions = SinkOptions()) -> ImageSink:  # noqa: B008 - frozen
        return self.transport.open_sink(self.place, options)


def locate(text: str) -> Location:
    """`oci:./x` taken apart; empty is the engine found here. UsageError for a transport that is not known, or a missing place."""
    name, colon, rest = (text or usual()).partition(":")
    transport = TRANSPORTS.get(ALIASES.get(name, name)) if colon else None
    if transport is None:
        every = ", ".join(each.form for each in TRANSPORTS.values())
        raise UsageError(f"{text!r:.200} names an unknown transport", hint=f"use one of {every}")
    place, image = transport.split(rest)
    if not place and not image and not transport.host and not transport.optional:
        raise UsageError(f"{text!r}: the path is missing", hint=f"use one of {forms()}")
    return Location(transport, place, image)


def found_here() -> Iterator[ImageSource]:
    """The engines of this host that answer, each open."""
    for transport in TRANSPORTS.values():
        if transport.is_here:
            try:
                yield transport.open_source("", SourceOptions())
            except TransferError:
                continue


def already_there(location: Location) -> ImageSource | None:
    """What a target holds already, where it can be read again."""
    if not location.transport.grows or not location.transport.source:
        return None
    try:
        return location.open_source()
    except NotFound:
        return None
