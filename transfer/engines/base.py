"""The contracts of engines: source, sink, and keeper of names. `blobs.py` derives most of the first two for places whose blobs have digests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

from transfer.engines.tree import PlatformImage
from transfer.errors import TransferError, UsageError
from transfer.events import Observer, silent
from transfer.model import Descriptor, Digest, Image, Platform
from transfer.streams import Readable


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How registries are reached. `plain_http`: without TLS; `verify`: certificates are checked; `wait`: seconds a registry may ask for in all.

    `mirrors`: those that this host's files name are asked first. `index`: what is pushed of an image for several platforms: "keep" it as it is, or a "platform" alone.
    """

    plain_http: bool = False
    verify: bool = True
    wait: float = 300.0
    index: str = "keep"
    mirrors: bool = True


Key = TypeVar("Key", bound=Hashable)
Status = Literal["imported", "present", "unheld"]
"""What became of an image. "unheld": an artifact, for an engine that has no place for what is not run."""


@dataclass(frozen=True, slots=True)
class SourceTraits:
    """What a source can do. `random_access`: any blob at any time; else one pass in the source's own order.

    `keeps_digest`: manifests are the original ones; else they are made anew around the original config.
    `host`: it holds whatever this host has, so nobody means all of it who names nothing.
    `remote`: bytes come over a network, so one platform is taken where nothing else is asked for.
    `lists`: it can say which images it has; else each has to be named. `ranges`: a blob can be opened in its middle at no cost.
    """

    random_access: bool
    keeps_digest: bool
    host: bool = False
    lists: bool = True
    ranges: bool = False
    remote: bool = False


@dataclass(frozen=True, slots=True)
class SinkTraits:
    """What a sink does. `keeps_digest`: the manifest digest survives.

    `parallel`: how many images it takes at once. `checks`: it hashes every layer itself and refuses a wrong one, so that nobody has to do it
    for it. `artifacts`: it takes what is no image to be run, such as a signature; `indexes`: all platforms of an image together.
    """

    keeps_digest: bool
    parallel: int = 1
    checks: bool = False
    artifacts: bool = False
    indexes: bool = False


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is to be opened. `via`: one of its ways to be read, or "auto". `pinned`: a pinned image's name may be taken away."""

    via: str = "auto"
    observer: Observer = silent
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    pinned: bool = False


