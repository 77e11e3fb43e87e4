"""Names of images in Docker: given and taken one by one, never of an image that a container uses."""

from __future__ import annotations

import json
from typing import Any

from transfer.engines.base import Keeper, SourceOptions, is_id
from transfer.engines.daemon import DockerClient
from transfer.errors import EngineError, NotFound, UsageError
from transfer.model import Digest, Reference, is_name


def open_keeper(place: str, options: SourceOptions) -> Keeper:
    """Names in the daemon that DOCKER_HOST names, or the one found here."""
    return DockerKeeper(DockerClient())


class DockerKeeper:
    """See base.py, Keeper."""

    def __init__(self, client: DockerClient) -> None:
        self._client, self.where = client, client.where

    def _image(self, name: str) -> tuple[Reference, dict[str, Any]]:
        """The image that has a name. UsageError if the engine understands it as an ID."""
        if not is_name(name):
            raise UsageError(f"{name!r:.100} is not an image name", hint="name the image, with its tag")
        wanted = Reference.parse(name)
        found = self._client.inspect(name)
        if found is None:
            raise NotFound(f"{self.where} has no image {wanted.familiar}", hint="`transfer images` lists what it has")
        names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
        if wanted.familiar not in names and str(wanted) not in names:
            raise is_id(name, names)
        return wanted, found

    def tag(self, source: str, name: str) -> Digest:
        _, found = self._image(source)
        target = Reference.parse(name)
        if target.digest:
            raise UsageError(f"{name}: a new name has a tag, not a digest")
        repository = target.repository
        self._client.do("POST", f"/images/{found['Id']}/tag", repo=repository, tag=target.tag)
        now = self._client.inspect(target.familiar)
        if now is None or now["Id"] != found["Id"]:
            raise EngineError(f"{self.where} did not give {target.familiar} to the image of {source}")
        return Digest.parse(found["Id"], self.where)

    def users(self, name: str) -> list[str]:
        _, found = self._image(name)
        filters = json.dumps({"ancestor": [found["Id"]]})
        listed = self._client.get("/containers/json", all="1", filters=filters)
        if not isinstance(listed, list):
            raise EngineError(f"{self.where}: its list of containers cannot be read")
        out = []
        for each in listed:
            if isinstance(each, dict) and each.get("ImageID") == found["Id"]:
                names = [str(text).lstrip("/") for text in each.get("Names") or []]
                out.append(f"{', '.join(names) or str(each.get('Id'))[:12]} ({each.get('State', 'unknown')})")
        return out

    def untag(self, name: str) -> None:
        wanted, _ = self._image(name)
        self._client.do("DELETE", f"/images/{wanted.familiar}", force="0", noprune="0")
        if self._client.inspect(wanted.familiar) is not None:
            raise EngineError(f"{self.where} still has {wanted.familiar}")

    def close(self) -> None:
        self._client.close()
