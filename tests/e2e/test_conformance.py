"""The conformance suites over real dockerds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conformance.sinks import HeldContent, Place, SinkSuite
from tests.conformance.sources import NAMES, OpenedSource, SourceSuite, suite_images
from tests.e2e.test_docker import KINDS, daemon_of
from tests.support import engines
from transfer.engines.archive import ArchiveSink
from transfer.engines.base import ImageSink, PlatformImage
from transfer.engines.daemon import DockerClient
from transfer.engines.docker import TEMPORARY, DockerSink, DockerSource, ReadWay
from transfer.model import Image
from transfer.serve.registry import Registry

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=KINDS)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    with daemon_of(request.param, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def visible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    """A daemon whose files this process sees; the newer ones run in a root of their own."""
    with daemon_of("20.10", tmp_path_factory.mktemp("visible")) as daemon:
        yield daemon


def opened_by(way: ReadWay, daemon: engines.Daemon, folder: Path, request: pytest.FixtureRequest) -> OpenedSource:
    daemon.remove_all()
    path, content = folder / "a.tar", HeldContent()
    sink = ArchiveSink(path, docker=True)
    for name in NAMES:
        sink.land(content.image(name), [name], content)
    sink.close(failed=False)
    daemon.load(path)
    source = DockerSource(DockerClient(daemon.host), way=way)
    request.addfinalizer(source.close)
    assert source.traits.random_access == (way == "files")
    return OpenedSource(source, suite_images())


class TestDockerSource(SourceSuite):
    @pytest.fixture
    def opened(self, daemon: engines.Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> OpenedSource:
        return opened_by("api", daemon, tmp_path, request)


class TestDockerSourceByFiles(SourceSuite):
    @pytest.fixture
    def opened(self, visible: engines.Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> OpenedSource:
        return opened_by("files", visible, tmp_path, request)


def identity(containerd: bool, image: Image) -> str:
    return str(image.root.digest if containerd else image.config_digest)


class TestDockerSinkByLoad(SinkSuite):
    way = "load"

    @pytest.fixture
    def place(self, daemon: engines.Daemon) -> Iterator[Place]:
        daemon.remove_all()
        containerd = daemon.store == "containerd"
        if self.way == "pull" and not daemon.version.startswith("20."):
            pytest.skip(
                "28 pulls layers as it likes: again where it has them, or not where they were removed (test_docker.py)"
            )
        with contextlib.ExitStack() as stack:

            def opened(content: HeldContent) -> ImageSink:
                registry = stack.enter_context(Registry(TEMPORARY, content.document, content.open))

                def publish(chosen: PlatformImage) -> str:
                    return registry.publish(chosen.manifest, chosen.config, chosen.layers)

                return DockerSink(DockerClient(daemon.host), way=self.way, publish=publish)  # type: ignore[arg-type]

            yield Place(opened, daemon.ids, partial(identity, containerd))


class TestDockerSinkByPull(TestDockerSinkByLoad):
    way = "pull"


def test_a_daemon_that_is_not_there_is_told(tmp_path: Path) -> None:
    from tests.support.run import says

    for host in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1"):
        code, text = says("images", env={"DOCKER_HOST": host})
        assert code == 20
        assert "does not answer" in text
