"""A bundle served as a registry: every path, every kind of client, nothing that is not held, and never a wrong body."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.run import run, says
from tests.support.zoo import Layout, layer, noise, zoo
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.cli.serve import make_certificate, read_users
from transfer.errors import UsageError
from transfer.flows.blobcache import BlobCache
from transfer.flows.content import BundleContent
from transfer.flows.page import page
from transfer.flows.serve import BundleHoldings
from transfer.model import Descriptor, Image
from transfer.serve.app import App
from transfer.serve.server import Background
from transfer.store.store import Store
from transfer.streams import sha256


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    layout = zoo(big=True)
    for entry in list(layout.entries):
        if entry["annotations"]["org.opencontainers.image.ref.name"] == "zoo/plain:1":
            layout.name(
                {k: v for k, v in entry.items() if k != "annotations"}, "registry.hq:5000/team/plain:2", "nginx:1"
            )
    layout.write(place / "oci")
    run("export", "--from", f"oci:{place}/oci", "-o", place / "b", "-q", "--no-store")
    return place / "b"


@pytest.fixture
def client(bundle: Path) -> Iterator[httpx.Client]:
    with (
        Bundle(bundle) as opened,
        Background(App(BundleHoldings([opened], None, None))) as served,
        httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as made,
    ):
        yield made


def images(bundle: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(run("inspect", bundle, "--json"))["images"]
    return {name: each for each in found for name in each["names"]}


def test_every_blob_of_every_image_is_what_its_digest_says(client: httpx.Client, bundle: Path) -> None:
    for name, image in images(bundle).items():
        repository, _, tag = name.rpartition(":")
        repository = f"library/{repository}" if "/" not in repository else repository
        reply = client.get(f"/v2/{repository}/manifests/{tag}")
        assert reply.status_code == 200, name
        assert reply.headers["docker-content-digest"] == image["digest"]
        assert "sha256:" + hashlib.sha256(reply.content).hexdigest() == image["digest"]
        for each in image["layers"]:
            path = f"/v2/{repository}/blobs/{each['digest']}"
            got = client.get(path)
            assert "sha256:" + hashlib.sha256(got.content).hexdigest() == each["digest"]
            head = client.head(path)
            assert (head.status_code, head.headers["content-length"], head.content) == (200, str(each["size"]), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/library/nginx/manifests/1",
        "/v2/library/nginx/manifests/1?ns=docker.io",
        "/v2/docker.io/library/nginx/manifests/1",
        "/v2/team/plain/manifests/2?ns=registry.hq:5000",
        "/v2/registry.hq:5000/team/plain/manifests/2",
        "/v2/team/plain/manifests/2",
    ],
)
def test_three_kinds_of_client_find_it(path: str, client: httpx.Client) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/library/nginx/manifests/2",
        "/v2/none/manifests/1",
        "/v2/library/nginx/manifests/1?ns=other.example",
        "/v2/library/nginx/blobs/sha256:" + "0" * 64,
        "/v2/../../etc/passwd",
        "/v2/library/nginx/manifests/..%2f..%2fetc",
        "/v2/" + "a/" * 200 + "manifests/1",
        "/v3/",
    ],
)
def test_what_is_not_held_is_not_found(path: str, client: httpx.Client) -> None:
    reply = client.get(path)
    if "?ns=other" in path:
        assert reply.status_code in (200, 404)
        return
    assert reply.status_code == 404
    assert json.loads(reply.content)["errors"][0]["code"]


def test_ranges_and_conditions(client: httpx.Client, bundle: Path) -> None:
    layer = images(bundle)["zoo/big:1"]["layers"][0]
    path = f"/v2/zoo/big/blobs/{layer['digest']}"
    whole = client.get(path).content
    for asked, start, end in (
        ("100-299", 100, 300),
        ("5000000-", 5_000_000, len(whole)),
        ("-77", len(whole) - 77, len(whole)),
    ):
        reply = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (reply.status_code, reply.content) == (206, whole[start:end])
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"
    assert client.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert client.get(path, headers={"Range": "bytes=1-2,5-6"}).status_code == 200
    assert client.get(path, headers={"If-None-Match": f'"{layer["digest"]}"'}).status_code == 304


def test_lists_come_in_pages(client: httpx.Client) -> None:
    seen: list[str] = []
    path = "/v2/_catalog?n=2"
    while path:
        reply = client.get(path)
        found = reply.json()["repositories"]
        assert 0 < len(found) <= 2
        seen += found
        path = reply.headers.get("link", "").partition("<")[2].partition(">")[0]
    assert seen == sorted(set(seen))
    assert "registry.hq:5000/team/plain" in seen
    assert client.get("/v2/zoo/plain/tags/list").json() == {"name": "zoo/plain", "tags": ["1", "latest"]}


def test_writes_are_refused_and_referrers_are_an_index(client: httpx.Client, bundle: Path) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        reply = client.request(method, "/v2/zoo/plain/blobs/uploads/", content=b"x" * 100_000)
        assert (reply.status_code, reply.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")
    digest = images(bundle)["zoo/plain:1"]["digest"]
    reply = client.get(f"/v2/zoo/plain/referrers/{digest}?artifactType=a/b")
    assert (reply.status_code, reply.json()["manifests"]) == (200, [])
    assert reply.headers["oci-filters-applied"] == "artifactType"


def test_the_page_for_people_names_every_image(client: httpx.Client, bundle: Path) -> None:
    reply = client.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    assert "registry.hq:5000/team/plain:2" in reply.text
    for each in images(bundle).values():
        assert each["digest"] in reply.text
    assert "1 bundle" in reply.text and "read-only" in reply.text
    policy = reply.headers["content-security-policy"]
    script = reply.text.partition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy


def test_a_name_is_text_on_the_page() -> None:
    image = Image(("<script>alert(1)</script>",), Descriptor("", sha256(b"x"), 1), None, (), (), (), ())
    shown = page([image], [], 0)
    assert "<script>alert" not in shown and "&lt;script&gt;" in shown


def test_a_damaged_layer_is_never_a_whole_answer(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    pack = max((tmp_path / "b" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    layer = images(bundle)["zoo/big:1"]["layers"][0]
    with (
        Bundle(tmp_path / "b") as opened,
        Background(App(BundleHoldings([opened], None, None))) as served,
        pytest.raises(httpx.HTTPError),
    ):
        httpx.get(f"http://127.0.0.1:{served.port}/v2/zoo/big/blobs/{layer['digest']}")


def test_a_store_is_read_again_when_it_changes(bundle: Path, tmp_path: Path) -> None:
    run("import", bundle, "zoo/gzip:1", "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s", "-q")
    other = zoo()
    other.entries = [e for e in other.entries if "odd" in json.dumps(e)]
    other.write(tmp_path / "oci")
    with Store(tmp_path / "s") as store, Background(App(BundleHoldings([], store, None))) as served:
        base = f"http://127.0.0.1:{served.port}"
        assert httpx.get(f"{base}/v2/zoo/gzip/manifests/1").status_code == 200
        assert httpx.get(f"{base}/v2/new/odd/manifests/1").status_code == 404
        run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "n", "-q", "--no-store")
        run("import", tmp_path / "n", "--to", f"oci:{tmp_path}/o2", "--store", tmp_path / "s", "-q")
        assert httpx.get(f"{base}/v2/zoo/odd/manifests/1").status_code == 200


def test_a_cache_rebuilds_once_and_stays_within_its_size(bundle: Path, tmp_path: Path) -> None:
    layer = images(bundle)["zoo/big:1"]["layers"][0]
    cache = BlobCache(tmp_path / "cache", layer["size"] + 1000)
    with (
        Bundle(bundle, library=BundleList()) as opened,
        Background(App(BundleHoldings([opened], None, cache))) as served,
    ):
        base = f"http://127.0.0.1:{served.port}/v2"
        for _ in range(3):
            got = httpx.get(f"{base}/zoo/big/blobs/{layer['digest']}")
            assert "sha256:" + hashlib.sha256(got.content).hexdigest() == layer["digest"]
        kept = list((tmp_path / "cache").iterdir())
        assert [path.name for path in kept] == [layer["digest"][7:]]
        for other in images(bundle)["zoo/plain:1"]["layers"]:
            httpx.get(f"{base}/zoo/plain/blobs/{other['digest']}")
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= layer["size"] + 1000


def test_users_and_tls(bundle: Path, tmp_path: Path) -> None:
    import ssl

    import bcrypt

    from transfer.serve.server import Tls, _server, listen

    (tmp_path / "users").write_text(
        "ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n", encoding="ascii"
    )
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    with Bundle(bundle) as opened:
        app = App(BundleHoldings([opened], None, None), users=read_users(tmp_path / "users"))
        sock = listen("127.0.0.1:0")
        server = _server(app, Tls(certificate, key))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        context = ssl.create_default_context(cafile=certificate)
        base = f"https://127.0.0.1:{sock.getsockname()[1]}"
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(verify=context) as made:
            assert made.get(f"{base}/v2/").status_code == 401
            assert made.get(f"{base}/v2/", auth=("ann", "wrong")).status_code == 401
            assert made.get(f"{base}/v2/", auth=("ann", "secret")).status_code == 200
        server.should_exit = True
        thread.join(10)
    (tmp_path / "old").write_text("bob:{SHA}xyz\n", encoding="ascii")
    with pytest.raises(UsageError):
        read_users(tmp_path / "old")


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "nonsense"],
        ["--htpasswd", "users"],
        ["--tls-cert", "x"],
        ["--client-ca", "x"],
        ["--cache", "x"],
        ["--from-store"],
    ],
)
def test_what_would_be_unsafe_or_makes_no_sense_is_refused(words: list[str], bundle: Path) -> None:
    assert says("serve", bundle, *words)[0] == 2


def test_the_command_serves_until_it_is_stopped(bundle: Path) -> None:
    words = [sys.executable, "-m", "transfer", "serve", str(bundle), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stderr
        address = process.stdout.readline().split()[-1]
        assert httpx.get(f"{address}/v2/library/nginx/manifests/1").status_code == 200
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=15)[1]
        assert process.returncode in (0, 143), said
    finally:
        process.kill()
        process.communicate()


def asked_of(served: Background, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{served.port}{path}", headers=headers)


def test_a_registry_that_is_meant_and_not_held_gets_no_other_ones_image(client: httpx.Client) -> None:
    """A tag has no digest that would find it out."""
    assert client.get("/v2/library/nginx/manifests/1").status_code == 200
    assert client.get("/v2/library/nginx/manifests/1?ns=docker.io").status_code == 200
    assert client.get("/v2/library/nginx/manifests/1?ns=ghcr.io").status_code == 404
    assert client.get("/v2/team/plain/manifests/2?ns=registry.hq:5000").status_code == 200
    assert client.get("/v2/team/plain/manifests/2?ns=docker.io").status_code == 404


@pytest.mark.parametrize("hexed", ["a" * 63, "a" * 65, "a" * 128, "A" * 64, "g" * 64])
def test_what_is_no_digest_is_said_to_be_none(client: httpx.Client, hexed: str) -> None:
    for kind in ("blobs", "referrers"):
        reply = client.get(f"/v2/zoo/big/{kind}/sha256:{hexed}")
        assert (reply.status_code, reply.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")


def test_a_query_without_end_is_refused(client: httpx.Client) -> None:
    assert client.get("/v2/_catalog?" + "&".join(f"a{n}=1" for n in range(100))).status_code == 400


def test_two_images_that_only_have_digests_are_both_held(tmp_path: Path) -> None:
    layout = Layout()
    roots = [layout.image([layer({"a": bytes([n])})]) for n in range(3)]
    for root in roots[:2]:
        layout.name(root, f"app@{root['digest']}")
    layout.name(roots[2], "app:1")
    layout.write(tmp_path / "l")
    run("export", "--from", f"oci:{tmp_path}/l", "-o", tmp_path / "b", "-q", "--no-store")
    with Bundle(tmp_path / "b") as opened, Background(App(BundleHoldings([opened], None, None))) as served:
        for root in roots:
            assert asked_of(served, f"/v2/app/manifests/{root['digest']}").status_code == 404  # docker.io/library/app
            assert asked_of(served, f"/v2/library/app/manifests/{root['digest']}").status_code == 200
        assert asked_of(served, "/v2/library/app/tags/list").json()["tags"] == ["1"]


def test_clients_that_take_nothing_keep_nobody_waiting(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than layers are rebuilt at once; what was rebuilt for one that left is not rebuilt to its end."""
    monkeypatch.setattr("transfer.serve.app.STALLED", 0.5)
    layout = Layout()
    layout.name(layout.image([layer({"large": noise(1, 40 << 20)})]), "large:1")
    layout.write(tmp_path / "l")
    run("export", "--from", f"oci:{tmp_path}/l", "-o", tmp_path / "b", "-q", "--no-store")
    digest = images(tmp_path / "b")["large:1"]["layers"][0]["digest"]
    with Bundle(tmp_path / "b") as opened, Background(App(BundleHoldings([opened], None, None))) as served:
        path = f"/v2/library/large/blobs/{digest}"
        idle = []
        for _ in range(6):
            one = socket.create_connection(("127.0.0.1", served.port))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            idle.append(one)
        got = httpx.get(f"http://127.0.0.1:{served.port}{path}", timeout=60)
        assert "sha256:" + hashlib.sha256(got.content).hexdigest() == digest
        for each in idle:
            each.close()


