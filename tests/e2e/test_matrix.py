"""Every engine as a source, every engine as a sink: what each can keep is the same at the far end, and a container runs there."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.test_docker import daemon_of
from tests.e2e.test_registry import raw_digest
from tests.support import engines
from tests.support.gzipped import GZIP_LAYER, zlib_stream
from tests.support.nested import jar
from tests.support.podmen import podman
from tests.support.run import run
from tests.support.zoo import Layout, layer
from transfer.engines.archive import open_archive
from transfer.model import OCI_INDEX, OCI_MANIFEST, Platform
from transfer.streams import blocks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200), pytest.mark.xdist_group("matrix")]

SOURCES = ["docker 20.10", "docker 28", "podman", "containerd", "registry", "oci"]
NAMES = ["matrix/plain:1", "matrix/gzip:1", "matrix/multi:1"]


@dataclass
class Place:
    """An engine: how it is written, with which variables, whether it keeps manifests and compressed layers, and how a container is run."""

    text: str
    env: dict[str, str] = field(default_factory=dict)
    keeps_manifests: bool = True
    keeps_gzip: bool = True
    prefix: str = ""
    run: Callable[[str], str] | None = None
    digests: Callable[[str], set[str]] | None = None


def layout_of(folder: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """A layout of an image with plain layers, one with gzip layers and one for two platforms, all of which say "tiny"; their digests and configs."""
    layout = Layout()
    tiny = open_archive(engines.small_image(folder))
    found = tiny.resolve(engines.SMALL_IMAGE, None)
    data = {each.digest: b"".join(blocks(each.open(0), 1 << 20)) for each in tiny.read([found])}
    image = tiny.images([found], {d: b for d, b in data.items() if d}, {d: len(b) for d, b in data.items() if d})[0]
    layers = [data[each.digest] for each in image.layers]
    tiny.close()
    config = json.loads(data[image.config_digest])
    made = {}
    for name, packed, arch in ((NAMES[0], False, "amd64"), (NAMES[1], True, "amd64"), (NAMES[2], True, "arm64")):
        own = [*layers, layer({"etc/which": name.encode(), "srv/lib.jar": jar(len(name), 120)})]
        kind = GZIP_LAYER if packed else "application/vnd.oci.image.layer.v1.tar"
        blobs = [layout.blob(zlib_stream(each) if packed else each, kind) for each in own]
        ids = [layout.blob(each, kind)["digest"] for each in own]
        value = {**config, "architecture": arch, "rootfs": {"type": "layers", "diff_ids": ids}, "history": []}
        about = layout.document(value, "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": blobs}
        made[name] = (layout.document(manifest, OCI_MANIFEST), about)
    here = Platform.here()
    children = [
        {**made[name][0], "platform": {"os": "linux", "architecture": arch}}
        for name, arch in ((NAMES[1], here.architecture), (NAMES[2], "arm64"))
    ]
    index = layout.document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, OCI_INDEX)
    roots = {NAMES[0]: made[NAMES[0]][0], NAMES[1]: made[NAMES[1]][0], NAMES[2]: index}
    for name, root in roots.items():
        layout.name(root, name)
    known = {
        name: {"digest": roots[name]["digest"], "config": made[NAMES[1] if name == NAMES[2] else name][1]["digest"]}
        for name in NAMES
    }
    return layout.write(folder / "oci"), known


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[dict[str, Place], dict[str, dict[str, str]], Path]]:
    """All engines at once, each with its images in it as that engine has them; and the digests."""
    for name in ("docker", "docker28", "podman", "containerd", "registry"):
        engines.promised(name)
    folder = tmp_path_factory.mktemp("matrix")
    oci, known = layout_of(folder)
    run("export", "--from", f"oci:{oci}", "-o", folder / "b", "-q", "--no-store")
    with contextlib.ExitStack() as stack:
        places = dict(_places(stack, folder, oci))
        for place in places.values():
            if place.text != f"oci:{oci}":
                put(place, folder / "b")
        for name, place in places.items():  # before anything else comes into them
            asked(place, [place.prefix + each for each in NAMES], folder / f"out of {name}")
        yield places, known, folder


def _places(stack: contextlib.ExitStack, folder: Path, oci: Path) -> Iterator[tuple[str, Place]]:
    old = stack.enter_context(daemon_of("20.10", _made(folder / "old")))
    yield "docker 20.10", Place("docker-daemon:", {"DOCKER_HOST": old.host}, False, False, run=old.run)
    new = stack.enter_context(daemon_of("28 containerd", _made(folder / "new")))
    yield "docker 28", Place("docker-daemon:", {"DOCKER_HOST": new.host}, run=new.run)
    store = stack.enter_context(podman(_made(folder / "podman")))
    options = ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--rm"]
    yield (
        "podman",
        Place(
            "podman:",
            store.env,
            True,
            False,
            digests=store.digests,
            run=lambda name: store.run("--cgroup-manager", "cgroupfs", "run", *options, f"docker.io/{name}"),
        ),
    )
    ctr = stack.enter_context(engines.containerd(_made(folder / "containerd")))
    yield (
        "containerd",
        Place(
            "containerd:default/",
            {"CONTAINERD_ADDRESS": ctr[2]},
            run=lambda name: (
                subprocess.run(
                    [
                        *ctr,
                        "run",
                        "--rm",
                        "--runc-binary",
                        "runc",
                        f"docker.io/{name}",
                        name.replace("/", "-").replace(":", "-"),
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            ),
        ),
    )
    host = stack.enter_context(engines.registry(_made(folder / "registry")))
    yield "registry", Place(f"docker://{host}", prefix=f"{host}/")
    yield "oci", Place(f"oci:{oci}")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def put(place: Place, bundle: Path) -> None:
    run("import", bundle, "--to", place.text, "--no-store", "-q", env=place.env)


def shown(bundle: Path) -> dict[str, dict[str, object]]:
    found = json.loads(run("inspect", bundle, "--json"))["images"]
    return {"/".join(name.split("/")[-2:]): each for each in found for name in each["names"]}


def asked(place: Place, names: list[str], folder: Path) -> dict[str, dict[str, object]]:
    """What comes out of an engine under these names."""
    more = ["--platform", "all"] if place.prefix else []
    run("export", "--from", place.text, *names, *more, "-o", folder, "-q", "--no-store", env=place.env)
    return shown(folder)


Everything = tuple[dict[str, Place], dict[str, dict[str, str]], Path]


@pytest.mark.parametrize("name", SOURCES)
def test_out_of_each_engine_and_into_every_other(name: str, everything: Everything, tmp_path: Path) -> None:
    places, known, folder = everything
    source, bundle = places[name], folder / f"out of {name}"
    taken = shown(bundle)
    for each in NAMES:
        assert taken[each]["config_digest"] == known[each]["config"] or each == NAMES[2]
        keeps = source.keeps_manifests and (source.keeps_gzip or each == NAMES[0])
        assert (taken[each]["digest"] == known[each]["digest"]) == keeps, f"{each} out of {name}"
    for other, sink in places.items():
        target = Place(f"oci:{tmp_path}/out", sink.env) if other == "oci" else sink
        run("import", bundle, "--to", target.text, "--no-store", "-q", env=target.env)
        words = ["import", bundle, "--to", target.text, "--no-store", "-q", "--json"]
        again = json.loads(run(*words, env=target.env))
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0), f"again into {other}"
        arrived = asked(
            target, [(sink.prefix or source.prefix) + each for each in NAMES], tmp_path / f"back-{other[:9]}"
        )
        for each in NAMES:
            if sink.digests:
                assert taken[each]["digest"] in sink.digests(source.prefix + each), f"{each} from {name} in {other}"
            elif sink.keeps_manifests:
                assert arrived[each]["digest"] == taken[each]["digest"], f"{each} from {name} into {other}"
            if each != NAMES[2]:
                assert arrived[each]["config_digest"] == taken[each]["config_digest"]
        if sink.run and not source.prefix:
            assert ["tiny" in sink.run(each) for each in (NAMES[0], NAMES[2])] == [True, True]
    if name == "registry":
        assert raw_digest(f"{source.prefix}{NAMES[2]}") == known[NAMES[2]]["digest"]
