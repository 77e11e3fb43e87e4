"""Which images a compose file, Kubernetes manifests or a TOML set need.

The files are somebody else's: no tag makes an object, no key stands twice, nothing outside of the file's folder is read, and what a few
bytes can expand to is bounded.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transfer.errors import UsageError
from transfer.flows.charts import IMAGES
from transfer.model import Reference, is_name
from transfer.streams import open_plain

FILE_MAX = 2 << 20
NODES_MAX = 200_000
DEPTH_MAX = 60
FILES_MAX = 100
_VARIABLE = re.compile(
    r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])((?:[^{}]|\{[^{}]*\})*))?\}|([A-Za-z_][A-Za-z0-9_]*))"
)
_BESIDE = frozenset({"name", "command", "args", "imagePullPolicy", "ports", "env"})
"""What stands beside `image` in a container of any kind of resource."""
_LOOKS_LIKE = re.compile(r"[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][\w.-]*(@sha256:[0-9a-f]{64})?")


@dataclass
class Picks:
    """`names`: what is needed, each once, in the order in which it was found, and where. `passed`: what looked like an image and was not taken.

    `asking`: those of the names whose registry is asked whenever they start, and where that is said.
    """

    names: dict[str, str] = field(default_factory=dict)
    asking: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)

    def take(self, name: str, where: str) -> None:
        """UsageError for what cannot be an image."""
        if not is_name(name):
            raise UsageError(f"{where}: {name!r:.200} is not the name of an image")
        self.names.setdefault(name, where)


def picks(
    files: Sequence[Path],
    profiles: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    given: Mapping[str, bytes] = MappingProxyType({}),
    charts: Mapping[str, bytes] = MappingProxyType({}),
    deep: bool = False,
) -> Picks:
    """What all these files need. UsageError names the file that cannot be read, and what is wrong with it.

    `given`: what did not come out of a file, by what it is called in messages. `charts`: Chart.yaml files, whose lists of images count.
    `deep`: what only looks like an image is taken, too.
    """
    found = _Reading(profiles, environ, deep)
    for label, data in given.items():
        found.given(data, label)
    for label, data in charts.items():
        found.chart(data, label)
    for path in files:
        found.read(path, path.absolute().parent)
    return found.picks


class _Reading:
    """One selection on its way."""

    def __init__(self, profiles: Sequence[str], environ: Mapping[str, str], deep: bool) -> None:
        self.picks = Picks()
        self._profiles, self._environ, self._deep = frozenset(profiles), environ, deep
        self._files: set[Path] = set()

    def read(self, path: Path, folder: Path) -> None:
        """A file, by what is in it. One that was read already is passed over."""
        text = self._text(path, folder)
        if text is None:
            return
        if path.suffix == ".toml":
            self._toml(text, path, folder)
            return
        self._documents(text, path, folder)

    def _documents(self, text: str, path: Path, folder: Path) -> None:
        for document in list(_yaml(text, path)):
            if isinstance(document, dict) and isinstance(document.get("services"), dict):
                self._compose(document, path, folder)
            else:
                self._kubernetes(document, str(path))

    def given(self, data: bytes, label: str) -> None:
        """A text that is no file; what it includes is looked for in the working folder."""
        self._documents(_text(data, label), Path(label), Path())

    def chart(self, data: bytes, label: str) -> None:
        """The images that the author of a chart lists in its annotations."""
        for value in _yaml(_text(data, label), Path(label)):
            notes = value.get("annotations") if isinstance(value, dict) else None
            for key in IMAGES if isinstance(notes, dict) else ():
                listed = notes.get(key) if isinstance(notes, dict) else None
                for one in _yaml(listed, Path(label)) if isinstance(listed, str) else ():
                    for each in _as_list(one):
                        image = each.get("image") if isinstance(each, dict) else each
                        if isinstance(image, str):
                            self.picks.take(image, f"{label}: {key}")

    def _text(self, path: Path, folder: Path) -> str | None:
        """The file's text; None if it was read before. UsageError for one outside of the folder of the file that was named."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(Path(os.path.realpath(folder))):
            raise UsageError(f"{path} is outside of {folder}", hint="name that file itself with -f, if it is meant")
        if real in self._files:
            return None
        self._files.add(real)
        if len(self._files) > FILES_MAX:
            raise UsageError(f"{path}: more than {FILES_MAX} files include each other")
        with open_plain(path, follow=True) as file:
            return _text(file.read(FILE_MAX + 1), str(path))

    # compose (https://github.com/compose-spec/compose-spec)

    def _compose(self, value: dict[str, Any], path: Path, folder: Path) -> None:
        variables = {**self._env_file(path.parent / ".env", folder), **self._environ}
        for each in _as_list(value.get("include")):
            for one in _as_list(each.get("path") if isinstance(each, dict) else each):
                self.read(path.parent / _filled(str(one), variables, str(path)), folder)
        for name, service in (value.get("services") or {}).items():
            where = f"{path}: service {name}"
            if not isinstance(service, dict):
                raise UsageError(f"{where} is not a mapping")
            wanted = {str(each) for each in _as_list(service.get("profiles"))}
            if wanted and not wanted & self._profiles:
                self.picks.passed.append(f"{where}: only with --profile {' or '.join(sorted(wanted))}")
                continue
            image = self._image_of(service, value, path, folder, 0)
            if image:
                name = _filled(image, variables, where)
                self.picks.take(name, where)
                if service.get("pull_policy") in ("always", "daily", "weekly"):
                    self.picks.asking.setdefault(name, f"{where}: pull_policy: {service['pull_policy']}")
            elif "build" in service:
                self.picks.passed.append(f"{where}: is built and has no image name")
            else:
                self.picks.passed.append(f"{where}: has no image")

    def _image_of(self, service: dict[str, Any], value: dict[str, Any], path: Path, folder: Path, depth: int) -> str:
        """Its own image, or that of the service it extends."""
        if isinstance(service.get("image"), str):
            return str(service["image"])
        extended = service.get("extends")
        if extended is None or depth > 10:
            return ""
        if isinstance(extended, str):
            extended = {"service": extended}
        if not isinstance(extended, dict):
            raise UsageError(f"{path}: extends is neither a name nor a mapping")
        if extended.get("file"):
            path = path.parent / str(extended["file"])
            self._files.discard(Path(os.path.realpath(path)))
            text = self._text(path, folder) or ""
            value = next((each for each in _yaml(text, path) if isinstance(each, dict)), {})
        found = (value.get("services") or {}).get(extended.get("service"))
        return self._image_of(found, value, path, folder, depth + 1) if isinstance(found, dict) else ""

    def _env_file(self, path: Path, folder: Path) -> dict[str, str]:
        """The variables of a .env file beside the compose file; none if there is no such file, or another file read it."""
        text = self._text(path, folder) if path.is_file() else None
        self._files.discard(Path(os.path.realpath(path)))
        return _variables(text or "")

    # Kubernetes

    def _kubernetes(self, document: object, where: str) -> None:
        if isinstance(document, dict) and document.get("kind") == "CustomResourceDefinition":
            return
        kind = document.get("kind", "document") if isinstance(document, dict) else "document"
        metadata = document.get("metadata") if isinstance(document, dict) else None
        name = metadata.get("name", "") if isinstance(metadata, dict) else ""
        place = f"{where}: {kind} {name}".rstrip()
        for mapping in _mappings(document, where):
            image = mapping.get("image")
            if isinstance(image, str) and image.strip():
                if _BESIDE & mapping.keys():
                    self.picks.take(image.strip(), place)
                    self._asking(image.strip(), mapping.get("imagePullPolicy"), place)
                else:
                    self._maybe(image.strip(), place, "image")
            elif isinstance(image, dict) and isinstance(image.get("reference"), str):
                self.picks.take(image["reference"], place)
            self._hints(mapping, place)

    def _asking(self, name: str, policy: object, place: str) -> None:
        """Whether the kubelet asks the registry each time: it does for :latest where nothing else is said."""
        wanted = Reference.parse(name)
        if policy == "Always":
            self.picks.asking.setdefault(name, f"{place}: imagePullPolicy: Always")
        elif policy is None and wanted.tag == "latest" and not wanted.digest:
            self.picks.asking.setdefault(name, f"{place}: the tag latest and no imagePullPolicy, which means Always")

    def _hints(self, mapping: Mapping[str, Any], place: str) -> None:
        """What only looks like an image: arguments, values of variables, and a repository with a tag, as values files have it."""
        repository, tag = mapping.get("repository"), mapping.get("tag")
        if isinstance(repository, str) and isinstance(tag, str | int | float) and not isinstance(tag, bool):
            host = mapping.get("registry")
            self._maybe(
                f"{f'{host}/' if isinstance(host, str) and host else ''}{repository}:{tag}", place, "repository"
            )
        for key, each in mapping.items():
            for text in each if isinstance(each, list) else (each,):
                if isinstance(text, str) and key not in ("image", "reference"):
                    word = text.partition("=")[2] if text.startswith("-") else text
                    if "/" in word and _LOOKS_LIKE.fullmatch(word):
                        self._maybe(word, place, str(key))

    def _maybe(self, name: str, place: str, key: str) -> None:
        """With `deep` it is taken, if it can be an image; else it is told."""
        if self._deep and is_name(name):
            self.picks.take(name, place)
        else:
            self.picks.passed.append(f"{place}: {key:.40}: {name:.200}")

    # sets

    def _toml(self, text: str, path: Path, folder: Path) -> None:
        try:
            value = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: {error}") from error
        unknown = value.keys() - {"image", "include", "files"}
        if unknown:
            raise UsageError(
                f"{path}: unknown setting {min(unknown)!r:.60}", hint="a set has [[image]], include, files"
            )
        for number, each in enumerate(_as_list(value.get("image")), 1):
            if not isinstance(each, dict) or not isinstance(each.get("name"), str) or each.keys() - {"name"}:
                raise UsageError(
                    f"{path}: image {number} needs a name, and nothing else", hint='[[image]]\nname = "app:1"'
                )
            self.picks.take(each["name"], str(path))
        for each in (*_as_list(value.get("include")), *_as_list(value.get("files"))):
            self.read(path.parent / str(each), folder)


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _yaml(text: str, path: Path) -> Iterator[object]:
    """All documents of a YAML file. UsageError for what is malformed, has a key twice, or makes objects."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
            twice = {key for key in keys if keys.count(key) > 1} if len(keys) < 1000 else set()
            if twice:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {min(twice)!r:.60} stands twice", problem_mark=node.start_mark
                )
            return super().construct_mapping(node, deep=deep)

    try:
        yield from yaml.load_all(text, Loader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())[:300]}") from error


def _mappings(value: object, where: str) -> Iterator[dict[str, Any]]:
    """Every mapping inside, each once however often an alias names it."""
    seen: set[int] = set()
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if not isinstance(each, dict | list) or id(each) in seen:
            continue
        seen.add(id(each))
        if len(seen) > NODES_MAX or depth > DEPTH_MAX:
            raise UsageError(f"{where}: nested too deeply, or too much of it")
        if isinstance(each, dict):
            yield each
            waiting += [(inner, depth + 1) for inner in reversed(list(each.values()))]
        else:
            waiting += [(inner, depth + 1) for inner in reversed(each)]


def _text(data: bytes, label: str) -> str:
    """UsageError for what is too long, or no text."""
    if len(data) > FILE_MAX:
        raise UsageError(f"{label} is larger than {FILE_MAX} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{label} is not UTF-8 text") from error


def _variables(text: str) -> dict[str, str]:
    """The lines of a .env file."""
    out = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            out[name.strip()] = value[1:-1] if quoted else value.partition(" #")[0].rstrip()
    return out


def _filled(text: str, variables: Mapping[str, str], where: str, depth: int = 0) -> str:
    """Variables as compose writes them: $A, ${A}, ${A:-default}, ${A:?error}, ${A:+other}, $$. UsageError for one that is not set."""
    if depth > 5:
        raise UsageError(f"{where}: variables inside of variables without end")

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name, operator, other = match[2] or match[5], match[3] or "", match[4] or ""
        known = variables.get(name)
        is_set = known is not None and (known != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            return _filled(other, variables, where, depth + 1) if is_set else ""
        if is_set:
            return str(known)
        if operator.endswith("-"):
            return _filled(other, variables, where, depth + 1)
        why = f": {other:.100}" if operator.endswith("?") and other else ""
        raise UsageError(
            f"{where}: the variable {name} is not set{why}", hint=f"set it, or write it into .env: {name}=..."
        )

    return _VARIABLE.sub(value, text)
