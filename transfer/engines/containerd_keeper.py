"""Names of images in a containerd: given and taken, never of an image that a container uses, nor of a pinned one unless that is meant."""

from __future__ import annotations

from transfer.engines.base import Keeper, SourceOptions, refuse_ids
from transfer.engines.containerd_sink import PINS, by_digest
from transfer.engines.ctr import Ctr, Name
from transfer.errors import EngineError, InUse, NotFound, UsageError
from transfer.model import Digest, Reference, is_name


def open_keeper(place: str, options: SourceOptions) -> Keeper:
    """Names in the containerd found here; the place is a namespace."""
    return ContainerdKeeper(Ctr(place), pinned=options.pinned)


class ContainerdKeeper:
    """See base.py, Keeper. `pinned`: an image that is pinned may go too."""

    def __init__(self, ctr: Ctr, *, pinned: bool = False) -> None:
        ctr.known()
        self._ctr, self.where, self._pinned = ctr, ctr.where, pinned

    def _image(self, name: str) -> Name:
        """The image that has a name, in full or as it is written."""
        if not is_name(name):
            raise UsageError(f"{name!r:.100} is not an image name", hint="name the image, with its tag")
        wanted = Reference.parse(name)
        there = {each.name: each for each in self._ctr.images()}
        found = there.get(str(wanted)) or there.get(wanted.familiar)
        if found is None:
            refuse_ids(name, [(each.digest, [each.name]) for each in there.values()])
            raise NotFound(f"{self.where} has no image {wanted.familiar}", hint="`transfer images` lists what it has")
        return found

    def tag(self, source: str, name: str) -> Digest:
        found, target = self._image(source), Reference.parse(name)
        if target.digest:
            raise UsageError(f"{name}: a new name has a tag, not a digest")
        self._ctr.tag(found.name, str(target))
        if "pinned" in found.labels.get("io.cri-containerd.pinned", ""):
            self._ctr.label(str(target), PINS)
        if self._image(str(target)).digest != found.digest:
            raise EngineError(f"{self.where} did not give {target.familiar} to the image of {source}")
        return found.digest

    def users(self, name: str) -> list[str]:
        found = self._image(name)
        if found.labels.get("io.cri-containerd.pinned") == "pinned" and not self._pinned:
            raise InUse(f"{name} is pinned in {self.where}", hint="add --pinned to remove it all the same")
        names = {each.name for each in self._ctr.images() if each.digest == found.digest}
        return [f"container {each}" for each, image in self._ctr.containers().items() if image in names]

    def untag(self, name: str) -> None:
        found = self._image(name)
        self._ctr.remove(found.name)
        left = {each.name for each in self._ctr.images() if each.digest == found.digest}
        pin, wanted = by_digest(found.name, found.digest), Reference.parse(found.name)
        tagged = f"{wanted.domain}/{wanted.path}:"
        if pin in left and not any(each.startswith(tagged) for each in left):
            self._ctr.remove(pin)  # it came with the tag
        if found.name in left:
            raise EngineError(f"{self.where} still has {found.name}")

    def close(self) -> None:
        """Nothing is kept open."""
