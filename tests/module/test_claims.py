"""Of several images that lack a layer one sends it, and the others wait for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from transfer.engines.base import OtherFailed
from transfer.flows.claims import Claims


def test_what_one_claims_the_next_waits_for() -> None:
    claims, told, finished = Claims(), threading.Event(), threading.Event()

    def second() -> tuple[frozenset[str], bool]:
        with claims.turn() as turn:
            mine = turn.claim(lambda: ["base", "other"])
            turn.wait()
            return mine, finished.is_set()

    with ThreadPoolExecutor(1) as pool:
        with claims.turn(told.set) as first:
            assert first.claim(lambda: ["base", "own"]) == {"base", "own"}
            assert told.is_set()
            waiting = pool.submit(second)
            assert not waiting.done()
            finished.set()
        assert waiting.result(30) == (frozenset({"other"}), True)


def test_if_the_one_that_brings_it_fails_the_other_is_told() -> None:
    claims = Claims()
    with ThreadPoolExecutor(1) as pool:
        claimed = threading.Event()

        def second() -> frozenset[str]:
            with claims.turn() as turn:
                turn.claim(lambda: ["base"])
                claimed.set()
                turn.wait()
                return frozenset()

        with pytest.raises(RuntimeError), claims.turn() as first:
            first.claim(lambda: ["base"])
            waiting = pool.submit(second)
            assert claimed.wait(10)
            raise RuntimeError
        with pytest.raises(OtherFailed):
            waiting.result()
    with claims.turn() as again:
        assert again.claim(lambda: ["base"]) == {"base"}
        again.wait()
