"""Members of a JSON object by their type: FormatError names the one that is another."""

from __future__ import annotations

from typing import Any

from transfer.errors import FormatError


def list_in(value: dict[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise FormatError(f"{where}: {key} is not a list")
    return found


def object_in(value: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise FormatError(f"{where}: {key} is not an object")
    return found


def strings_in(value: dict[str, Any], key: str, where: str) -> list[str]:
    found = list_in(value, key, where)
    if not all(isinstance(each, str) for each in found):
        raise FormatError(f"{where}: {key} are strings")
    return found


def number_in(value: dict[str, Any], key: str, where: str) -> int:
    found = value.get(key)
    if type(found) is not int or not 0 <= found < 1 << 60:
        raise FormatError(f"{where}: {key} is not a number in range")
    return found
