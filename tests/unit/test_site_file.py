"""Site files: everything that is wrong in one is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer.errors import NotFound, TransferError, UsageError
from transfer.flows.sync_plan import Facts, Step, plan
from transfer.sites import site_file
from transfer.sites.site_file import load, parse_site
from transfer.sites.sync_state import Flight, SyncState
from transfer.sites.values import duration, rate

EXAMPLE = Path(__file__).parents[2] / "systemd" / "examples" / "plant-7.toml"
GOOD = """version = 1

[[images]]
select = ["app:1"]

[[road]]
kind = "spool"
to = "/spool"

[window]
open = ["Mon..Fri 22:00-05:00"]
"""


def parse(text: str) -> site_file.SiteFile:
    return parse_site(text.encode(), "plant", Path("plant.toml"))


def test_the_example_is_a_site_file() -> None:
    found = parse_site(EXAMPLE.read_bytes(), "plant-7", EXAMPLE)
    assert [road.kind for road in found.roads] == ["ssh", "medium"]
    assert found.roads[0].limit == 500_000
    assert found.roads[1].after == 10 * 86400
    assert [pick.source for pick in found.picks] == ["docker-daemon:", "docker://registry.hq"]
    assert found.picks[1].skip
    assert (found.keep.out, found.keep.here, found.keep.there) == (2, 3, 5)
    assert found.delta.level == 6
    assert not found.window.at(1_764_590_400).open  # Monday, 13:00 in Berlin


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = 2", "version 1"),
        ("version = 1", "", "version 1"),
        ("version = 1", "version = true", "version 1"),
        ('to = "/spool"', 'too = "/spool"', "line 8: 'too' of [road] is not a setting"),
        ('kind = "spool"', 'kind = "carrier pigeon"', "line 7: kind of [road] is not ssh or medium"),
        ('kind = "spool"', 'jobs = "2"', "line 7: jobs of [road] is not a number"),
        ('kind = "spool"\n', "", "line 6: [[road]] has no kind"),
        ('to = "/spool"', "", "line 6: [[road]] has no `to`"),
        ('select = ["app:1"]', "", "line 3: [[images]] chooses nothing"),
        ('select = ["app:1"]', "select = [1]", "line 4: select of [images] is not a list of texts"),
        ('select = ["app:1"]', 'select = ["a\\u0007b"]', "line 4: select"),
        ("[window]", "[windows]", "line 10: 'windows' is not a setting"),
        ("Mon..Fri 22:00-05:00", "Mon..Fri 22-05", "line 10: [window]: 'Mon..Fri 22-05' is not a time window"),
        ("[window]", "[trust]\nsign = true\n[window]", "line 10: 'trust' is not a setting"),
        ("[[road]]", "[road]", "[[road]]"),
        ("version = 1", "version = 1\nrole = 5", "line 2: role is not push or pull"),
        ("version = 1", 'version = 1\nrole = "pull"', "cannot pull by spool"),
        ("version = 1", "version = 1\n\tx = 1", "line 2: 'x' is not a setting"),
        ("version = 1", "version = = 1", "not a site file"),
        ("version = 1", "version = 1\nversion = 1", "not a site file"),
        ('kind = "spool"', 'kind = "https"', "https is for role"),
        ('kind = "spool"', 'kind = "spool"\nimport = true', "import is for ssh only"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, said: str) -> None:
    parse(GOOD)
    with pytest.raises(UsageError) as caught:
        parse(GOOD.replace(old, new))
    assert said in caught.value.message, caught.value.message
    assert caught.value.hint


def test_a_setting_that_is_nearly_right_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse(GOOD.replace('to = "/spool"', 'to = "/spool"\nhost-key = "x"'))
    assert caught.value.hint == "did you mean host_key?"


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"\xef\xbb\xbfversion = 1", b"a = [" * 5000, b"\x00" * 100, b"v" * (2 << 20)]
)
def test_garbage_is_refused(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_SITES", str(tmp_path))
    (tmp_path / "plant.toml").write_bytes(data)
    with pytest.raises(TransferError) as caught:
        load("plant")
    assert caught.value.exit_code in (2, 13)


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "-x", "", "a b", "x" * 65])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UsageError):
        load(name)


def test_a_site_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_SITES", str(tmp_path))
    (tmp_path / "lab.toml").write_text(GOOD)
    with pytest.raises(NotFound, match=r"plant\.toml") as caught:
        load("plant")
    assert "Known: lab" in caught.value.hint
    assert site_file.listed() == ["lab"]


def test_durations_and_rates() -> None:
    assert [duration(each) for each in ("90s", "15min", "12h", "7d", "2w")] == [90, 900, 43200, 604800, 1209600]
    assert [rate(each) for each in ("1000", "500K", "1.5M")] == [1000, 500_000, 1_500_000]
    for wrong in ("", "5", "5 weeks", "-1d", "1m", 5, None, "1e9d"):
        with pytest.raises((ValueError, TypeError)):
            duration(wrong)
    for wrong in ("", "999", "0.5K", "-5K", "5T", 5):
        with pytest.raises((ValueError, TypeError)):
            rate(wrong)


WANT, OTHER = {"a": "1"}, {"a": "2"}
THERE = {"a": frozenset({"1"})}


@pytest.mark.parametrize(
    ("state", "facts", "step"),
    [
        (SyncState("s"), Facts(WANT, THERE), Step.UP_TO_DATE),
        (SyncState("s"), Facts(WANT, {}), Step.BEGIN),
        (SyncState("s"), Facts(WANT, {}, open=False), Step.BEGIN),
        (SyncState("s", under_way=Flight(1, "f", want=WANT)), Facts(WANT, {}), Step.EXPORT),
        (SyncState("s", under_way=Flight(1, "f", want=OTHER)), Facts(WANT, {}), Step.EXPORT),
        (SyncState("s", under_way=Flight(1, "f", want=OTHER)), Facts(WANT, THERE), Step.DROP),
        (SyncState("s", under_way=Flight(1, "f", "exported", want=WANT)), Facts(WANT, {}), Step.SHIP),
        (SyncState("s", under_way=Flight(1, "f", "exported", want=WANT)), Facts(WANT, {}, open=False), Step.SHUT),
        (SyncState("s", under_way=Flight(1, "f", "exported", want=OTHER)), Facts(WANT, {}), Step.DROP),
        (SyncState("s", under_way=Flight(1, "f", "shipping", want=OTHER)), Facts(WANT, THERE), Step.SHIP),
        (SyncState("s", flights=(Flight(1, "f", "shipped", want=WANT, road="spool"),)), Facts(WANT, {}), Step.AWAIT),
        (SyncState("s", flights=(Flight(1, "f", "shipped", want=OTHER, road="spool"),)), Facts(WANT, {}), Step.BEGIN),
        (
            SyncState("s", flights=(Flight(1, "f", "shipped", want=WANT, road="ssh"),)),
            Facts(WANT, {}, answers=frozenset({"ssh"})),
            Step.LAND,
        ),
        (
            SyncState("s", flights=(Flight(1, "f", "shipped", want=WANT, road="ssh"),)),
            Facts(WANT, {}, answers=frozenset({"ssh"}), asked=frozenset({1})),
            Step.AWAIT,
        ),
    ],
)
def test_the_next_step(state: SyncState, facts: Facts, step: Step) -> None:
    assert plan(state, facts) is step
