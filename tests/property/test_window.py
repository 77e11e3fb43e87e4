"""Windows against the plainest reading of them, minute by minute, over days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transfer.errors import UsageError
from transfer.sites.window import DAYS, Window, parse_span, parse_window

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC")
"""Lord Howe's clocks are changed by half an hour."""
BEGIN = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
CHANGES = [
    int(datetime(2026, *day, tzinfo=UTC).timestamp()) for day in [(3, 28), (10, 24), (3, 7), (10, 31), (4, 4), (10, 3)]
]

times = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30, 59])).map(lambda t: f"{t[0]:02}:{t[1]:02}")
days = st.one_of(
    st.just("*"), st.sampled_from(DAYS), st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map("..".join)
)
spans = st.tuples(days, times, times).filter(lambda t: t[1] != t[2]).map(lambda t: f"{t[0]} {t[1]}-{t[2]}") | days
moments = st.integers(0, 365 * 1440).map(lambda n: BEGIN + n * 60) | st.tuples(
    st.sampled_from(CHANGES), st.integers(0, 2880)
).map(lambda t: t[0] + t[1] * 60)


def plainly(text: str, moment: int, zone: ZoneInfo) -> bool:
    """Whether a span holds, as somebody reads it off a calendar and a clock on the wall."""
    local = datetime.fromtimestamp(moment, zone)
    name, _, hours = text.partition(" ")
    first, _, last = name.partition("..")
    order = list(DAYS) * 2
    named = (
        list(DAYS) if name == "*" else order[order.index(first) : order.index(last or first, order.index(first)) + 1]
    )
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if not hours:
        return today in named
    begin, _, end = hours.partition("-")
    now = f"{local:%H:%M}"
    if begin < end:
        return today in named and begin <= now < end
    return (today in named and now >= begin) or (yesterday in named and now < end)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(spans, max_size=3),
    st.lists(st.tuples(spans, st.integers(1, 3)), max_size=2),
    st.sampled_from(ZONES),
    moments,
)
@example(["* 02:30-02:59"], [], "Europe/Berlin", CHANGES[0] + 20 * 3600)
@example(["* 23:30-00:15"], [], "Australia/Lord_Howe", CHANGES[4])
def test_it_says_what_a_wall_clock_says(
    opened: list[str], limits: list[tuple[str, int]], zone: str, moment: int
) -> None:
    window = parse_window(opened, limits, zone, finish=False)

    def held(at: int) -> tuple[bool, int]:
        rate = next((rate for span, rate in limits if plainly(span, at, ZoneInfo(zone))), 0)
        return not opened or any(plainly(each, at, ZoneInfo(zone)) for each in opened), rate

    allowed = window.at(moment)
    assert (allowed.open, allowed.rate) == held(moment)
    later = moment
    while later < moment + 2 * 86400 and held(later) == held(moment):
        later += 60
    if later < moment + 2 * 86400:
        assert allowed.until == later
    else:
        assert allowed.until is None or allowed.until >= later


def test_when_it_opens() -> None:
    window = parse_window(["Mon..Fri 22:00-05:00"], [], "Europe/Berlin", finish=False)
    saturday = datetime(2026, 11, 28, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    opens = window.opens(saturday)
    assert opens is not None
    assert f"{window.local(opens):%a %H:%M}" == "Mon 22:00"
    assert window.opens(opens) == opens
    assert Window().opens(saturday) == saturday


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mon 22:00",
        "Mon 22:00-22:00",
        "Mon 24:00-05:00",
        "Mon 25:00-05:00",
        "Mon 22:60-23:00",
        "Montag",
        "mon",
        "Mon..",
        "*,",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


@pytest.mark.parametrize("zone", ["Nowhere/City", "../../etc/passwd", "/etc/localtime", "Europe"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(UsageError, match="not a time zone"):
        parse_window([], [], zone, finish=False)
