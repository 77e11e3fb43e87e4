"""The conformance suites over real dockerds."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.conformance.sinks import HeldContent, Place, SinkSuite, saved_suite
from tests.conformance.sources import NAMES, OpenedSource, SourceSuite, suite_images
from tests.e2e.test_docker import KINDS, daemon_of
from tests.support import engines
from transfer.engines.base import ImageSink, ImportedImage, OtherFailed
from transfer.engines.daemon import DockerClient
from transfer.engines.docker import DockerSource, ReadWay
from transfer.engines.docker_sink import DockerSink, LoadWay
from transfer.engines.tree import PlatformImage
from transfer.errors import TransferError, TryAgain
from transfer.flows.claims import Claims
from transfer.flows.serving import Serving
from transfer.model import Descriptor, Image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=KINDS)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    with daemon_of(request.param, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture(scope="module", params=["20.10", "28 containerd"])
def visible(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    """A daemon whose files this process sees: a newer one's layers are mounted in a root of its own, its content folder is not."""
    with daemon_of(request.param, tmp_path_factory.mktemp("visible")) as daemon:
        yield daemon


def opened_by(way: ReadWay, daemon: engines.Daemon, folder: Path, request: pytest.FixtureRequest) -> OpenedSource:
    daemon.remove_all()
    daemon.load(saved_suite(folder / "a.tar"))
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
    way: LoadWay = "load"

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
                serving = Serving()
                serving.content = content
                stack.enter_context(serving.open())
                return DockerSink(DockerClient(daemon.host), way=self.way, publish=serving.publish)

            yield Place(opened, daemon.ids, partial(identity, containerd))

    def test_two_at_once_bring_what_they_share_once(self, place: Place) -> None:
        """The second is on its way while the first still brings the base, and lands when that is there."""
        content = _Gated(30 if self.way == "load" else 2)
        with contextlib.closing(_Both(place.open(content), content)) as both:
            assert [each.layers_sent for each in both.land()] == [2, 1]
        assert len(content.sent) == len(set(content.sent)) == 3
        assert content.together == (self.way == "load")
        assert place.holds() == {name: place.identity(content.image(name)) for name in NAMES[1:]}

    def test_if_the_one_that_brings_it_fails_the_other_brings_it(self, place: Place) -> None:
        content = _Gated()
        content.broken.add(content.image(NAMES[1]).layers[1].digest)
        with contextlib.closing(_Both(place.open(content), content)) as both:
            failed, landed = both.started()
            with pytest.raises(TransferError):
                failed.result()
            assert landed.result().layers_sent == 2
        assert place.holds() == {NAMES[2]: place.identity(content.image(NAMES[2]))}


class _Gated(HeldContent):
    """The base comes only when the second image's own layer is being sent as well, or after a while."""

    def __init__(self, seconds: float = 2) -> None:
        super().__init__()
        self.first, self.second, self.together = threading.Event(), threading.Event(), False
        self._seconds = seconds

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        base, own = self.image(NAMES[2]).layers
        if descriptor == own:
            self.second.set()
        if descriptor == base and not self.first.is_set():
            self.first.set()
            self.together = self.second.wait(self._seconds)
        yield from super().open(descriptor, start)


class _Both:
    """Two images that share their base, landing at once."""

    def __init__(self, sink: ImageSink, content: _Gated) -> None:
        self._sink, self._content, self._lanes = sink, content, ThreadPoolExecutor(2)
        self._claims = Claims()

    def started(self) -> list[Future[ImportedImage]]:
        out = []
        for name in NAMES[1:]:
            image = self._content.image(name)
            claimed = threading.Event()
            out.append(self._lanes.submit(self._put, image, name, claimed))
            assert claimed.wait(30)
        return out

    def _put(self, image: Image, name: str, claimed: threading.Event) -> ImportedImage:
        while True:
            with contextlib.suppress(OtherFailed), self._claims.turn(claimed.set) as turn:
                return self._sink.put(image, [name], self._content, turn)

    def land(self) -> list[ImportedImage]:
        return [each.result() for each in self.started()]

    def close(self) -> None:
        self._lanes.shutdown()
        self._sink.close(failed=False)


class TestDockerSinkByPull(TestDockerSinkByLoad):
    way: LoadWay = "pull"


def test_a_daemon_that_is_not_there_is_told(tmp_path: Path) -> None:
    from tests.support.run import says

    for host in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1"):
        code, text = says("images", env={"DOCKER_HOST": host})
        assert code == 20
        assert "does not answer" in text


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # httpcore leaves a unix socket that refused to its finaliser
def test_a_daemon_that_dies_while_it_takes_an_image_is_worth_another_try(tmp_path: Path) -> None:
    """It is told as that, and nothing else is tried on a daemon that is gone."""
    with daemon_of("20.10", tmp_path) as daemon:
        root = daemon.get("/info")["DockerRootDir"]
        content = _Deadly(root)
        tried: list[PlatformImage] = []

        def publish(chosen: PlatformImage) -> str:
            tried.append(chosen)
            raise AssertionError

        sink = DockerSink(DockerClient(daemon.host), publish=publish)
        with pytest.raises(TryAgain):
            sink.put(content.image(NAMES[0]), [NAMES[0]], content)
        sink.close(failed=True)
        assert not tried


class _Deadly(HeldContent):
    """The daemon with this data folder is killed while the first layer is sent."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = root

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        subprocess.run(["pkill", "-KILL", "-f", f"^dockerd .*{self._root}"], check=True)
        yield from super().open(descriptor, start)
