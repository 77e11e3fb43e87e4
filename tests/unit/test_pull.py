"""A site that takes what another side offers, and may only go out itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import Killed, Site
from transfer.cli.serve import make_certificate
from transfer.errors import EngineError, TransferError
from transfer.flows import roads
from transfer.flows.load_images import Loaded
from transfer.flows.offers import write_offers
from transfer.flows.pull import Pull
from transfer.flows.receiving import giving
from transfer.flows.site_run import Outcome
from transfer.ship.receive import Receiver
from transfer.ship.receiver import ReceiverDepot
from transfer.ship.socketed import SocketChannel
from transfer.sites.site_file import parse_site
from transfer.store.entry import Role
from transfer.store.store import Store

HQ = """
version = 1
[[images]]
from = "oci:DIR/oci"
select = ["*"]
[[road]]
kind = "folder"
to = "DIR/outbox/plant"
"""
PULL = """
version = 1
role = "pull"
[[road]]
kind = "KIND"
to = "PLACE"
import_to = "oci:DIR/images"
"""


@dataclass
class Both:
    """A sender that leaves bundles in an outbox, and a site that takes them."""

    hq: Site
    pulling: str

    def pull(self, after: Callable[[str], None] = lambda step: None) -> Outcome:
        text = self.pulling.replace("DIR", str(self.hq.folder)).encode()
        site = parse_site(text, "plant", self.hq.folder / "pull.toml")
        return Pull(site, Store(self.hq.far.root), self.hq.hear, clock=lambda: self.hq.now, after=after).run()


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Both]:
    monkeypatch.setenv("TRANSFER_SITES", str(tmp_path / "etc" / "sites"))
    (tmp_path / "outbox" / "plant").mkdir(parents=True)
    hq = Site(tmp_path, HQ)

    class OutboxLine:
        def receiver(self) -> ReceiverDepot:
            ours, theirs = socket.socketpair()
            outbox = tmp_path / "outbox" / "plant"
            duties = giving(Store(hq.hq.root), outbox, "plant")
            serving = Receiver(SocketChannel(theirs, "site"), inbox=outbox, duties=duties, outbox=True)
            threading.Thread(target=serving.run, daemon=True).start()
            return ReceiverDepot(SocketChannel(ours, "hq"), "hq", "")

    monkeypatch.setattr(roads, "connector", lambda road, gate, observer: OutboxLine())
    return lambda kind, place: Both(hq, PULL.replace("KIND", kind).replace("PLACE", place))


@dataclass
class Web:
    """A web server, and what it does wrong: `cut`: bytes after which the connection ends; `whole`: it knows no ranges."""

    port: int = 0
    cut: int = 0
    whole: bool = False
    redirect: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    out = Web()

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            out.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
            if out.redirect:
                self.send_response(302)
                self.send_header("Location", out.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = Path(self.translate_path(self.path))
            data = path.read_bytes() if path.is_file() else None
            if data is None:
                self.send_error(404)
                return
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if not out.whole else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            body = data[start:]
            if out.cut and len(body) > out.cut:
                self.wfile.write(body[: out.cut])
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "outbox")))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    out.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield out
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("kind", ["ssh", "folder", "https"])
def test_what_is_offered_is_taken_and_confirmed(kind: str, both: Callable[[str, str], Both], web: Web) -> None:
    place = {"ssh": "hq:", "folder": "DIR/outbox/plant", "https": f"https://127.0.0.1:{web.port}/plant"}[kind]
    here = both(kind, place)
    want = here.hq.publish({"app:1": 1, "web:1": 1})
    assert here.hq.sync().what == "shipped"
    outcome = here.pull()
    assert (outcome.exit_code, outcome.what) == (0, "up-to-date"), (outcome, here.hq.heard)
    assert here.hq.there() == want
    assert here.pull().size == 0
    if kind == "https":
        here.hq.bring(here.hq.receipt())
    assert here.hq.sync().what == "up-to-date", here.hq.heard
    want = here.hq.publish({"app:1": 2, "web:1": 1})
    here.hq.sync()
    assert here.pull().exit_code == 0
    assert here.hq.there() == want
    assert list((here.hq.far.root / "in" / "plant").iterdir()) == []


def test_a_line_that_breaks_is_gone_on_with(both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    want = here.hq.publish({f"app:{n}": n for n in range(40)})
    here.hq.sync()
    web.cut = 100_000
    outcome = here.pull()
    assert outcome.exit_code == 0, (outcome, here.hq.heard)
    assert here.hq.there() == want
    assert any("bytes=" in each for each in web.asked), web.asked


def test_a_server_without_ranges(both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    want = here.hq.publish({f"app:{n}": n for n in range(3)})
    here.hq.sync()
    web.whole = True
    assert here.pull().exit_code == 0
    assert here.hq.there() == want


def test_killed_in_the_middle(both: Callable[[str, str], Both]) -> None:
    here = both("ssh", "hq:")
    want = here.hq.publish({"app:1": 1})
    here.hq.sync()

    def after(step: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        here.pull(after)
    assert here.hq.there() == {}
    assert here.pull().exit_code == 0
    assert here.hq.there() == want


@pytest.mark.parametrize("ends", [EngineError("no space left on device"), Killed()])
def test_an_import_that_did_not_end_well_is_run_again(
    both: Callable[[str, str], Both], monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    """The bundle is in the store already, and counts as held by nobody before its images are in place."""
    here = both("ssh", "hq:")
    want = here.hq.publish({"app:1": 1})
    here.hq.sync()

    def failing(*words: object, ready: Callable[[], None], **more: object) -> Loaded:
        ready()
        while not list(here.hq.far.root.glob("bundles/*.json")):
            time.sleep(0.01)
        raise ends

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("transfer.flows.import_bundle.load_images", failing)
        assert here.pull().exit_code != 0
    assert [each.role for each in Store(here.hq.far.root).entries()] == [Role.STAGED]
    assert json.loads(here.hq.receipt())["bundles"] == []
    outcome = here.pull()
    assert (outcome.exit_code, outcome.what) == (0, "up-to-date"), (outcome, here.hq.heard)
    assert here.hq.there() == want


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda web: setattr(web, "redirect", "https://evil.example/offers.json"), 20),
        (lambda web: setattr(web, "redirect", "file:///etc/passwd"), 20),
    ],
)
def test_a_redirect_is_refused(
    change: Callable[[Web], None], code: int, both: Callable[[str, str], Both], web: Web
) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    change(web)
    outcome = here.pull()
    assert outcome.exit_code == code, outcome
    assert "refused" in outcome.message


def offered(here: Both) -> Path:
    return here.hq.folder / "outbox" / "plant" / "offers.json"


@pytest.mark.parametrize("folder", ["../x", "a/b", ".hidden", "", "x" * 300, "a\x00b", "/etc", 5, None, "CON:", "a\nb"])
def test_an_offer_is_no_path(folder: object, both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    here.hq.publish({"app:1": 1})
    here.hq.sync()
    value = json.loads(offered(here).read_text())
    value["offers"][0]["folder"] = folder
    offered(here).write_text(json.dumps(value))
    outcome = here.pull()
    assert outcome.exit_code in (10, 13), outcome
    assert not (here.hq.far.root / "in").exists() or not list((here.hq.far.root / "in" / "plant").iterdir())


def test_a_file_that_is_not_what_its_name_says_lands_nowhere(both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    here.hq.publish({"app:1": 1})
    here.hq.sync()
    for path in (here.hq.folder / "outbox" / "plant" / "plant-000001" / "blobs" / "sha256").iterdir():
        path.write_bytes(bytes(len(path.read_bytes())))
    outcome = here.pull()
    assert outcome.exit_code == 13, outcome
    assert here.hq.there() == {}


def test_an_outbox_gives_and_takes_nothing(both: Callable[[str, str], Both]) -> None:
    here = both("ssh", "hq:")
    here.hq.publish({"app:1": 1})
    here.hq.sync()
    site = parse_site(here.pulling.replace("DIR", str(here.hq.folder)).encode(), "plant", Path("x.toml"))
    depot = roads.connector(site.roads[0], None, here.hq.hear).receiver()  # type: ignore[arg-type]
    with contextlib.closing(depot):
        for call in (
            lambda: depot.append("x/index.json", b"x", 0) or depot.finish("x/index.json", "sha256:" + "0" * 64, 1),  # type: ignore[func-returns-value, arg-type]
            lambda: depot.discard("plant-000001/index.json"),
            lambda: depot.hold("x", "t"),
            lambda: depot.run_import("plant-000001", {}, lambda value: None),
            lambda: list(depot.read("../../etc/passwd")),
            lambda: list(depot.read("offers.json")),
            lambda: depot.accept(
                json.dumps(
                    {
                        "format": "transfer.receipt",
                        "version": 1,
                        "site": "other",
                        "serial": 1,
                        "bundles": [],
                        "roots": [],
                    }
                ).encode()
            ),
        ):
            with pytest.raises(TransferError):
                call()
    assert sorted(each.name for each in (here.hq.folder / "outbox" / "plant").iterdir()) == [
        "offers.json",
        "plant-000001",
    ]


def test_an_older_program_there_is_told_by_name(
    both: Callable[[str, str], Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = both("ssh", "hq:")
    from transfer.flows import receiving

    real = receiving.giving
    monkeypatch.setattr("tests.unit.test_pull.giving", lambda *words: type(real(*words))())
    outcome = here.pull()
    assert outcome.exit_code == 13
    assert "does not offer `offers`" in outcome.message


def test_a_bundle_that_waits_is_not_up_to_date(both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    outbox = here.hq.folder / "outbox" / "plant"
    here.hq.publish({"app:1": 1})
    here.hq.sync()
    here.pull()
    here.hq.bring(here.hq.receipt())
    here.hq.sync()
    here.hq.publish({"app:1": 2})
    here.hq.sync()
    shutil.rmtree(here.hq.far.root)
    first = outbox / "plant-000001"
    first.rename(here.hq.folder / "kept")
    write_offers(outbox)
    here.hq.target = here.hq.folder / "nothing"
    here.pulling = here.pulling.replace("DIR/images", "DIR/nothing")
    outcome = here.pull()
    assert (outcome.what, outcome.exit_code) == ("shipped", 0)
    assert "waits for others" in outcome.message
    (here.hq.folder / "kept").rename(first)
    write_offers(outbox)
    assert here.pull().what == "up-to-date", here.hq.heard


def test_one_offer_that_is_damaged_does_not_hold_up_the_next(both: Callable[[str, str], Both], web: Web) -> None:
    here = both("https", f"https://127.0.0.1:{web.port}/plant")
    here.hq.publish({"bad:1": 1}, base=7000)
    here.hq.sync()
    want = here.hq.publish({"app:1": 1})
    here.hq.sync()
    for path in (here.hq.folder / "outbox" / "plant" / "plant-000001" / "blobs" / "sha256").iterdir():
        path.write_bytes(bytes(len(path.read_bytes())))
    outcome = here.pull()
    assert outcome.exit_code == 13
    assert here.hq.there() == want
