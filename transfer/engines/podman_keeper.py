"""Names of images in podman: given and taken, never the last one of an image that a container uses, nor a hidden one of its."""

from __future__ import annotations

from transfer.engines.base import Keeper, SourceOptions, refuse_ids
from transfer.engines.podman_client import Held, Podman
from transfer.errors import EngineError, NotFound, UsageError
from transfer.model import Digest, Reference, is_name
from transfer.streams import parse_json


def open_keeper(place: str, options: SourceOptions) -> Keeper:
    """Names in the podman found here; the place is a store of its."""
    return PodmanKeeper(Podman(place))


class PodmanKeeper:
    """See base.py, Keeper."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman
        assert podman.info
        self.where = podman.where

    def _image(self, name: str) -> tuple[Held, str]:
        """The image that has a name, and the name in full. What people call app:1 may be localhost/app:1 here."""
        if not is_name(name):
            raise UsageError(f"{name!r:.100} is not an image name", hint="name the image, with its tag")
        held = self._podman.images()
        for each in (str(Reference.parse(name)), f"localhost/{name}"):
            full = str(Reference.parse(each)) if is_name(each) else ""
            for image in held:
                if full in image.names or full in image.digests:
                    return image, full
        refuse_ids(name, [(each.id, each.names) for each in held])
        raise NotFound(
            f"{self.where} has no image {Reference.parse(name).familiar}", hint="`transfer images` lists what it has"
        )

    def tag(self, source: str, name: str) -> Digest:
        held, _ = self._image(source)
        target = Reference.parse(name)
        if target.digest:
            raise UsageError(f"{name}: a new name has a tag, not a digest")
        self._podman.run("tag", held.id.hex, str(target))
        if self._image(name)[0].id != held.id:
            raise EngineError(f"{self.where} did not give {target.familiar} to the image of {source}")
        return held.id

    def users(self, name: str) -> list[str]:
        """Also containers that buildah or CRI-O made: podman takes the last visible name of a used image away without a word."""
        held, _ = self._image(name)
        command = ("ps", "--all", "--external", "--no-trunc", "--filter", f"ancestor={held.id.hex}", "--format", "json")
        rows = parse_json(self._podman.run(*command) or b"[]", self.where, 64 << 20)
        found = [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
        return [
            f"{', '.join(map(str, each.get('Names') or [])) or str(each.get('Id'))[:12]} ({each.get('State', 'unknown')})"
            for each in found
        ]

    def untag(self, name: str) -> None:
        held, full = self._image(name)
        if len(held.names) + len(held.digests) > 1 and full in held.names and len(held.names) > 1:
            self._podman.run("untag", held.id.hex, full)
        else:
            self._podman.run("rmi", full)
        if any(full in (*each.names, *each.digests) for each in self._podman.images() if full in each.names):
            raise EngineError(f"{self.where} still has {full}")

    def close(self) -> None:
        """Nothing is kept open."""
