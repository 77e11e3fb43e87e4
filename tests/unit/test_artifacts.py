"""What is no image to be run, and what refers to images: from registry to registry over a bundle, with every digest as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeregistry import PERSONALITIES, FakeRegistry
from tests.support.run import run, says
from tests.support.thorough import THOROUGH
from tests.support.zoo import Layout, layer, noise
from transfer.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

EMPTY = "application/vnd.oci.empty.v1+json"
INTOTO = "application/vnd.in-toto+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def put(layout: Layout, config: dict[str, Any], layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **more}
    return layout.document(value, OCI_MANIFEST)


def attested(layout: Layout) -> dict[str, Any]:
    """An index as BuildKit makes it: two platforms, each with its attestation."""
    children = []
    for number, arch in enumerate(("amd64", "arm64")):
        image = layout.image([layer({"base": noise(number, 5000)})], arch=arch)
        config = layout.document({"architecture": "unknown", "os": "unknown", "n": number}, OCI_CONFIG)
        statement = layout.blob(json.dumps({"_type": "in-toto", "n": number}).encode(), INTOTO)
        attestation = put(layout, config, [statement])
        notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
        unknown = {"architecture": "unknown", "os": "unknown"}
        children += [
            {**image, "platform": {"architecture": arch, "os": "linux"}},
            {**attestation, "annotations": notes, "platform": unknown},
        ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    return layout.document(index, OCI_INDEX)


def everything() -> tuple[Layout, dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The layout; the roots by name; and those that only refer to one."""
    out = Layout()
    names: dict[str, dict[str, Any]] = {}
    index = names["app/web:1"] = attested(out)
    hexed = index["digest"].replace(":", "-")
    simple = out.blob(b'{"critical":{}}', "application/vnd.dev.cosign.simplesigning.v1+json")
    signing = out.document({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}}, OCI_CONFIG)
    names[f"app/web:{hexed}.sig"] = put(out, signing, [{**simple, "annotations": {"dev.cosignproject.cosign/s": "x"}}])
    sbom = out.blob(b'{"spdxVersion":"SPDX-2.3"}', "application/spdx+json")
    none = out.blob(b"{}", EMPTY)
    referring = [put(out, none, [sbom], artifactType="application/spdx+json", subject=index, annotations={"by": "me"})]
    signature = out.blob(b"signed", "application/x-signature")
    referring.append(put(out, none, [signature], artifactType="application/x-signature", subject=referring[0]))
    chart = out.blob(b"chart" * 100, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    about = out.document({"name": "web", "version": "1.0.0"}, "application/vnd.cncf.helm.config.v1+json")
    names["charts/web:1.0.0"] = put(out, about, [chart])
    names["things/empty:1"] = put(out, none, [none], artifactType="application/x-nothing")
    zipped = layer({"old": noise(9, 3000)})
    old = out.image([zipped], kind=DOCKER_MANIFEST, layer_kind=DOCKER_LAYER.removesuffix(".gzip"))
    platform = {"architecture": "amd64", "os": "linux"}
    listed = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [{**old, "platform": platform}]}
    names["app/old:1"] = out.document(listed, DOCKER_LIST)
    return out, names, referring


def held(
    registry: FakeRegistry, layout: Layout, names: dict[str, dict[str, Any]], referring: list[dict[str, Any]]
) -> None:
    for name, root in names.items():
        repository, _, tag = name.partition(":")
        registry._take(layout, repository, root["digest"], root["mediaType"])
        registry.manifests[repository, tag] = (root["mediaType"], layout.blobs[root["digest"]])
    for root in referring:
        registry._take(layout, "app/web", root["digest"], root["mediaType"])
        if not registry.like.referrers:
            subject = json.loads(layout.blobs[root["digest"]])["subject"]["digest"]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [root]}
            registry.manifests["app/web", subject.replace(":", "-")] = (OCI_INDEX, json.dumps(index).encode())


