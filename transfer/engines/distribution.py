"""One registry's API (OCI distribution-spec 1.1): manifests, blobs by range, lists, referrers.

Bytes are never believed here: whoever reads a blob checks it against the digest that was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from transfer.engines.http import failing, without
from transfer.engines.session import Session
from transfer.errors import Damaged, EngineError, FormatError, NotFound
from transfer.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest
from transfer.streams import coalesced, parse_object, sha256

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
LISTED_MAX, PAGES_MAX = 100_000, 1000


class RegistryClient(Session):
    """One registry, by repository."""

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes] | None:
        """A manifest or index by tag or digest, with the digest of the bytes that came; None if it is not there."""
        path = f"/v2/{repository}/manifests/{reference}"
        reply = self.request("GET", path, scope=pull(repository), headers={"Accept": ACCEPT})
        if reply.status == 404:
            return None
        data = reply.content
        digest = sha256(data)
        if reference.startswith("sha512:"):
            digest = Digest(f"sha512:{hashlib.sha512(data).hexdigest()}")
        if ":" in reference and str(digest) != reference:
            raise Damaged(f"{self.where}: {repository}@{reference} has other content: {digest}")
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip()
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            media_type = str(json.loads(data).get("mediaType") or media_type)
        return Descriptor(media_type, digest, len(data)), data

    def head_manifest(self, repository: str, reference: str, scope: str = "") -> str | None:
        """The digest that a tag has, as the registry says; None for none. For comparison alone: a header is not believed."""
        path = f"/v2/{repository}/manifests/{reference}"
        scope, headers = scope or pull(repository), {"Accept": ACCEPT}
        reply = self.request("HEAD", path, scope=scope, headers=headers)
        if reply.status == 404:
            return None
        told = str(reply.headers.get("docker-content-digest", ""))
        if told:
            return told
        whole = self.request("GET", path, scope=scope, headers=headers)  # the header is no duty (distribution-spec)
        return None if whole.status == 404 else str(sha256(whole.content))

    def has_blob(self, repository: str, digest: Digest, scope: str = "") -> bool:
        path = f"/v2/{repository}/blobs/{digest}"
        return self.request("HEAD", path, scope=scope or pull(repository)).status != 404

    @contextlib.contextmanager
    def blob(self, repository: str, blob: Descriptor, start: int) -> Iterator[Iterator[bytes]]:
        """A blob's bytes from `start` on. One that ignores the range is read and passed over."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"/v2/{repository}/blobs/{blob.digest}"
        ok = frozenset({200, 206, 404, 416})
        with self.stream("GET", path, scope=pull(repository), headers=headers, ok=ok) as reply:
            if reply.status_code == 404:
                raise NotFound(f"{self.where}: {repository} has no blob {blob.digest}")
            skip = start
            if reply.status_code == 206:
                if not reply.headers.get("content-range", "").startswith(f"bytes {start}-"):
                    raise EngineError(f"{self.where}: it answers with another range than was asked for")
                skip = 0
            elif reply.status_code == 416:
                raise FormatError(f"{self.where}: blob {blob.digest} has fewer than {start} bytes")
            yield without(coalesced(reply.iter_raw()), skip)

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor] | None:
        """The manifests whose subject a digest is, as the registry lists them; None where it has no such list (OCI 1.1).

        A registry without the list keeps it under a tag: see `fallback`.
        """
        found = self._listed(f"/v2/{repository}/referrers/{digest}", "manifests", pull(repository))
        return None if found is None else [self._described(each) for each in found]

    def fallback(self, repository: str, digest: Digest) -> dict[str, Any]:
        """The same as clients keep it: the index under a tag made of the digest (distribution-spec, referrers tag schema); {} for none."""
        found = self.manifest(repository, fallback_tag(digest))
        return parse_object(found[1], f"{self.where}: {repository}:{fallback_tag(digest)}") if found else {}

    def _described(self, value: object) -> Descriptor:
        return Descriptor.parse(value, f"{self.where}: its list of referrers")

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository; none if it is not there."""
        return self._names(f"/v2/{repository}/tags/list", "tags", pull(repository))

    def catalog(self) -> list[str]:
        """All repositories, where the registry tells."""
        return self._names("/v2/_catalog", "repositories", "registry:catalog:*")

    def _names(self, path: str, key: str, scope: str) -> list[str]:
        return [each for each in self._listed(path, key, scope) or () if isinstance(each, str) and len(each) < 300]

    def _listed(self, path: str, key: str, scope: str) -> list[object] | None:
        """A list, page by page; None for one that is not there."""
        out: list[object] = []
        for page in range(PAGES_MAX):
            reply = self.request("GET", path, scope=scope)
            if reply.status == 404:
                return out if page else None
            with failing(self.where, _REACH):
                value = json.loads(reply.content)
            found = value.get(key) if isinstance(value, dict) else None
            if found is not None and not isinstance(found, list):
                raise EngineError(f"{self.where}: its list of {key} is not a list")
            out += found or []
            following = re.match(r"\s*<([^>]*)>\s*;.*rel=\"?next\"?", reply.headers.get("link", ""))
            if not following or not found or len(out) > LISTED_MAX:
                return out
            path = self.joined(path, following[1])
            if not self.is_own(path):
                raise EngineError(f"{self.where}: its list of {key} goes on at another host, which is refused")
        return out


_REACH = "tell the administrator of the registry"


def fallback_tag(digest: Digest) -> str:
    """The tag under which the referrers of a digest are listed where the registry keeps no list."""
    return f"{digest.algorithm}-{digest.hex}"


def pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def delete(repository: str) -> str:
    return f"repository:{repository}:delete"
