"""Tests keep to themselves: nothing of the machine they run on is read or touched, and each says what it could not test."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

KEPT = {"TRANSFER_MUST_TEST", "TRANSFER_THOROUGH"}
for _name in list(os.environ):
    if _name.startswith(("TRANSFER_", "DOCKER_", "XDG_", "TQDM_")) and _name not in KEPT:
        del os.environ[_name]
for _name in ("SOURCE_DATE_EPOCH", "SSH_AUTH_SOCK", "REGISTRY_AUTH_FILE", "COLUMNS"):
    os.environ.pop(_name, None)
os.environ["TRANSFER_STORE"] = "none"
os.environ["TRANSFER_CONFIG"] = "none"


MORE = 48 << 20
_START = [0]


def pytest_report_header() -> list[str]:
    """What this machine can test."""
    import shutil

    programs = (
        "dockerd",
        "docker-registry",
        "skopeo",
        "sshd",
        "mmdebstrap",
        "nbdfuse",
        "mkfs.exfat",
        "zstd",
        "gcc",
        "strace",
    )
    have = [name for name in programs if shutil.which(name)]
    lacking = [name for name in programs if name not in have]
    return [
        f"engines and programs: {' '.join(have) or 'none'}" + (f"; not here: {' '.join(lacking)}" if lacking else ""),
        f"root: {'yes' if os.geteuid() == 0 else 'no'}; must test: {os.environ.get('TRANSFER_MUST_TEST', '') or 'nothing'}",
    ]


FEW = {"faults": 3, "unit": 4}
"""So many cases of each test in these folders are a sample, which `make test` runs; `make check` runs all (TRANSFER_THOROUGH=1)."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases of tests that have many, evenly, unless everything is to be tried or something was asked for by name."""
    from tests.support.thorough import THOROUGH, sample

    if THOROUGH or config.getoption("keyword") or any(".py" in each for each in config.args):
        return
    cases: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        folder = item.path.parent.name
        if folder in FEW:
            cases.setdefault((folder, item.nodeid.partition("[")[0]), []).append(item)
    left_out = {each for (folder, _), found in cases.items() for each in {*found} - {*sample(found, FEW[folder])}}
    if left_out:
        config.hook.pytest_deselected(items=[each for each in items if each in left_out])
        items[:] = [each for each in items if each not in left_out]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`: modules of one group run in one process, one after the other.

    (pytest-xdist 3.8 writes the group into an item's name, which pytest 9.2 does not take any more: every test was a group of its own.)
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _group(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return Groups(config, log)


@cache
def _group(path: Path) -> str:
    """The group of a test module: that of its `xdist_group` mark."""
    found = re.search(r"^pytestmark = .*xdist_group\(\"(\w+)\"", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _resident() -> int:
    """Memory of this process (bytes)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def pytest_collection_finish() -> None:
    """What is there now stays: it need not be looked through for garbage again and again, here and in every fork."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError):
        _START[0] = _resident()


def pytest_runtest_teardown() -> None:
    """What a test has let go of is given back: commands are run in forks of this process, and a large one is slow to fork."""
    with contextlib.suppress(OSError, AttributeError):
        if _resident() > _START[0] + MORE:
            ctypes.CDLL(None).malloc_trim(0)
