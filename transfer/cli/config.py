"""The configuration file: defaults for options, and named targets for `ship`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transfer.errors import NotFound, UsageError
from transfer.folders import config_folder

VARIABLE = "TRANSFER_CONFIG"
SYSTEM = Path("/etc/transfer.toml")
TARGET_KEYS = ("to", "identity", "host-key", "remote", "limit-rate", "ssh", "ssh-config", "import", "site")
FILE_MAX = 1 << 20
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Config:
    """What the files say. `options`: defaults by their long names; `commands`: those of one command alone; `targets` by name."""

    options: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def places() -> list[Path]:
    """The files that are read, the later before the earlier: the one TRANSFER_CONFIG names ("none" for none), else the system's and the user's."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return [] if named == "none" else [Path(named)]
    own = config_folder()
    return [SYSTEM, *([own / "transfer.toml"] if own else [])]


def load() -> Config:
    """All files together. UsageError for one that cannot be read or is malformed; one that is named and is not there is an error, too."""
    options: dict[str, Any] = {}
    commands: dict[str, dict[str, Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    read = []
    for path in places():
        value = _read(path)
        if value is None:
            continue
        read.append(path)
        for key, each in value.items():
            if key == "target":
                for name, target in _tables(each, path, key).items():
                    targets.setdefault(name, {}).update(_known(target, TARGET_KEYS, path, f"target.{name}"))
            elif isinstance(each, dict):
                commands.setdefault(key, {}).update(each)
            else:
                options[key] = each
    return Config(options, commands, targets, tuple(read))


def _read(path: Path) -> dict[str, Any] | None:
    from transfer.streams import open_plain

    try:
        with open_plain(path, follow=True) as file:
            return tomllib.loads(file.read(FILE_MAX).decode())
    except NotFound:
        if os.environ.get(VARIABLE):
            raise UsageError(f"{VARIABLE} names {path}, which does not exist") from None
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a configuration file: {error}", hint="docs/configuration.md") from error


def _tables(value: object, path: Path, key: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise UsageError(f"{path}: write targets as [{key}.NAME]", hint="docs/configuration.md")
    return value


def _known(table: dict[str, Any], keys: tuple[str, ...], path: Path, where: str) -> dict[str, Any]:
    for key, value in table.items():
        if key not in keys:
            raise UsageError(f"{path}: [{where}] has no setting {key!r:.60}", hint=f"it can have {', '.join(keys)}")
        if not isinstance(value, bool if key == "import" else str):
            raise UsageError(f"{path}: {key} of [{where}] is not {'true or false' if key == 'import' else 'a text'}")
    return table


def default_map(config: Config, root: Any) -> dict[str, Any]:
    """Defaults for every command, as Click takes them (`root` is the group of all; Typer has a Click of its own). UsageError for an option that no command has, or a command that does not exist."""
    where = ", ".join(map(str, config.files))
    unknown = config.commands.keys() - root.commands.keys()
    if unknown:
        raise UsageError(f"{where}: there is no command {min(unknown)!r:.60}", hint="docs/configuration.md")
    unused = set(config.options)
    out = {
        name: _defaults(name, command, config.options, config.commands.get(name, _NONE), unused, where)
        for name, command in root.commands.items()
    }
    if unused:
        raise UsageError(
            f"{where}: no command has an option {min(unused)!r:.60}", hint="docs/configuration.md lists the settings"
        )
    return out


def _defaults(
    name: str,
    command: Any,
    common: Mapping[str, Any],
    own: Mapping[str, Any],
    unused: set[str],
    where: str,
) -> dict[str, Any]:
    """One command's, by the names of its parameters; what it has of `common` is taken out of `unused`."""
    known = {opt.lstrip("-"): param for param in command.params for opt in param.opts if opt.startswith("--")}
    wrong = own.keys() - known.keys()
    if wrong:
        raise UsageError(f"{where}: `{name}` has no option {min(wrong)!r:.60}", hint=f"transfer {name} --help")
    merged = {key: value for key, value in {**common, **own}.items() if key in known}
    unused.difference_update(merged)
    out: dict[str, Any] = {str(known[key].name): value for key, value in merged.items()}
    if hasattr(command, "commands"):
        for inner, each in command.commands.items():
            out[inner] = _defaults(f"{name} {inner}", each, common, _NONE, unused, where)
    return out