def test_what_a_disk_did_to_a_kept_layer_is_found(bundle: Path, tmp_path: Path) -> None:
    layer_ = images(bundle)["zoo/big:1"]["layers"][0]
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    with Bundle(bundle) as opened, Background(App(BundleHoldings([opened], None, cache))) as served:
        path = f"/v2/zoo/big/blobs/{layer_['digest']}"
        whole = asked_of(served, path).content
        kept = tmp_path / "cache" / layer_["digest"][7:]
        data = bytearray(kept.read_bytes())
        data[len(data) // 2] ^= 1
        kept.write_bytes(data)
        with pytest.raises(httpx.HTTPError):
            asked_of(served, path)
        assert not kept.exists()
        reply = asked_of(served, path)  # for a minute clients are told not to ask again and again
        assert (reply.status_code, reply.json()["errors"][0]["code"]) == (403, "DENIED")
        served.app.allow_again()
        assert asked_of(served, path).content == whole


def test_many_clients_one_rebuild(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer_ = images(bundle)["zoo/big:1"]["layers"][0]
    rebuilt: list[object] = []
    whole = BundleContent.open

    def counted(self: BundleContent, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        rebuilt.append(descriptor.digest)
        return whole(self, descriptor, start)

    monkeypatch.setattr(BundleContent, "open", counted)
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    with Bundle(bundle) as opened, Background(App(BundleHoldings([opened], None, cache))) as served:
        path, failed = f"/v2/zoo/big/blobs/{layer_['digest']}", []

        def one() -> None:
            got = asked_of(served, path).content
            if "sha256:" + hashlib.sha256(got).hexdigest() != layer_["digest"]:
                failed.append(len(got))

        threads = [threading.Thread(target=one) for _ in range(50)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert (failed, len(rebuilt)) == ([], 1)