@pytest.fixture(params=["zot", "dist31"])
def source(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """With a list of referrers, and without."""
    registry = FakeRegistry(PERSONALITIES[request.param]())
    held(registry, *everything())
    with registry.running():
        yield registry


def exported(source: FakeRegistry, target: Path, *more: object) -> None:
    names = [f"docker://{source.host}/{name}" for name in everything()[1] if ".sig" not in name]
    run("export", *names, "--platform", "all", "--referrers", "-o", target, "--no-store", "-q", *more)


PAIRS = [(source, like) for source in ("zot", "dist31") for like in ("dist28", "dist31", "zot", "quiet", "nginx")]
SOME = [("zot", "dist28"), ("zot", "quiet"), ("dist31", "zot"), ("dist31", "nginx")]


@pytest.mark.parametrize(("source", "like"), PAIRS if THOROUGH else SOME, indirect=["source"])
def test_every_digest_arrives_and_again_nothing_is_sent(like: str, source: FakeRegistry, tmp_path: Path) -> None:
    exported(source, tmp_path / "b")
    run("verify", tmp_path / "b", "--deep")
    layout, names, referring = everything()
    target = FakeRegistry(PERSONALITIES[like]())
    with target.running():
        run("import", tmp_path / "b", "--to", f"docker://{target.host}/plant", "--no-store")
        for name, root in names.items():
            repository, _, tag = name.partition(":")
            assert target.manifests[f"plant/{repository}", tag][1] == layout.blobs[root["digest"]], name
        for root in referring:
            assert target.manifests["plant/app/web", root["digest"]][1] == layout.blobs[root["digest"]]
            if not target.like.referrers:
                subject = json.loads(layout.blobs[root["digest"]])["subject"]["digest"]
                kept = json.loads(target.manifests["plant/app/web", subject.replace(":", "-")][1])["manifests"]
                assert [each["digest"] for each in kept] == [root["digest"]]
                assert kept[0]["artifactType"] in ("application/spdx+json", "application/x-signature")
        before, asked = target.received, len(target.asked)
        found = json.loads(
            run("import", tmp_path / "b", "--to", f"docker://{target.host}/plant", "--no-store", "--json")
        )
        assert {each["status"] for each in found["images"]} == {"present"}
        assert target.received == before
        assert {method for method, _ in target.asked[asked:]} <= {"HEAD", "GET"}


def test_what_others_listed_stays(source: FakeRegistry, tmp_path: Path) -> None:
    exported(source, tmp_path / "b")
    subject = everything()[1]["app/web:1"]["digest"].replace(":", "-")
    target = FakeRegistry(PERSONALITIES["dist31"]())
    other = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "0" * 64, "size": 2, "x-kept": True}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other], "annotations": {"a": "b"}}
    target.manifests["app/web", subject] = (OCI_INDEX, json.dumps(index).encode())
    with target.running():
        run("import", tmp_path / "b", "--to", f"docker://{target.host}", "--no-store")
        kept = json.loads(target.manifests["app/web", subject][1])
        assert (kept["manifests"][0], len(kept["manifests"]), kept["annotations"]) == (other, 2, {"a": "b"})


def test_what_refers_to_an_image_follows_its_new_name(source: FakeRegistry, tmp_path: Path) -> None:
    exported(source, tmp_path / "b")
    referring = everything()[2]
    target = FakeRegistry(PERSONALITIES["zot"]())
    with target.running():
        retag = f"{source.host}/app/web:1={target.host}/new/place:2"
        run("import", tmp_path / "b", "--to", f"docker://{target.host}", "--retag", retag, "--no-store")
        assert ("new/place", "2") in target.manifests
        assert all(("new/place", each["digest"]) in target.manifests for each in referring)
        assert any(name == "new/place" and tag.endswith(".sig") for name, tag in target.manifests)


def test_one_platform_of_an_index_takes_its_attestation_along(source: FakeRegistry, tmp_path: Path) -> None:
    run("export", f"docker://{source.host}/app/web:1", "--platform", "linux/arm64", "-o", tmp_path / "b", "--no-store")
    image = json.loads(run("inspect", tmp_path / "b", "--json"))["images"][0]
    assert image["platforms"] == ["linux/arm64"]
    strict = FakeRegistry(PERSONALITIES["dist28"]())
    with strict.running():
        code, said = says("import", tmp_path / "b", "--to", f"docker://{strict.host}", "--no-store")
        assert code == 20, said
        assert "only whole indexes" in said and "--index platform" in said
        assert ("app/web", "1") not in strict.manifests
        to = ["--to", f"docker://{strict.host}", "--no-store", "--index", "platform"]
        code, said = says("import", tmp_path / "b", *to)
        assert code == 0, said
        assert "linux/arm64 alone" in said
        kind, data = strict.manifests["app/web", "1"]
        assert kind == OCI_MANIFEST
        assert hashlib.sha256(data).hexdigest() in str(json.loads(everything()[0].blobs[image["digest"]]))
        found = json.loads(run("import", tmp_path / "b", *to, "--json"))
        assert found["images"][0]["status"] == "present"


def test_referrers_of_a_layout_cannot_be_asked_for(tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": b"1"})]), "app:1")
    layout.write(tmp_path / "l")
    code, said = says("export", "--from", f"oci:{tmp_path}/l", "--referrers", "-o", tmp_path / "b", "--no-store")
    assert code == 2, said
    assert "--referrers is for docker://" in said