def cannot_publish(image: PlatformImage | Image) -> str:
    """Where no registry can be started beside the engine."""
    raise UsageError("this engine cannot pull from this process", hint="use --via load")


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How a sink is to be opened. `via`: one of its ways to take images, or "auto".

    `publish` makes a platform's part of an image available for a pull from this process and gives the reference to pull it by; `offer`
    makes it available as it is, and gives a repository in which every tag means it.
    `only_look`: nothing is changed there; for whoever asks what an import would do. `pin`: where a collector deletes images that
    nothing runs, it is told to leave these alone.
    """

    platform: Platform | None = None
    via: str = "auto"
    publish: Callable[[PlatformImage], str] = cannot_publish
    offer: Callable[[Image], str] = cannot_publish
    observer: Observer = silent
    only_look: bool = False
    pin: bool = True
    registry: RegistryOptions = field(default_factory=RegistryOptions)


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of an engine, for people: names, what the engine calls it, size in bytes, age, number of layers."""

    names: tuple[str, ...]
    id: Digest
    size: int
    created: int
    layers: int


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image picked for export: the engine's own identity of it (a root's or a config's digest), fixed at the start.

    `layers` are (digest, bytes) as far as known before reading; `size` is all of it, an estimate where they are not. `notes` are for people.
    """

    names: tuple[str, ...]
    id: Digest
    size: int
    layers: tuple[tuple[Digest, int], ...] = ()
    root: Descriptor | None = None
    platform: Platform | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlobStream:
    """One blob a source hands out, to be opened before the next is taken. `open(start)` gives its bytes from there on.

    What is known of it before it is read: its digest, size (bytes) and media type, and a layer's diffID (the digest of its bytes
    uncompressed). One whose digest is not known is opened once, from its start; whoever read it calls `on_digest` with what it found.
    """

    is_document: bool
    open: Callable[[int], Readable]
    digest: Digest | None = None
    size: int | None = None
    media_type: str = ""
    diff_id: Digest | None = None
    on_digest: Callable[[Digest], None] | None = None

    @property
    def descriptor(self) -> Descriptor | None:
        """The blob's descriptor, if all of it is known."""
        if self.digest is None or self.size is None:
            return None
        return Descriptor(self.media_type, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """How an image arrived. `id` is what the engine calls it now."""

    image: Image
    status: Status
    id: Digest
    names: tuple[str, ...] = ()
    layers_sent: int = 0
    layers_present: int = 0
    note: str = ""
    moved: tuple[tuple[str, Digest], ...] = ()
    """Names it took from another image, and what that one is called there."""


class ImageSource(Protocol):
    """Where images come from. Errors: NotFound, EngineError, TryAgain, FormatError, Damaged, and no others."""

    @property
    def traits(self) -> SourceTraits: ...

    @property
    def where(self) -> str: ...

    def names(self, pattern: str = "") -> list[Listed]:
        """Everything it holds. With a `pattern` (a glob) it may leave out what does not match, where asking for less is cheaper."""
        ...

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        """The image a name, digest or ID prefix means. NotFound says what is there instead."""
        ...

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        """Every blob these images reach, each once; one whose digest is learned only by reading may come again."""
        ...

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """After `read`: the images as they travel. May make documents, which are then added to `documents`."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Referred(Protocol):
    """A source that knows what refers to an image: signatures, SBOMs, attestations."""

    def referrers(self, image: ResolvedImage) -> list[ResolvedImage]:
        """Whatever refers to the image, or to what does, as images of their own."""
        ...


@runtime_checkable
class Runs(Protocol):
    """A source whose images are run where they are."""

    @property
    def platform(self) -> Platform:
        """What runs there."""
        ...

    def platforms(self, image: ResolvedImage) -> list[Platform]:
        """Those of the image that are there with all their content."""
        ...

    def is_kept(self, image: ResolvedImage) -> bool:
        """Whether the engine leaves the image alone when it makes room."""
        ...


class Content(Protocol):
    """What a sink may ask of the bundle that is being imported."""

    def document(self, digest: Digest) -> bytes: ...

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """A layer's blocks from `start` on; Damaged before the last one if they are not what the digest says."""
        ...

    def plain(self, layer: Descriptor, diff_id: Digest) -> Descriptor:
        """The layer uncompressed, where that is to be had for less; else the layer itself. For whoever takes either."""
        ...


class OtherFailed(TransferError):
    """A layer that another image was to bring does not come: this one has to bring it."""


class Turn(Protocol):
    """One image's share of what several images lack that land at once: a layer that two of them need is sent by one."""

    def claim(self, lacking: Callable[[], Iterable[Key]]) -> frozenset[Key]:
        """Which of these this image has to bring. `lacking` is asked while no other image claims anything; the others' come with them."""
        ...

    def wait(self) -> None:
        """Until the others have brought theirs. OtherFailed if one of them did not: then the image is put once more."""
        ...


class Alone:
    """The turn of an image that lands by itself."""

    def claim(self, lacking: Callable[[], Iterable[Key]]) -> frozenset[Key]:
        return frozenset(lacking())

    def wait(self) -> None:
        return


ALONE = Alone()


class Keeper(Protocol):
    """Gives and takes names in an engine, by name alone: never by an ID, which can mean several. Errors: NotFound, InUse, EngineError, UsageError."""

    @property
    def where(self) -> str: ...

    def tag(self, source: str, name: str) -> Digest:
        """Give an image one more name; what the engine calls that image. It was asked afterwards."""
        ...

    def users(self, name: str) -> list[str]:
        """The containers that use the image. NotFound if nothing has the name; InUse if it is pinned; UsageError for what is no name of the engine's."""
        ...

    def untag(self, name: str) -> None:
        """Take a name away; the engine collects what nothing names any more. NotFound if nothing has it."""
        ...

    def close(self) -> None: ...


def is_id(text: str, names: Sequence[str]) -> UsageError:
    """What is said of an ID where a name has to stand; `names` are those of the image it means."""
    return UsageError(
        f"{text} is an ID here, and an ID can have several names",
        hint=f"name one of {', '.join(names) or 'none'}"[:300],
    )


def refuse_ids(text: str, held: Iterable[tuple[Digest, Sequence[str]]]) -> None:
    """UsageError if what is no name of any image is the beginning of an image's ID (six digits or more)."""
    beginning = text.removeprefix("sha256:")
    for digest, names in held if len(beginning) >= 6 else ():
        if digest.hex.startswith(beginning):
            raise is_id(text, names)


class ImageSink(Protocol):
    """Where images go. Nothing of an image is visible before `put` has it whole."""

    @property
    def traits(self) -> SinkTraits: ...

    @property
    def where(self) -> str: ...

    @property
    def platform(self) -> Platform | None:
        """What runs there. None: it keeps images of all platforms, and several may have one name."""
        ...

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        """Those of the names that another image has there, and which (as it calls images). Roots in `beside` may share them."""
        ...

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        """The layers it would need sent, in order; None if the image is there already."""
        ...

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        """Take the image and give it its names. Doing it again is harmless.

        A sink that takes several images at once claims from `turn` what it lacks, before anything is sent.
        """
        ...

    def close(self, *, failed: bool) -> None:
        """After the last image. A sink that writes one file publishes it here, unless `failed`."""
        ...
