"""Registries: what a pull and a push do when lines are cut, tokens end, and a registry misbehaves."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import PERSONALITIES, FakeRegistry, Fault, Personality
from tests.support.run import run, says
from tests.support.zoo import Layout, layer, noise
from transfer.engines import logins
from transfer.engines.challenges import challenges
from transfer.engines.http import Gate, goes_direct, retry_after, told_error
from transfer.engines.logins import Credentials
from transfer.engines.registry import split_place
from transfer.errors import CredentialsError, TryAgain, UsageError

SECRET = "hunter2-never-shown"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short here: nobody is spared by them."""
    monkeypatch.setattr("transfer.engines.http.FIRST_PAUSE", 0.01)


def images() -> Layout:
    out = Layout()
    base = layer({"base": noise(1, 50_000)})
    out.name(out.image([base, layer({"one": noise(2, 30_000)})]), "app/one:1")
    out.name(out.image([base]), "app/two:1")
    return out


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    made = FakeRegistry()
    made.hold(images(), lambda name: (name.partition(":")[0], name.partition(":")[2]))
    with made.running():
        yield made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("registry")
    images().write(place / "oci")
    run("export", "--from", f"oci:{place}/oci", "-o", place / "b", "-q", "--no-store")
    return place / "b"


def digests(bundle: Path) -> set[str]:
    return {each["digest"] for each in json.loads(run("inspect", bundle, "--json"))["images"]}


def pulled(registry: FakeRegistry, target: Path, *more: object, code: int = 0) -> str:
    names = [f"docker://{registry.host}/app/{name}:1" for name in ("one", "two")]
    found, said = says("export", *names, "-o", target, "--no-store", *more)
    assert found == code, said
    return said


@pytest.mark.parametrize("at", [0, 1, 1000, 49_999])
def test_a_pull_that_is_cut_goes_on_where_it_stopped(
    at: int, registry: FakeRegistry, bundle: Path, tmp_path: Path
) -> None:
    registry.faults.append(Fault("GET", "/blobs/", "cut", 3, at))
    pulled(registry, tmp_path / "b")
    assert digests(tmp_path / "b") == digests(bundle)
    whole = sum(len(data) for (name, _), data in registry.blobs.items() if name == "app/one")
    assert registry.sent < whole + 60_000  # what was on its way, not what had come


def test_a_line_that_breaks_every_few_bytes_brings_all_in_the_end(
    registry: FakeRegistry, bundle: Path, tmp_path: Path
) -> None:
    registry.faults.append(Fault("GET", "/blobs/", "cut", 30, 5000))
    pulled(registry, tmp_path / "b")
    assert digests(tmp_path / "b") == digests(bundle)
    sizes = {digest: len(data) for (_, digest), data in registry.blobs.items()}
    assert registry.sent < sum(sizes.values()) + 30_000


def test_a_registry_that_ignores_ranges_serves_as_well(registry: FakeRegistry, bundle: Path, tmp_path: Path) -> None:
    registry.faults += [Fault("GET", "/blobs/", "cut", 1, 20_000), Fault("GET", "/blobs/", "no range", 5)]
    pulled(registry, tmp_path / "b")
    assert digests(tmp_path / "b") == digests(bundle)


@pytest.mark.parametrize("how", ["429", "503", "500"])
def test_a_busy_registry_is_asked_again(how: str, registry: FakeRegistry, bundle: Path, tmp_path: Path) -> None:
    registry.faults += [Fault("GET", "/manifests/", how, 2), Fault("GET", "/blobs/", how, 2)]
    pulled(registry, tmp_path / "b")
    assert digests(tmp_path / "b") == digests(bundle)


