"""Requests to a registry that answers what none should: whom credentials are told, and what comes out of garbage."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import Asked, Told, answering
from transfer.engines import logins
from transfer.engines.base import RegistryOptions
from transfer.engines.distribution import RegistryClient, pull
from transfer.engines.http import is_loopback
from transfer.engines.logins import Credentials
from transfer.engines.session import origin
from transfer.engines.upload import Upload
from transfer.errors import CredentialsError, EngineError, FormatError, LinkError, TransferError, UsageError
from transfer.model import Descriptor
from transfer.streams import sha256

SECRET = "hunter2-never-shown"
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transfer.engines.http.FIRST_PAUSE", 0.01)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


Making = Callable[[str], RegistryClient]


@pytest.fixture
def client() -> Iterator[Making]:
    """Makes clients; they are closed afterwards."""
    made: list[RegistryClient] = []

    def make(host: str) -> RegistryClient:
        made.append(RegistryClient(host, RegistryOptions(plain_http=not host.startswith("secure."), wait=2)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def secrets(heard: list[Asked]) -> list[str]:
    return [each.headers["authorization"] for each in heard if "authorization" in each.headers]


def test_a_host_that_a_registry_leads_to_gets_no_credentials(client: Making) -> None:
    """Neither by its own 401, nor with the request."""

    def foreign(asked: Asked) -> Told:
        realm = f'Bearer realm="http://{asked.headers["host"]}/token",service="x"'
        return Told(200, {}, b'{"token":"t"}') if "token" in asked.path else Told(401, {"WWW-Authenticate": realm})

    with answering(foreign) as (there, heard):

        def lead(asked: Asked) -> Told:
            if asked.method == "POST":
                return Told(202, {"Location": f"http://{there}/upload"})
            return Told(307, {"Location": f"http://{there}{asked.path}"})

        with answering(lead) as (host, _):
            logins.remember(host, Credentials("ann", SECRET))
            logins.remember(there, Credentials("ann", SECRET))
            asking = client(host)
            with pytest.raises(CredentialsError):
                asking.manifest("app", "1")
            data = b"x" * 100
            with pytest.raises(CredentialsError):
                Upload(asking, "app").put(Descriptor("", sha256(data), 100), lambda start: iter([data[start:]]))
        assert heard
        assert secrets(heard) == []
        assert not any("token" in each.path for each in heard)


def test_a_challenge_after_a_busy_answer_is_answered(client: Making) -> None:
    state = {"busy": 2}

    def answer(asked: Asked) -> Told:
        if state["busy"]:
            state["busy"] -= 1
            return Told(503)
        return Told(200, {}, b"{}") if "authorization" in asked.headers else Told(401, BASIC)

    with answering(answer) as (host, _):
        logins.remember(host, Credentials("ann", SECRET))
        assert client(host).request("GET", "/v2/", scope="").status == 200


def test_many_threads_that_meet_the_first_challenge_all_get_through(client: Making) -> None:
    with answering(lambda asked: Told(200) if "authorization" in asked.headers else Told(401, BASIC)) as (host, _):
        logins.remember(host, Credentials("ann", SECRET))
        asking, failed = client(host), []

        def one() -> None:
            try:
                asking.request("GET", "/v2/", scope=pull("app"))
            except TransferError as error:
                failed.append(error)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failed == []


def test_a_token_that_never_suffices_ends_in_a_refusal(client: Making) -> None:
    def answer(asked: Asked) -> Told:
        if "token" in asked.path:
            return Told(200, {}, b'{"token":"t"}')
        return Told(401, {"WWW-Authenticate": f'Bearer realm="http://{asked.headers["host"]}/token"'})

    with answering(answer) as (host, heard):
        with pytest.raises(CredentialsError, match="HTTP 401"):
            client(host).manifest("app", "1")
        assert sum("token" in each.path for each in heard) <= 2
        heard.clear()
        with pytest.raises(CredentialsError):
            Upload(client(host), "app").put(Descriptor("", sha256(b"x"), 1), lambda start: iter([b"x"]))


def test_bytes_come_as_they_are_whatever_a_proxy_calls_them(client: Making) -> None:
    data = gzip.compress(b"a layer" * 100)
    blob = Descriptor("", sha256(data), len(data))
    with answering(lambda asked: Told(200, {"Content-Encoding": "gzip"}, data)) as (host, heard):
        with client(host).blob("app", blob, 0) as blocks:
            assert b"".join(blocks) == data
        assert heard[0].headers["accept-encoding"] == "identity"


def test_an_answer_never_grows(client: Making) -> None:
    """Compressed twice, some hundred bytes would be many MB."""
    bomb = gzip.compress(gzip.compress(b"0" * (64 << 20)))
    with (
        answering(lambda asked: Told(200, {"Content-Encoding": "gzip, gzip"}, bomb)) as (host, _),
        pytest.raises((EngineError, FormatError)),
    ):
        client(host).tags("app")


GARBAGE: dict[str, Told] = {
    "tags are a number": Told(200, {}, b'{"tags": 5}'),
    "deep": Told(200, {}, b"[" * 200_000),
    "not json": Told(200, {}, b"\xff\xfe"),
    "a list": Told(200, {}, b"[]"),
    "link": Told(200, {"Link": '<http://[>; rel="next"'}, b'{"tags": ["1"], "manifests": [{}]}'),
    "link elsewhere": Told(200, {"Link": '<http://169.254.169.254/>; rel="next"'}, b'{"tags": ["1"]}'),
    "redirect": Told(307, {"Location": "http://["}),
    "redirect to a file": Told(307, {"Location": "file:///etc/passwd"}),
    "realm": Told(401, {"WWW-Authenticate": 'Bearer realm="http://["'}),
    "no realm": Told(401, {"WWW-Authenticate": 'Bearer service="x"'}),
    "refused and cut": Told(403, {}, b"x" * 5000, cut=100),
    "refused and packed": Told(403, {"Content-Encoding": "gzip"}, b"no gzip"),
    "late": Told(429, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}),
    "huge": Told(200, {}, b" " * (9 << 20)),
}


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.parametrize(
    "ask",
    [
        lambda asking: asking.tags("app"),
        lambda asking: asking.manifest("app", "1"),
        lambda asking: asking.referrers("app", sha256(b"x")),
        lambda asking: asking.fallback("app", sha256(b"x")),
        lambda asking: asking.check(Credentials("ann", SECRET)),
        lambda asking: Upload(asking, "app").put(Descriptor("", sha256(b"x"), 1), lambda start: iter([b"x"])),
    ],
    ids=["tags", "manifest", "referrers", "fallback", "login", "upload"],
)
def test_garbage_is_a_named_failure_or_an_answer(
    client: Making, ask: Callable[[RegistryClient], Any], what: str
) -> None:
    with answering(lambda asked: GARBAGE[what]) as (host, heard):
        logins.remember(host, Credentials("ann", SECRET))
        try:
            ask(client(host))
        except TransferError as error:
            assert SECRET not in f"{error.message} {error.hint} {error.__cause__}"
        assert all("169.254" not in each.path for each in heard)


@pytest.mark.parametrize("told", ["0-99999999", "0-4999", "5-9", "", "bytes=0-0", "x"])
def test_an_upload_goes_on_only_where_it_can(client: Making, told: str) -> None:
    """What a registry says of an upload that was cut is not believed beyond the blob's size."""
    data = b"y" * 5000
    taken: list[Asked] = []
    state = {"cuts": 1}

    def answer(asked: Asked) -> Told:
        if asked.method == "POST":
            return Told(202, {"Location": "/v2/app/blobs/uploads/1"})
        if asked.method == "HEAD":
            return Told(404)
        if asked.method == "GET":
            return Told(204, {"Range": told} if told else {})
        taken.append(asked)
        if state["cuts"]:
            state["cuts"] -= 1
            return Told(504)
        return Told(201)

    with answering(answer) as (host, _):
        assert not Upload(client(host), "app").put(
            Descriptor("", sha256(data), len(data)), lambda start: iter([data[start:]] if start < len(data) else [])
        )
    assert taken[-1].body in (data, b"")
    assert ("content-range" in taken[-1].headers) is False


