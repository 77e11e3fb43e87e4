"""Threads: what is done beside is done in order, and done when the block ends."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from transfer.work import OrderedPipeline, Pool, run_alongside


@pytest.mark.parametrize("threaded", [True, False])
def test_all_items_are_done_in_order_when_the_block_ends(threaded: bool) -> None:
    seen: list[int] = []
    with run_alongside(seen.append, 2, threaded=threaded) as do:
        for number in range(100):
            do(number)
    assert seen == list(range(100))


def test_it_ends_also_where_the_block_fails() -> None:
    before = threading.active_count()
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="stop"), run_alongside(seen.append, 2) as do:
        do(1)
        raise RuntimeError("stop")
    assert seen == [1]
    assert threading.active_count() == before


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_results_are_delivered_in_the_order_of_the_calls(jobs: int) -> None:
    seen: list[int] = []

    def call(number: int) -> int:
        time.sleep(0.004 * (number % 3 == 0))
        return number

    with Pool(jobs, "calls") as pool, contextlib.closing(OrderedPipeline(pool, jobs, seen.append)) as lane:
        for number in range(20):
            lane.push(lambda number=number: call(number))  # type: ignore[misc]
        lane.drain()
        assert seen == list(range(20))
        lane.push(lambda: 20)
        lane.drain()
    assert seen == list(range(21))


def test_no_more_calls_are_out_than_agreed() -> None:
    gate, began, pushed = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def call() -> None:
        began.release()
        gate.wait()

    def push() -> None:
        for _ in range(5):
            lane.push(call)
            pushed.release()

    lane: OrderedPipeline[None]
    with Pool(4, "calls") as pool, contextlib.closing(OrderedPipeline(pool, 2, lambda _: None)) as lane:
        thread = threading.Thread(target=push)
        thread.start()
        assert all(began.acquire(timeout=10) for _ in range(2))
        assert all(pushed.acquire(timeout=10) for _ in range(2))
        assert not began.acquire(timeout=0.1)
        gate.set()
        thread.join()
        lane.drain()


@pytest.mark.parametrize("jobs", [0, 2])
@pytest.mark.parametrize("fails", ["call", "deliver"])
def test_a_failure_reaches_whoever_pushes_and_nothing_is_delivered_after_it(jobs: int, fails: str) -> None:
    seen: list[int] = []

    def call(number: int) -> int:
        if fails == "call" and number == 3:
            raise OSError("disk full")
        return number

    def deliver(number: int) -> None:
        if number == 3:
            raise OSError("disk full")
        seen.append(number)

    before = threading.active_count()
    with (
        pytest.raises(OSError, match="disk full"),
        Pool(jobs, "calls") as pool,
        contextlib.closing(OrderedPipeline(pool, jobs, deliver)) as lane,
    ):
        for number in range(50):
            lane.push(lambda number=number: call(number))  # type: ignore[misc]
        lane.drain()
    assert seen == [0, 1, 2]
    assert threading.active_count() == before


def test_a_closed_lane_delivers_nothing_more() -> None:
    gate = threading.Event()
    seen: list[int] = []
    with Pool(1, "calls") as pool:
        lane: OrderedPipeline[int] = OrderedPipeline(pool, 2, seen.append)
        lane.push(lambda: int(gate.wait()))
        lane.push(lambda: 2)
        threading.Timer(0.05, gate.set).start()
        lane.close()
    assert 2 not in seen