def test_wrong_bytes_are_never_taken(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.faults.append(Fault("GET", "/app/one/blobs/", "wrong", 99))
    said = pulled(registry, tmp_path / "b", code=13)
    assert "sha256" in said


def test_a_redirect_to_another_scheme_is_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.faults.append(Fault("GET", "/blobs/", "elsewhere", 99))
    said = pulled(registry, tmp_path / "b", code=20)
    assert "file:" in said
    assert "root:" not in said


def test_layers_that_the_base_has_are_not_fetched(registry: FakeRegistry, tmp_path: Path) -> None:
    pulled(registry, tmp_path / "b")
    before = registry.sent
    pulled(registry, tmp_path / "d", "--base", tmp_path / "b")
    blobs = [path for method, path in registry.asked if method == "GET" and "/blobs/" in path]
    layers = {
        each["digest"]
        for image in json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
        for each in image["layers"]
    }
    assert sum(path.rpartition("/")[2] in layers for path in blobs) == len(layers)
    assert registry.sent - before < 2000  # configs alone


def test_a_wrong_tag_is_told_with_those_there_are(registry: FakeRegistry, tmp_path: Path) -> None:
    code, said = says("export", f"docker://{registry.host}/app/one:9", "-o", tmp_path / "b")
    assert code == 10
    assert "it has 1" in said


def test_what_a_compose_file_and_a_manifest_need_comes_from_where_they_say(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text(f"services: {{a: {{image: '{registry.host}/app/one:1'}}, b: {{build: .}}}}", encoding="utf-8")
    pod = f"kind: Pod\nspec: {{containers: [{{name: x, image: '{registry.host}/app/two:1'}}]}}\n"
    (tmp_path / "pod.yaml").write_text(pod, encoding="utf-8")
    files = ["-f", compose, "-f", tmp_path / "pod.yaml"]
    code, said = says("export", *files, "-o", tmp_path / "b", "--no-store")
    assert code == 0, said
    assert "not taken" in said and "service b" in said
    names = [name for each in json.loads(run("inspect", tmp_path / "b", "--json"))["images"] for name in each["names"]]
    assert sorted(names) == [f"{registry.host}/app/one:1", f"{registry.host}/app/two:1"]
    compose.write_text(f"services: {{a: {{image: '{registry.host}/no/a:1'}}, b: {{image: '{registry.host}/no/b:1'}}}}")
    code, said = says("export", *files, "-o", tmp_path / "c", "--no-store")
    assert code == 3, said
    assert "no/a:1" in said and "no/b:1" in said


def pushed(registry: FakeRegistry, bundle: Path, *more: object, place: str = "") -> dict[str, object]:
    return dict(
        json.loads(run("import", bundle, "--to", f"docker://{registry.host}{place}", "--json", "--no-store", *more))
    )


@pytest.mark.parametrize("like", PERSONALITIES)
def test_a_push_gives_every_digest_and_again_sends_nothing(
    like: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    registry = FakeRegistry(PERSONALITIES[like]())
    with registry.running():
        for user, password in registry.like.users.items():
            logins.remember(registry.host, Credentials(user, password))
        pushed(registry, bundle, place="/mirror")
        assert set(registry.names()) == {"mirror/app/one:1", "mirror/app/two:1"}
        assert set(registry.names().values()) == digests(bundle)
        before, asked = registry.received, len(registry.asked)
        found = pushed(registry, bundle, place="/mirror")
        assert {each["status"] for each in found["images"]} == {"present"}  # type: ignore[attr-defined]
        assert registry.received == before
        assert all(method in ("HEAD", "GET") for method, _ in registry.asked[asked:])


@pytest.mark.parametrize("like", ["dist28", "dist31"])
@pytest.mark.parametrize("at", [0, 1, 10_000, 50_000])
def test_a_push_that_is_cut_ends_right(at: int, like: str, bundle: Path) -> None:
    registry = FakeRegistry(PERSONALITIES[like]())
    registry.faults.append(Fault("PUT", "/uploads/", "cut", 3, at))
    with registry.running():
        pushed(registry, bundle)
        assert set(registry.names().values()) == digests(bundle)
        held = sum(len(data) for data in registry.blobs.values())
        beyond = registry.received - held
        assert beyond <= (3 if like == "dist31" else 3 * at + 3 * 65536)


def test_a_layer_that_another_repository_has_is_mounted(registry: FakeRegistry, bundle: Path) -> None:
    registry.blobs.clear()
    registry.manifests.clear()
    pushed(registry, bundle, "--jobs", "1")
    biggest = max(len(data) for data in registry.blobs.values())
    assert registry.received < sum(len(d) for d in registry.blobs.values()) - biggest // 2


def test_a_damaged_bundle_puts_nothing_visible(registry: FakeRegistry, bundle: Path, tmp_path: Path) -> None:
    import shutil

    registry.manifests.clear()
    registry.blobs.clear()
    shutil.copytree(bundle, tmp_path / "b")
    pack = max((tmp_path / "b" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    code, said = says("import", tmp_path / "b", "--to", f"docker://{registry.host}", "--no-store")
    assert code in (3, 13), said
    assert "app/one:1" not in registry.names()


def test_a_token_that_ends_is_renewed(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    registry = FakeRegistry(Personality(users={"ann": SECRET}, bearer=True))
    registry.hold(images(), lambda name: (name.partition(":")[0], name.partition(":")[2]))
    registry.faults.append(Fault("GET", "/blobs/", "401", 1))
    with registry.running():
        logins.remember(registry.host, Credentials("ann", SECRET))
        pulled(registry, tmp_path / "b")
        assert digests(tmp_path / "b") == digests(bundle)
        assert sum(path == "/token" for _, path in registry.asked) >= 2


def test_credentials_are_never_shown(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    for bearer in (True, False):
        registry = FakeRegistry(Personality(users={"ann": "other"}, bearer=bearer))
        with registry.running():
            logins.remember(registry.host, Credentials("ann", SECRET))
            env = {"TRANSFER_LOG": str(tmp_path / "log")}
            code, said = says("-vv", "import", bundle, "--to", f"docker://{registry.host}", env=env)
            assert code == 24, said
            for text in (said, (tmp_path / "log").read_text(encoding="utf-8"), repr(Credentials("ann", SECRET))):
                assert SECRET not in text
                assert "hunter2" not in text


def test_login_checks_and_stores_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "config.json"
    path.parent.mkdir()
    path.write_text('{"auths": {"other": {"auth": "YTpi"}}, "psFormat": "x"}', encoding="utf-8")
    env = {"DOCKER_CONFIG": str(path.parent)}
    registry = FakeRegistry(Personality(users={"ann": "secret"}, bearer=True))
    with registry.running():
        code, said = _login(registry.host, "wrong", env)
        assert code == 24, said
        assert registry.host not in path.read_text(encoding="utf-8")
        code, said = _login(registry.host, "secret", env)
        assert code == 0, said
        value = json.loads(path.read_text(encoding="utf-8"))
        assert set(value["auths"]) == {"other", registry.host}
        assert value["psFormat"] == "x"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "deleted" in run("logout", registry.host, env=env)
        assert set(json.loads(path.read_text(encoding="utf-8"))["auths"]) == {"other"}
        assert "no credentials" in run("logout", registry.host, env=env)


def _login(host: str, password: str, env: dict[str, str]) -> tuple[int, str]:
    import subprocess
    import sys

    words = [sys.executable, "-m", "transfer", "login", host, "-u", "ann", "--password-stdin"]
    done = subprocess.run(words, input=password, capture_output=True, text=True, check=False, env={**os.environ, **env})
    return done.returncode, done.stdout + done.stderr


def test_the_longest_namespace_and_the_first_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def auth(user: str) -> dict[str, str]:
        import base64

        return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}

    first, second = tmp_path / "auth.json", tmp_path / "config.json"
    first.write_text(
        json.dumps({"auths": {"h.example": auth("host"), "h.example/team": auth("team")}}), encoding="utf-8"
    )
    hub = "https://index.docker.io/v1/"
    second.write_text(json.dumps({"auths": {"h.example": auth("later"), hub: auth("hub")}}), encoding="utf-8")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(first))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    users = {
        name: getattr(logins.credentials(name), "user", None)
        for name in ("h.example/a", "h.example/team/b", "docker.io/library/nginx", "other/x")
    }
    assert users == {
        "h.example/a": "host",
        "h.example/team/b": "team",
        "docker.io/library/nginx": "hub",
        "other/x": None,
    }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo \'{"Username":"bob","Secret":"pw"}\'', ("bob", "pw", "")),
        ('echo \'{"Username":"<token>","Secret":"tk"}\'', ("", "", "tk")),
        ("echo credentials not found in native keychain; exit 1", None),
        ("echo nonsense", CredentialsError),
        ("exit 3", CredentialsError),
    ],
)
def test_helpers_are_asked(script: str, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "auth.json").write_text('{"credHelpers": {"h.example": "test"}}', encoding="utf-8")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if expected is CredentialsError:
        with pytest.raises(CredentialsError):
            logins.credentials("h.example/a")
        return
    found = logins.credentials("h.example/a")
    assert (found and (found.user, found.password, found.token)) == expected


def test_a_file_of_credentials_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{", encoding="utf-8")
    registry = FakeRegistry(Personality(users={"ann": "x"}))
    with registry.running():
        env = {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        code, said = says("images", f"docker://{registry.host}/app", env=env)
    assert code == 2
    assert "auth.json" in said


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("//nginx:1.27", "", "nginx:1.27"),
        ("//registry.hq", "registry.hq", ""),
        ("//registry.hq/", "registry.hq", ""),
        ("//registry.hq:5000", "registry.hq:5000", ""),
        ("//localhost:5000", "localhost:5000", ""),
        ("//127.0.0.1:5000/mirror", "127.0.0.1:5000/mirror", ""),
        ("//registry.hq/app:1", "", "registry.hq/app:1"),
        ("//registry.hq/app@sha256:" + "0" * 64, "", "registry.hq/app@sha256:" + "0" * 64),
        ("//nginx", "", "nginx"),
    ],
)
def test_a_place_and_a_name_are_told_apart(text: str, place: str, name: str) -> None:
    assert split_place(text) == (place, name)


@pytest.mark.parametrize("text", ["", "nginx", "//"])
def test_what_is_no_registry_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        split_place(text)


def test_challenges_are_read_as_they_are_written() -> None:
    found = challenges(
        [
            'Basic realm="a, b", Bearer realm="https://auth/t?x=1,2",service="s",scope="repository:a:pull,push"',
            "Negotiate",
        ]
    )
    assert [each.scheme for each in found] == ["basic", "bearer", "negotiate"]
    assert found[1].parameters == {"realm": "https://auth/t?x=1,2", "service": "s", "scope": "repository:a:pull,push"}
    assert challenges(["", ",,,", "="]) == []


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("7") == 7
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412470) == pytest.approx(10)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 2000000000) == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


def test_a_host_that_asks_to_wait_for_ever_is_left() -> None:
    gate = Gate("here", longest=1)
    with pytest.raises(TryAgain):
        gate.busy("HTTP 429", "3600")


def test_ranges_of_no_proxy_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, .plant, registry.hq")
    assert [goes_direct(host) for host in ("10.1.2.3:5000", "a.plant", "registry.hq", "11.0.0.1", "hub.example")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("data", [b"", b"\xff\x00", b"[" * 5000, b'{"errors": [5]}', b'{"errors": [{"code": "X"}]}'])
def test_whatever_a_host_says_is_printable(data: bytes) -> None:
    said = told_error(data)
    assert said and said.isprintable() and len(said) <= 500
