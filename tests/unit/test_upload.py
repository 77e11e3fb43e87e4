"""Uploads into a registry that a cut or a kill ended are gone on with, in the same run and in a later one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import PERSONALITIES, FakeRegistry, Fault
from tests.support.zoo import noise
from transfer.engines.base import RegistryOptions
from transfer.engines.distribution import RegistryClient
from transfer.engines.upload import REMEMBERED_DAYS, REMEMBERED_FROM, Remembered, Upload, remembered
from transfer.errors import TryAgain
from transfer.model import Descriptor
from transfer.streams import sha256

DATA = noise(7, REMEMBERED_FROM + 12_345)
BLOB = Descriptor("", sha256(DATA), len(DATA))
HALF = REMEMBERED_FROM // 2


class Killed(BaseException):
    """What ends a run without a word to anybody."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transfer.engines.http.FIRST_PAUSE", 0.01)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


@pytest.fixture(params=["dist31", "dist28"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(PERSONALITIES[request.param]()).running() as running:
        yield running


def blocks(start: int) -> Iterator[bytes]:
    for place in range(start, len(DATA), 1 << 16):
        yield DATA[place : place + (1 << 16)]


def until_killed(start: int) -> Iterator[bytes]:
    sent = start
    for block in blocks(start):
        if sent > HALF:
            raise Killed
        yield block
        sent += len(block)


def killed_push(registry: FakeRegistry, memory: Remembered) -> None:
    client = RegistryClient(registry.host, RegistryOptions(plain_http=True, wait=2))
    with pytest.raises(Killed):
        Upload(client, "app", memory).put(BLOB, until_killed)
    client.close()
    while not registry.uploads and registry.like.keeps_uploads:
        time.sleep(0.01)
    deadline = time.monotonic() + 5
    while registry.received < HALF - (1 << 20) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_killed_push_goes_on_in_the_next_run(registry: FakeRegistry, tmp_path: Path) -> None:
    memory = Remembered(tmp_path / "uploads")
    killed_push(registry, memory)
    assert [each.stat().st_mode & 0o777 for each in (tmp_path / "uploads").iterdir()] == [0o600]
    client = RegistryClient(registry.host, RegistryOptions(plain_http=True, wait=2))
    upload = Upload(client, "app", memory)
    assert upload.put(BLOB, blocks) is False
    client.close()
    assert registry.blobs["app", str(BLOB.digest)] == DATA
    if registry.like.keeps_uploads:
        assert upload.sent <= len(DATA) - HALF + (1 << 20)
    else:
        assert upload.sent == len(DATA)
    assert not list((tmp_path / "uploads").iterdir())


def test_what_is_remembered_for_another_blob_or_host_is_not_used(registry: FakeRegistry, tmp_path: Path) -> None:
    """The file is ours, but whoever can write it sends nothing of ours to a host of his."""
    memory = Remembered(tmp_path / "uploads")
    key = f"{registry.host}/app@{BLOB.digest}"
    memory.put(key, "http://127.0.0.1:9/v2/app/blobs/uploads/1")
    client = RegistryClient(registry.host, RegistryOptions(plain_http=True, wait=2))
    assert Upload(client, "app", memory).put(BLOB, blocks) is False
    memory.put("other", "x")
    [path] = (tmp_path / "uploads").iterdir()
    assert memory.find("other") == "x"
    path.write_text(json.dumps({"key": "another", "location": "x"}))
    assert memory.find("other") == ""
    path.write_text("not JSON")
    assert memory.find("other") == ""
    client.close()


def test_progress_is_what_counts_not_the_number_of_cuts(tmp_path: Path) -> None:
    with FakeRegistry(PERSONALITIES["dist31"]()).running() as registry:
        registry.faults.append(Fault("PUT", "/uploads/", how="cut", at=200_000, times=15))
        client = RegistryClient(registry.host, RegistryOptions(plain_http=True, wait=60))
        upload = Upload(client, "app")
        assert upload.put(BLOB, blocks) is False
        client.close()
        assert registry.blobs["app", str(BLOB.digest)] == DATA


def test_without_progress_it_ends(tmp_path: Path) -> None:
    with FakeRegistry(PERSONALITIES["dist28"]()).running() as registry:
        registry.faults.append(Fault("PUT", "/uploads/", how="cut", at=200_000, times=50))
        client = RegistryClient(registry.host, RegistryOptions(plain_http=True, wait=60))
        with pytest.raises(TryAgain):
            Upload(client, "app").put(BLOB, blocks)
        client.close()


def test_old_places_are_forgotten_and_strange_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFER_STORE", raising=False)
    monkeypatch.setattr("transfer.engines.upload.state_folder", lambda: tmp_path)
    remembered().put("old", "x")
    remembered().put("new", "y")
    folder = tmp_path / "transfer-uploads"
    (folder / "notes.txt").write_text("mine")
    long_ago = time.time() - (REMEMBERED_DAYS + 1) * 86400
    for path in (folder / f"{sha256(b'old').hex}.json", folder / "notes.txt"):
        os.utime(path, (long_ago, long_ago))
    after = remembered()
    assert (after.find("old"), after.find("new")) == ("", "y")
    assert (folder / "notes.txt").exists()


def test_where_no_state_is_kept_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_STORE", "none")
    memory = remembered()
    memory.put("key", "x")
    assert memory.find("key") == ""