def test_a_proxy_that_is_none_is_told(client: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("socks://127.0.0.1:1", "socks5://127.0.0.1:1", "http://["):
        monkeypatch.setenv("HTTPS_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "fd00::/8,[::1]")
        with pytest.raises((UsageError, LinkError)):
            client("secure.invalid").manifest("app", "1")


def test_a_registry_on_this_host_is_not_asked_through_a_proxy(client: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(lambda asked: Told(200, {}, b'{"tags": ["1"]}')) as (host, _):
        assert client(host).tags("app") == ["1"]


def test_a_proxy_is_used_where_no_rule_says_otherwise(client: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda asked: Told(200, {}, b'{"tags": ["1"]}')) as (proxy, heard):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        assert client("registry.invalid").tags("app") == ["1"]
        assert heard[0].path.startswith("http://registry.invalid/")
        monkeypatch.setenv("no_proxy", "10.0.0.0/8,.invalid")
        with pytest.raises(TransferError):
            client("registry.invalid").tags("app")


def test_a_helper_that_prints_garbage_shows_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-odd"
    program.write_text(f"#!/bin/sh\nprintf '\\377{SECRET}'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "auth.json").write_text(json.dumps({"credsStore": "odd"}), encoding="utf-8")
    with pytest.raises(CredentialsError) as caught:
        logins.credentials("registry.hq/app")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_hosts_are_compared_as_they_are_meant() -> None:
    assert origin("https://Reg.hq:443/x") == origin("https://reg.hq/y")
    assert origin("https://reg.hq/") != origin("http://reg.hq/")
    assert [is_loopback(each) for each in ("127.0.0.1", "[::1]", "localhost", "127.evil.com", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
