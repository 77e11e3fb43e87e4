"""What a kit is made of, for whoever has to answer for it: every wheel and Debian package with version, licence and source (CycloneDX 1.5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from transfer.kits.wheels import Wheel
from transfer.streams import parse_object


@dataclass(frozen=True, slots=True)
class DebianPart:
    """A package of which files are in the kit. `source`: the name of its source package, and its version where that is another one."""

    name: str
    version: str
    arch: str
    sha256: str
    source: str
    distribution: str = "debian"


def sbom(version: str, wheels: Iterable[Wheel], debs: Iterable[Mapping[str, Any]]) -> bytes:
    """The list, the same bytes each time. `debs`: as `deb` or `debs_of` give them."""
    components = [*(_wheel(each) for each in wheels), *sorted(debs, key=lambda each: str(each["purl"]))]
    value = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "transfer-appliance", "version": version}},
        "components": components,
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def debs_of(data: bytes, where: str) -> list[dict[str, Any]]:
    """The Debian packages in a list that was made before. FormatError for what is not one."""
    components = parse_object(data, where).get("components")
    found = [each for each in components if isinstance(each, dict)] if isinstance(components, list) else []
    return [each for each in found if str(each.get("purl", "")).startswith("pkg:deb/")]


def _wheel(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "name": wheel.name,
        "version": wheel.version,
        "licenses": [{"license": {"name": wheel.licence}}],
        "purl": f"pkg:pypi/{quote(wheel.name.lower().replace('_', '-'))}@{quote(wheel.version)}",
    }


def deb(part: DebianPart) -> dict[str, Any]:
    """One package in the list."""
    return {
        "type": "library",
        "name": part.name,
        "version": part.version,
        "hashes": [{"alg": "SHA-256", "content": part.sha256}],
        "licenses": [{"license": {"name": f"see licences/{part.name}"}}],
        "purl": f"pkg:deb/{part.distribution}/{quote(part.name)}@{quote(part.version)}?arch={part.arch}",
        "properties": _properties({"debian:source": part.source}),
    }


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]
