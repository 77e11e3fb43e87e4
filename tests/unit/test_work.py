"""Threads: what is done beside is done in order, and done when the block ends."""

from __future__ import annotations

import threading

import pytest

from transfer.work import aside


@pytest.mark.parametrize("threaded", [True, False])
def test_all_items_are_done_in_order_when_the_block_ends(threaded: bool) -> None:
    seen: list[int] = []
    with aside(seen.append, 2, threaded=threaded) as do:
        for number in range(100):
            do(number)
    assert seen == list(range(100))


def test_it_ends_also_where_the_block_fails() -> None:
    before = threading.active_count()
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="stop"), aside(seen.append, 2) as do:
        do(1)
        raise RuntimeError("stop")
    assert seen == [1]
    assert threading.active_count() == before
