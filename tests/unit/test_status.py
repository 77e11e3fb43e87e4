"""What people, monitoring and hooks are told of syncs; reading it touches nothing and never fails."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.run import run, says
from tests.support.sites import MONDAY, SPOOL, Site
from transfer.cli.service import Service, listening, to_journal
from transfer.events import Event, Noted
from transfer.flows import history, hooks, metrics
from transfer.flows.status import statuses
from transfer.sites.sync_state import Failure, Flight, Run, Stage, SyncState, SyncStates

FILE = 'version = 1\n[[images]]\nfrom = "oci:DIR/oci"\nselect = ["*"]\n[[road]]\nkind = "spool"\nto = "DIR/spool"\n'


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "etc"
    (place / "sites").mkdir(parents=True)
    (place / "hooks.d").mkdir(mode=0o755)
    monkeypatch.setenv("TRANSFER_SITES", str(place / "sites"))
    monkeypatch.setenv("TRANSFER_STORE", str(tmp_path / "hq"))
    return place


def made(flight: Stage = "shipping") -> Flight:
    return Flight(
        3, "lab-000003", flight, "sha256:" + "1" * 64, {"a:1": "x"}, road="ssh", since=MONDAY, size=1000, sent=250
    )


STATES = {
    "fresh": SyncState("fresh"),
    "fine": SyncState("fine", 2, {"a:1": "x"}, attempt=MONDAY, confirmed=MONDAY, confirmed_serial=2, up_to_date=True),
    "lab": SyncState("lab", 3, {"a:1": "x"}, made(), attempt=MONDAY, contact=MONDAY, behind=MONDAY),
    "post": SyncState(
        "post", 3, {"a:1": "x"}, flights=(made("shipped"),), attempt=MONDAY, waiting="bundle 3 is on its way"
    ),
    "vault": SyncState("vault", 1, attempt=MONDAY, behind=MONDAY, waiting="no medium TRANSFER is inserted"),
    "burnt": SyncState(
        "burnt", 1, attempt=MONDAY, behind=MONDAY, failure=Failure("host-key", "its key changed", "look", 22, MONDAY, 3)
    ),
}


@pytest.fixture
def store(tmp_path: Path, etc: Path) -> Path:
    states = SyncStates(tmp_path / "hq")
    for name, state in STATES.items():
        (etc / "sites" / f"{name}.toml").write_text(FILE.replace("DIR", str(tmp_path)))
        if name != "fresh":
            states.put(state)
    return tmp_path / "hq"


def test_every_state_has_its_word(store: Path) -> None:
    found = {each.name: each for each in statuses(store, clock=lambda: MONDAY + 3600)}
    assert {name: each.word for name, each in found.items()} == {
        "fresh": "never run",
        "fine": "up to date",
        "lab": "shipping",
        "post": "on its way",
        "vault": "a medium wanted",
        "burnt": "failing",
    }
    assert "250 bytes of 1000 bytes (25 %)" in found["lab"].detail
    assert "3 times since" in found["burnt"].detail
    assert [name for name, each in found.items() if each.bad] == ["burnt"]
    later = {each.name: each for each in statuses(store, clock=lambda: MONDAY + 8 * 86400)}
    assert sorted(name for name, each in later.items() if each.stale) == ["burnt", "lab", "vault"]


def test_the_commands_say_it(store: Path, etc: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*"))
    said = run("status")
    assert re.search(r"fine +up to date", said)
    assert "-> look" in said
    assert run("status", "lab").count("\n") >= 1
    code, said = says("status", "--check")
    assert code == 3
    assert said.startswith("TRANSFER CRITICAL - 6 sites: burnt failing")
    assert "| sites=6 behind=3 failing=1" in said
    value = json.loads(run("status", "--json"))
    assert {each["site"] for each in value["sites"]} == set(STATES)
    assert value["receiving"] is None
    assert json.loads(run("site", "ls", "--json"))["sites"][0]["site"] == "burnt"
    assert "failing" in run("site", "show", "burnt")
    assert json.loads(run("log", "--json"))["events"] == []
    code, said = says("status", "nowhere")
    assert code == 10
    assert sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*")) == before
    (etc / "sites" / "lab.toml").write_text("version = 1\nspeed = 3\n")
    assert "line 2" in run("status")
    (store / "sync" / "fine.json").write_text("{")
    assert "unreadable" in run("status")


def test_a_store_that_nobody_made(tmp_path: Path, etc: Path) -> None:
    assert "no site has a site file here" in run("status")
    assert run("status", "--check").startswith("TRANSFER OK - 0 sites")
    assert "no sites yet" in run("site", "ls")
    assert "nothing since" in run("log", "--since", "7d")
    assert says("log", "--since", "soon")[0] == 2


def test_the_command_syncs(tmp_path: Path, etc: Path) -> None:
    site = Site(tmp_path, SPOOL)
    site.publish({"app:1": 1})
    (etc / "sites" / "plant.toml").write_text(site.text)
    plan = json.loads(run("sync", "plant", "--dry-run", "--json"))
    assert (plan["step"], plan["lacking"]) == ("begin a bundle", ["app:1"])
    assert not (tmp_path / "hq" / "sync").exists()
    assert json.loads(run("sync", "plant", "--json"))["outcome"] == "shipped"
    assert "exported" in run("log")
    assert says("sync", "plant", "--lost", "9")[0] == 10
    assert says("sync", "nowhere")[0] == 10
    assert says("sync", "../x")[0] == 2
    assert says("sync", "plant", "--wait", "soon")[0] == 2
    (tmp_path / "spool").rename(tmp_path / "gone")
    site.publish({"app:1": 2})
    code, said = says("sync", "plant")
    assert code == 75
    assert "does not exist" in said
    assert "The next run tries again" in said
    (tmp_path / "images").mkdir()
    assert run(
        "import", f"spool:{tmp_path}/gone", "--done", "move", "--to", f"oci:{tmp_path}/i", "--store", tmp_path / "far"
    )
    assert (tmp_path / "gone" / ".done" / "plant-000001").is_dir()
    assert json.loads((tmp_path / "gone" / ".receipt.json").read_bytes())["site"] == "plant"
    said = run("status", "--store", tmp_path / "far")
    assert "this store holds 1 bundle; last receipt: 1" in said
    assert "imported" in said


def test_metrics_are_whole_and_readable(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "textfile"
    place.mkdir()
    before = os.umask(0o077)
    try:
        run("status", "--metrics", place / "transfer.prom")
    finally:
        os.umask(before)
    path = place / "transfer.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in place.iterdir()] == ["transfer.prom"]
    lines = path.read_text().splitlines()
    plain = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+]+', line) for line in plain)
    for name in STATES:
        if name != "fresh":
            ones = [
                line for line in plain if line.startswith(f'transfer_sync_state{{site="{name}"') and line.endswith(" 1")
            ]
            assert len(ones) == 1
    assert 'transfer_sync_failures_consecutive{site="burnt"} 3' in plain
    assert len({line.split(" ")[2] for line in lines if line.startswith("# TYPE")}) == len(
        [line for line in lines if line.startswith("# TYPE")]
    )
    assert says("status", "--metrics", tmp_path / "nowhere" / "x.prom")[0] != 0


def test_a_run_whose_metrics_cannot_be_written_is_none_the_worse(tmp_path: Path, etc: Path) -> None:
    site = Site(tmp_path, SPOOL + f'[metrics]\ntextfile = "{tmp_path}/nowhere/x.prom"\n')
    site.publish({"app:1": 1})
    assert site.sync().exit_code == 0
    assert any("metrics could not be written" in text for text in site.heard)


HOOKS = {
    "fails": "#!/bin/sh\nexit 3\n",
    "hangs": "#!/bin/sh\nsleep 60 &\nsleep 60\n",
    "floods": "#!/bin/sh\nyes | head -c 30000000\n",
    "fine": '#!/bin/sh\necho "$0 $@ $(env | sort | tr "\\n" " ") $(cat)" > "$(dirname "$0")/../heard"\n',
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_do_what_they_like(name: str, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 1)
    monkeypatch.setenv("SECRET", "hunter2")
    path = etc / "hooks.d" / name
    path.write_text(HOOKS[name])
    path.chmod(0o755)
    said: list[Event] = []
    started = time.monotonic()
    hooks.tell("failed", {"site": "plant", "slug": "host-key", "serial": 4}, said.append)
    assert time.monotonic() - started < 20
    texts = " ".join(each.text for each in said if isinstance(each, Noted))
    if name == "fine":
        heard = (etc / "heard").read_text()
        assert "TRANSFER_EVENT=failed" in heard
        assert "TRANSFER_SLUG=host-key" in heard
        assert '"serial": 4' in heard
        assert "hunter2" not in heard
        assert texts == ""
    else:
        assert "hook" in texts
        assert len(texts) < 5000


def test_hooks_that_somebody_else_could_write_are_not_run(etc: Path) -> None:
    path = etc / "hooks.d" / "x"
    path.write_text(f"#!/bin/sh\ntouch {etc}/ran\n")
    for mode, folder in ((0o775, 0o755), (0o757, 0o755), (0o644, 0o755), (0o755, 0o777)):
        path.chmod(mode)
        path.parent.chmod(folder)
        said: list[Event] = []
        hooks.tell("failed", {"site": "plant"}, said.append)
        assert "is not run" in str(said)
    assert not (etc / "ran").exists()
    path.chmod(0o755)
    path.parent.chmod(0o755)
    hooks.tell("failed", {"site": "plant"}, said.append)
    assert (etc / "ran").exists()


def test_a_history_outlives_cuts_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history.note(tmp_path, history.Event(1.0, "exported", "plant", "sha256:x", 1))
    with (tmp_path / history.FILE).open("ab") as file:
        file.write(b'{"at": 2, "what": "ship')
    history.note(tmp_path, history.Event(3.0, "shipped", "plant", message="a\nb" * 9000))
    assert [(each.at, each.what) for each in history.read(tmp_path)] == [(1.0, "exported"), (3.0, "shipped")]
    assert [each.at for each in history.read(tmp_path, 2)] == [3.0]
    monkeypatch.setattr(history, "FILE_MAX", 2000)
    for number in range(100):
        history.note(tmp_path, history.Event(float(number), "receipt", "plant"))
    assert (tmp_path / history.FILE).stat().st_size < 4000
    assert [each.at for each in history.read(tmp_path)][-1] == 99.0
    (tmp_path / history.FILE).unlink()
    (tmp_path / history.FILE).symlink_to("/etc/passwd")
    history.note(tmp_path, history.Event(1.0, "exported"))
    assert (tmp_path / history.FILE).is_symlink()


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    states = SyncStates(tmp_path)
    for state in STATES.values():
        full = state.ran(Run(MONDAY, 75, "not-now", 1, 2, "ssh", "x"))
        states.put(full)
        assert states.get(state.site) == full


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(path))
        line.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "150000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

        def all_of_it() -> list[str]:
            out = []
            while True:
                try:
                    out.append(line.recv(4096).decode())
                except TimeoutError:
                    return out
                if any("STOPPING" in each for each in out):
                    return out

        yield all_of_it


def test_a_service_says_how_it_is(told: Callable[[], list[str]]) -> None:
    service = Service()
    assert "NOTIFY_SOCKET" not in os.environ  # what it starts does not speak for it
    service.ready("plant: begun")
    observer = service.heard(lambda event: None)
    observer(Noted("shipping\n3 of 33 MB"))
    time.sleep(0.3)
    service.stopping()
    said = told()
    assert said[0] == "READY=1\nSTATUS=plant: begun"
    assert "STATUS=shipping 3 of 33 MB" in said
    assert "WATCHDOG=1" in said
    assert said[-1] == "STOPPING=1"


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service = Service()
    service.ready()
    service.stopping()
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert listening() == []
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    to_journal("x", 6, {})
    assert metrics.state_of(SyncState("x")) == "behind"
