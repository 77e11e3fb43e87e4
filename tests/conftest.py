"""Tests keep to themselves: nothing of the machine they run on is read or touched, and each says what it could not test."""

from __future__ import annotations

import os

for _name in list(os.environ):
    if _name.startswith(("TRANSFER_", "DOCKER_", "XDG_", "TQDM_")) and _name != "TRANSFER_MUST_TEST":
        del os.environ[_name]
for _name in ("SOURCE_DATE_EPOCH", "SSH_AUTH_SOCK", "REGISTRY_AUTH_FILE", "COLUMNS"):
    os.environ.pop(_name, None)
os.environ["TRANSFER_STORE"] = "none"
os.environ["TRANSFER_CONFIG"] = "none"


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
