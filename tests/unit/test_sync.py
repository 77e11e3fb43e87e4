"""A sync: up to date in the end, wherever a run was killed, whatever was lost on the way; and nobody is woken for a site that is offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sites import MONDAY, SPOOL, SSH, Killed, Site
from transfer.bundle.reader import Bundle
from transfer.errors import TransferError
from transfer.flows import history
from transfer.flows import site as site_flow
from transfer.flows.ledger import lose
from transfer.flows.sync_plan import Step
from transfer.sites.receipt import parse_receipt
from transfer.sites.states import Sites
from transfer.sites.sync_state import SyncStates
from transfer.store.store import Store

HOUR, DAY = 3600, 86400


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Site]:
    monkeypatch.setenv("TRANSFER_SITES", str(tmp_path / "etc" / "sites"))
    return lambda text: Site(tmp_path, text).patch(monkeypatch)


def events(site: Site) -> list[str]:
    return [each.what for each in history.read(site.hq.root)]


def hook(site: Site) -> Callable[[], list[str]]:
    """What hooks heard."""
    folder = site.folder / "etc" / "hooks.d"
    folder.mkdir(parents=True, mode=0o755)
    script = folder / "tell"
    script.write_text(f'#!/bin/sh\necho "$1 $TRANSFER_SLUG" >> {site.folder}/heard\n')
    script.chmod(0o755)

    def heard() -> list[str]:
        path = site.folder / "heard"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    return heard


def test_over_a_line_that_answers(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    want = here.publish({"app:1": 1, "web:1": 1})
    outcome = here.sync()
    assert (outcome.exit_code, outcome.what) == (0, "up-to-date"), here.heard
    assert here.there() == want
    assert events(here) == ["exported", "shipped", "imported", "receipt", "confirmed"]
    want = here.publish({"app:1": 2, "web:1": 1, "new:1": 1})
    assert here.sync().what == "up-to-date"
    assert here.there() == want
    with Bundle(here.hq.root / "out" / "plant" / "plant-000002") as second:
        assert second.is_delta
    assert not (here.hq.root / "out" / "plant" / "plant-000001").exists()
    asked = here.line.asked
    before = SyncStates(here.hq.root).get("plant")
    here.now += HOUR
    assert here.sync().what == "up-to-date"
    assert here.line.asked == asked
    after = SyncStates(here.hq.root).get("plant")
    assert after.attempt == here.now
    assert before.history == after.history


def test_by_a_spool_and_a_receipt(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    want = here.publish({"app:1": 1})
    assert here.sync().what == "shipped"
    assert here.sync().what == "shipped"
    assert here.arrive() == ["plant-000001"]
    here.bring(here.receipt())
    assert here.sync().what == "up-to-date"
    assert here.there() == want
    assert list((here.hq.root / "receipts" / "in").iterdir()) == []


def test_a_name_that_goes_back_is_sent_again(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    first = here.publish({"app:1": 1})
    here.sync()
    here.publish({"app:1": 2})
    here.sync()
    here.publish({"app:1": 1})
    assert here.sync().serial == 3
    assert here.there() == first


def test_a_bundle_that_comes_late_moves_no_names_back(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    here.publish({"app:1": 1})
    here.sync()
    here.arrive()
    here.bring(here.receipt())
    here.publish({"app:1": 2, "extra:1": 1})
    assert here.sync().serial == 2
    want = here.publish({"app:1": 3})
    assert here.sync().serial == 3
    assert here.arrive(only=["plant-000003"]) == ["plant-000003"]
    assert here.arrive() == ["plant-000002"]
    found = here.there()
    assert {name: found[name] for name in want} == want
    assert "extra:1" in found
    here.bring(here.receipt())
    assert here.sync().what == "up-to-date"


@pytest.mark.parametrize("text", [SSH, SPOOL], ids=["ssh", "spool"])
def test_killed_after_any_step_it_ends_the_same(text: str, site: Callable[[str], Site]) -> None:
    here = site(text)
    here.publish({"app:1": 1, "web:1": 1})
    steps: list[str] = []
    for at in range(40):
        steps = []

        def after(step: str, at: int = at, steps: list[str] = steps) -> None:
            steps.append(step)
            if len(steps) > at:
                raise Killed

        try:
            outcome = here.sync(after=after)
        except Killed:
            outcome = here.sync()
        assert outcome.exit_code == 0, (steps, here.heard)
        if text is SPOOL:
            here.arrive()
            here.bring(here.receipt())
            assert here.sync().what == "up-to-date"
        assert here.there() == here.publish({"app:1": at + 1, "web:1": 1} if at else {"app:1": 1, "web:1": 1})
        if Step.UP_TO_DATE in steps or Step.AWAIT in steps:
            break
        here.publish({"app:1": at + 2, "web:1": 1})
    assert len(steps) > 4
    serials = [each.serial for each in history.read(here.hq.root) if each.what == "exported"]
    digests = {each.serial: each.bundle for each in history.read(here.hq.root) if each.what == "exported"}
    assert all(digests[each.serial] == each.bundle for each in history.read(here.hq.root) if each.what == "exported")
    assert serials == sorted(serials)


def test_a_host_that_does_not_answer_is_no_alarm(site: Callable[[str], Site]) -> None:
    here = site(SSH + '[alarm]\nstale = "7d"\nrepeat = "24h"\n')
    heard = hook(here)
    here.publish({"app:1": 1})
    here.line.up = False
    for night in range(10):
        here.now = MONDAY + night * DAY
        outcome = here.sync()
        assert (outcome.exit_code, outcome.what) == (75, "not-now")
    assert heard() == ["stale ", "stale ", "stale "]
    here.line.up = True
    assert here.sync().what == "up-to-date"
    assert heard()[3:] == ["confirmed "]


def test_a_failure_is_told_once_and_that_it_is_over(
    site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(SSH)
    heard = hook(here)
    here.publish({"app:1": 1})
    from transfer.errors import HostKeyError
    from transfer.flows import roads

    def refused(*args: object) -> None:
        raise HostKeyError("its host key is another one", hint="find out which")

    with monkeypatch.context() as patched:
        patched.setattr(roads, "connector", refused)
        for minute in range(5):
            here.now = MONDAY + minute * 900
            assert here.sync().exit_code == 22
        here.now = MONDAY + DAY
        assert here.sync().exit_code == 22
    state = SyncStates(here.hq.root).get("plant")
    assert state.failure
    assert (state.failure.count, state.failure.since) == (6, MONDAY)
    assert here.sync().exit_code == 0
    assert heard() == ["failed host-key", "failed host-key", "confirmed ", "recovered host-key"]


def test_wants_that_change_on_the_way(site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing of was sent is dropped; what a byte of was sent is finished first."""
    here = site(SPOOL)
    here.publish({"app:1": 1})

    def after(step: str) -> None:
        if step == Step.EXPORT:
            raise Killed

    with pytest.raises(Killed):
        here.sync(after=after)
    here.publish({"app:1": 2})
    assert here.sync().what == "shipped"
    with Bundle(here.folder / "spool" / "plant-000002") as bundle:
        assert len(bundle.images) == 1
    assert not (here.folder / "spool" / "plant-000001").exists()

    from transfer.flows import roads

    def cut(*args: object, **words: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(roads, "send", cut)
        here.publish({"app:1": 3})
        with pytest.raises(Killed):
            here.sync()
    here.publish({"app:1": 4})
    assert here.sync().serial == 4
    assert sorted(each.name for each in (here.folder / "spool").iterdir() if each.is_dir()) == [
        f"plant-00000{n}" for n in (2, 3, 4)
    ]


def test_the_folder_of_a_bundle_on_its_way_was_deleted(
    site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(SSH)
    want = here.publish({"app:1": 1})
    here.line.up = False
    assert here.sync().exit_code == 75
    shutil.rmtree(here.hq.root / "out")
    here.line.up = True
    assert here.sync().what == "up-to-date", here.heard
    assert here.there() == want


def test_a_store_over_there_that_was_lost(site: Callable[[str], Site]) -> None:
    """Only a person can say that an older receipt is the right one; then all is sent again."""
    here = site(SSH)
    heard = hook(here)
    for version in (1, 2):
        here.publish({"app:1": version})
        here.sync()
    for each in (here.far.root, here.target, here.inbox):
        shutil.rmtree(each)
    here.inbox.mkdir()
    here.publish({"app:1": 3})
    outcome = here.sync()  # a delta on what is gone
    assert outcome.exit_code == 15
    assert outcome.error
    path = outcome.error.hint.split()[-1]
    assert Path(path).is_file()
    assert here.sync().exit_code == 15
    site_flow.accept(here.hq, Path(path).read_bytes(), "r", anew=True)
    want = here.publish({"app:1": 4, "web:1": 1})
    assert here.sync().what == "up-to-date", here.heard
    assert here.there() == want
    assert SyncStates(here.hq.root).get("plant").fulls == {"first": 1, "base-unknown": 1}
    assert heard()[-1].startswith("recovered")


def test_a_base_that_was_forgotten_over_there_against_all_rules(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    for version in (1, 2):
        here.publish({"app:1": version}, base=version * 1000)
        here.sync()
    from transfer.flows import retention

    here.far = Store(here.far.root)
    retention.forget(here.far, 1, at_once=True)
    here.receipt()
    want = here.publish({"app:1": 1}, base=1000)
    assert here.sync().what == "up-to-date", here.heard
    assert here.there() == want


def test_a_receipt_of_another_site_or_an_older_one_is_set_aside(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    here.publish({"app:1": 1})
    here.sync()
    here.arrive()
    old = here.receipt()
    here.publish({"app:1": 2})
    here.bring(old)
    here.sync()
    here.arrive()
    here.bring(here.receipt(), "a.json")
    assert here.sync().what == "up-to-date"
    other = json.loads(old) | {"site": "elsewhere"}
    here.bring(json.dumps(other).encode(), "b.json")
    here.bring(old, "c.json")
    here.bring(b"not a receipt", "d.json")
    assert here.sync().exit_code == 0
    left = sorted(each.name for each in (here.hq.root / "receipts" / "in").iterdir())
    assert left == ["b.json", "c.json.refused", "d.json.refused"]


def test_a_lost_bundle_is_sent_again(site: Callable[[str], Site]) -> None:
    here = site(SPOOL + '[keep]\nlost_after = "10d"\n')
    want = here.publish({"app:1": 1})
    here.sync()
    shutil.rmtree(here.folder / "spool" / "plant-000001")
    lose(here.file, here.hq, 1, here.hear)
    assert here.sync().serial == 2
    shutil.rmtree(here.folder / "spool" / "plant-000002")
    here.now += 11 * DAY
    assert here.sync().serial == 3
    here.arrive()
    here.bring(here.receipt())
    assert here.sync().what == "up-to-date"
    assert here.there() == want
    assert events(here).count("lost") == 2
    with pytest.raises(TransferError, match="not on its way"):
        lose(here.file, here.hq, 1, here.hear)


def test_the_window_is_waited_for(site: Callable[[str], Site]) -> None:
    here = site(SSH + '[window]\nopen = ["* 22:00-05:00"]\nzone = "UTC"\n')
    here.publish({"app:1": 1})
    here.now = MONDAY + 12 * HOUR
    outcome = here.sync()
    assert outcome.exit_code == 75
    assert "it opens Mon 22:00" in outcome.message
    assert (here.hq.root / "out" / "plant" / "plant-000001" / "index.json").exists()
    assert here.line.asked == 0
    here.now = MONDAY + 23 * HOUR
    assert here.sync().what == "up-to-date"
    here.publish({"app:1": 2})
    here.now = MONDAY + 36 * HOUR
    assert here.sync(now=True).what == "up-to-date"


def test_a_window_that_shuts_in_the_middle_pauses(site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    here = site(SPOOL + '[window]\nopen = ["* 00:00-00:02"]\nzone = "UTC"\nlimits = [["*", "200K"]]\n')
    here.publish({f"app:{n}": n for n in range(6)})
    from transfer.ship import gate

    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        here.now += seconds * 200  # the clock runs faster than the line

    defaults = gate.Gate.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(gate.Gate.__init__, "__kwdefaults__", {**defaults, "sleep": sleep})
    outcome = here.sync()
    assert outcome.exit_code == 75, outcome
    assert "window is shut" in outcome.message
    state = SyncStates(here.hq.root).get("plant")
    assert state.under_way
    assert state.under_way.stage == "shipping"
    for night in range(1, 40):
        here.now = MONDAY + night * DAY
        outcome = here.sync()
        if outcome.exit_code == 0:
            break
    assert outcome.what == "shipped"
    assert night > 1
    assert here.arrive() == ["plant-000001"]


def test_two_at_once(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    here.publish({"app:1": 1})
    inner = []

    def after(step: str) -> None:
        if step == Step.BEGIN:
            inner.append(here.sync())

    assert here.sync(after=after).what == "up-to-date"
    assert [(each.what, each.exit_code) for each in inner] == [("busy", 0)]


def test_a_state_that_cannot_be_read_is_made_again(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    want = here.publish({"app:1": 1})
    here.sync()
    path = here.hq.root / "sync" / "plant.json"
    for data in (b"", b"[]", b'{"format":"transfer.sync","version":1,"site":"plant"}', b"\xff" * 100):
        path.write_bytes(data)
        assert here.sync().what == "up-to-date"
        assert path.with_suffix(".broken").read_bytes() == data
    assert here.there() == want


def test_missing_images(site: Callable[[str], Site]) -> None:
    here = site(SSH.replace('select = ["*"]', 'select = ["app:1", "gone:1"]'))
    here.publish({"app:1": 1})
    assert here.sync().exit_code == 10
    here.text = here.text.replace('gone:1"]', 'gone:1"]\nmissing = "skip"')
    assert here.sync().what == "up-to-date"
    assert SyncStates(here.hq.root).get("plant").missing == ("gone:1",)


def test_only_the_newest_and_none_that_is_excluded(site: Callable[[str], Site]) -> None:
    chosen = 'select = ["app:*", "web:*"]\nexclude = ["*-debug"]\nnewest = 2'
    here = site(SSH.replace('select = ["*"]', chosen))
    here.publish({"app:1.9": 1, "app:1.10": 2, "app:1.10-rc1": 3, "app:1.11-debug": 4, "web:1": 5, "other:1": 6})
    assert here.sync().what == "up-to-date"
    assert sorted(here.there()) == ["app:1.10", "app:1.9", "web:1"] or sorted(here.there()) == [
        "app:1.10",
        "app:1.10-rc1",
        "web:1",
    ]


def test_old_bundles_go_when_both_sides_know(site: Callable[[str], Site]) -> None:
    """Nothing that is shipped builds on what is gone; what nobody needs is gone in the end."""
    here = site(SSH + "[keep]\nout = 1\nhere = 1\nthere = 2\n")
    here.line.keep = 1
    for version in range(1, 8):
        want = here.publish({"app:1": version, "web:1": version // 3}, base=version * 1000)
        outcome = here.sync()
        assert outcome.what == "up-to-date", here.heard
        assert here.there() == want
    held = [entry for entry in here.far.entries() if entry.role == "held"]
    assert len(held) < 6
    confirmed = Sites(here.hq.root).get("plant").confirmed
    given = set(parse_receipt(here.receipt(), "r").bundles)
    assert {each.hex for each in confirmed} <= {each.digest.hex for each in here.far.entries()}
    assert given


def test_what_a_bundle_on_its_way_builds_on_stays(site: Callable[[str], Site]) -> None:
    """The second bundle is late; meanwhile the third comes, and the site would like to forget the first."""
    from transfer.flows import retention

    here = site(SPOOL)
    here.publish({"app:1": 1})
    here.sync()
    here.arrive()
    here.bring(here.receipt())
    here.publish({"app:1": 2})
    assert here.sync().serial == 2
    want = here.publish({"app:1": 3}, base=5000)
    assert here.sync().serial == 3
    assert here.arrive(only=["plant-000003"]) == ["plant-000003"]
    assert retention.forget(here.far, 1).leaving
    here.bring(here.receipt())
    here.sync()
    state = SyncStates(here.hq.root).get("plant")
    assert (state.receipt, state.acked) == (2, 1)
    retention.acknowledge(here.far, state.acked)
    assert retention.forget(Store(here.far.root), 1).pruned.removed == ()
    assert here.arrive() == ["plant-000002"]
    assert here.there() == want
    here.bring(here.receipt())
    here.sync()
    state = SyncStates(here.hq.root).get("plant")
    assert (state.receipt, state.acked) == (3, 3)
    retention.acknowledge(here.far, state.acked)
    assert len(retention.forget(Store(here.far.root), 1).pruned.suppliers) == 1  # the second one still needs the first


def test_a_full_bundle_now_and_then(site: Callable[[str], Site]) -> None:
    here = site(SSH + '[delta]\nfull_every = "30d"\n')
    for day, full in ((0, True), (10, False), (45, True), (50, False)):
        here.now = MONDAY + day * DAY
        here.publish({"app:1": day})
        assert here.sync().what == "up-to-date"
        with Bundle(sorted((here.hq.root / "out" / "plant").iterdir())[-1]) as bundle:
            assert bundle.is_delta is not full
    assert SyncStates(here.hq.root).get("plant").fulls == {"first": 1, "age": 1}
    here.publish({"app:1": 99})
    here.sync(full=True)
    assert SyncStates(here.hq.root).get("plant").fulls == {"first": 1, "age": 1, "asked": 1}


def test_an_image_that_cannot_be_exported_is_left_out_and_told(site: Callable[[str], Site]) -> None:
    here = site(SSH.replace('select = ["*"]', 'select = ["*"]\nmissing = "skip"'))
    want = here.publish({"app:1": 1, "bad:1": 1})
    manifest = json.loads((here.folder / "oci" / "blobs" / "sha256" / want["bad:1"][7:]).read_bytes())
    layer = here.folder / "oci" / "blobs" / "sha256" / manifest["layers"][1]["digest"][7:]
    layer.write_bytes(bytes(layer.stat().st_size))
    for serial in (1, 1):
        outcome = here.sync()
        assert outcome.what == "up-to-date", (outcome, here.heard)
        state = SyncStates(here.hq.root).get("plant")
        assert (state.confirmed_serial, state.missing) == (serial, ("bad:1",))
        assert state.there == {"app:1": want["app:1"]}
    here.publish({"app:1": 1, "bad:1": 1})
    assert here.sync().what == "up-to-date"
    assert here.there() == want


def test_a_number_is_never_used_twice(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    here.publish({"app:1": 1})
    assert here.sync().serial == 1
    (here.hq.root / "sync" / "plant.json").unlink()
    shutil.rmtree(here.hq.root / "out")
    here.publish({"app:1": 2})
    assert here.sync().serial == 2


def test_a_bundle_that_is_refused_over_there_does_not_hold_up_the_next(
    site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer.flows import remote_import

    here = site(SSH)
    here.publish({"app:1": 1})
    refused = {"code": 3, "said": ["transfer: 1 of 1 images could not be imported"], "result": None}
    with monkeypatch.context() as patched:
        patched.setattr(remote_import, "run_import", lambda *words: refused)
        assert here.sync().exit_code == 3
        here.publish({"app:1": 2})
        assert here.sync().exit_code == 3
        assert (here.inbox / "plant-000002" / "index.json").exists()
        busy = {"code": 75, "said": ["transfer: the engine does not answer"], "result": None}
        patched.setattr(remote_import, "run_import", lambda *words: busy)
        assert here.sync().exit_code == 75
    want = here.publish({"app:1": 3})
    outcome = here.sync()
    assert outcome.what == "up-to-date", (outcome, here.heard)
    assert here.there() == want


def test_a_bundle_of_which_an_image_failed_is_not_confirmed(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    want = here.publish({"app:1": 1, "web:1": 1})
    here.sync()
    folder = here.folder / "spool" / "plant-000001"
    real = here.target
    here.target = here.folder / "file"
    here.target.write_text("no layout")
    here.arrive()
    assert parse_receipt(here.receipt(), "r").bundles == ()
    here.target = real
    assert folder.exists()
    assert here.arrive() == ["plant-000001"]
    assert len(parse_receipt(here.receipt(), "r").bundles) == 1
    assert here.there() == want


def test_a_bundle_that_is_damaged_here_is_made_again(site: Callable[[str], Site]) -> None:
    here = site(SSH)
    want = here.publish({"app:1": 1})
    here.line.up = False
    assert here.sync().exit_code == 75
    for path in (here.hq.root / "out" / "plant" / "plant-000001" / "blobs" / "sha256").iterdir():
        if path.stat().st_size > 20_000:
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    here.line.up = True
    outcome = here.sync()
    assert outcome.what == "up-to-date", (outcome, here.heard)
    assert here.there() == want


def test_a_receipt_is_understood_though_the_bundle_left_the_store(site: Callable[[str], Site]) -> None:
    here = site(SPOOL)
    here.publish({"app:1": 1})
    here.sync()
    for path in (here.hq.root / "bundles").iterdir():
        path.unlink()
    here.arrive()
    here.bring(here.receipt())
    assert here.sync().what == "up-to-date", here.heard


@pytest.mark.parametrize("to", ["spool", "./spool", "../spool"])
def test_a_road_is_an_absolute_path(to: str, site: Callable[[str], Site]) -> None:
    here = site(SPOOL.replace("DIR/spool", to))
    here.publish({"app:1": 1})
    assert here.sync().exit_code == 2


def test_a_one_way_link_is_not_stale(site: Callable[[str], Site]) -> None:
    here = site(SPOOL + "[delta]\none_way = true\n")
    heard = hook(here)
    for day in range(0, 90, 5):
        here.now = MONDAY + day * DAY
        want = here.publish({"app:1": day})
        assert here.sync().exit_code == 0
        here.arrive()
    assert here.there() == want
    assert [line for line in heard() if not line.startswith("confirmed")] == []


def test_retention_that_fails_after_a_confirmed_sync(
    site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images count as confirmed, it is told, and tried again."""
    from transfer.errors import MediumError
    from transfer.flows import sync

    here = site(SSH + "[keep]\nout = 0\n")
    heard = hook(here)
    want = here.publish({"app:1": 1})

    def full(*args: object, **words: object) -> None:
        raise MediumError("the disk says no")

    with monkeypatch.context() as patched:
        patched.setattr(sync, "prune", full)
        assert here.sync().exit_code == 13
    assert SyncStates(here.hq.root).get("plant").there == want
    assert heard() == ["confirmed ", "failed medium"]
    assert here.sync().what == "up-to-date"
    assert list((here.hq.root / "out" / "plant").iterdir()) == []
    assert heard()[-1] == "recovered medium"


def test_a_base_that_was_lost_here(site: Callable[[str], Site]) -> None:
    """A full bundle goes instead, and that the store is damaged is told."""
    here = site(SSH + "[keep]\nout = 0\n")
    here.publish({"app:1": 1})
    here.sync()
    for path in (here.hq.root / "blobs" / "sha256").iterdir():
        path.unlink()
    want = here.publish({"app:1": 2})
    outcome = here.sync()
    assert "old bundles could not be removed from this store" in outcome.message
    assert outcome.exit_code in (10, 13)
    assert here.there() == want
    assert SyncStates(here.hq.root).get("plant").fulls == {"first": 1, "base-unknown": 1}
