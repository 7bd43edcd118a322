from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vidseg_pipelines.threads import Prefetch, WriteBehind


def test_prefetch_keeps_order_and_stays_within_its_bound() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    prefetch = Prefetch(items(), size=3)
    seen = []
    for item in prefetch:
        assert len(made) <= item + 1 + 3 + 2  # taken, queued, and one in the hand of each side
        seen.append(item)
    assert seen == list(range(50))
    prefetch.close()


def test_prefetch_hands_the_sources_error_over_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    prefetch = Prefetch(items(), size=2)
    iterator = iter(prefetch)
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken"):
        next(iterator)
    prefetch.close()


def test_prefetch_can_be_closed_while_its_queue_is_full() -> None:
    prefetch = Prefetch(iter(range(10**9)), size=1)
    assert next(iter(prefetch)) == 0
    prefetch.close()
    assert not [t for t in threading.enumerate() if t.name == "vidseg-read"]


def test_write_behind_writes_in_order_and_waits_when_full() -> None:
    done: list[int] = []
    gate = threading.Event()

    def write(item: int) -> None:
        assert gate.wait(60)
        done.append(item)

    writer = WriteBehind(write, size=2)
    fed = threading.Thread(target=lambda: [writer.put(i) for i in range(6)])
    fed.start()
    time.sleep(0.05)
    assert fed.is_alive()  # back-pressure: one is being written, two wait, the next does not fit
    gate.set()
    fed.join()
    writer.close()
    assert done == list(range(6))


def test_write_behind_stops_at_the_first_error_and_reports_it_once() -> None:
    done: list[str] = []

    def write(item: str) -> None:
        if item == "broken":
            raise OSError("disk full")
        done.append(item)

    writer = WriteBehind(write, size=8)
    writer.put("a")
    writer.put("broken")
    with pytest.raises(OSError, match="disk full"):
        while True:
            writer.put("never")
    writer.close(check=False)
    assert done == ["a"]
