"""The hand-over between two threads: order, bounds, endings and closings."""

import threading
from collections.abc import Callable

import pytest

from streampose.channel import Channel, Closed, Empty, Ending, Finished, Merge

WAIT_S = 10.0


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_values_come_in_order_and_then_the_end() -> None:
    channel: Channel[int] = Channel(3)
    for value in range(3):
        channel.put(value)
    channel.finish()
    assert list(channel) == [0, 1, 2]
    with pytest.raises(Finished):
        channel.take()


def test_an_error_is_an_end_behind_the_last_value() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.finish(OSError("gone"))
    channel.finish(None)  # only the first ending counts
    values = iter(channel)
    assert next(values) == 1
    with pytest.raises(OSError, match="gone"):
        next(values)


def test_put_waits_while_full_and_goes_on_when_there_is_room() -> None:
    channel: Channel[int] = Channel(2)
    put = []

    def produce() -> None:
        for value in range(50):
            channel.put(value)
            put.append(value)
        channel.finish()

    thread = in_thread(produce)
    seen = 0
    for value in channel:
        assert value == seen
        seen += 1
        assert len(channel) <= 2
        assert len(put) <= seen + 2
    thread.join(WAIT_S)
    assert seen == 50


def test_close_wakes_a_waiting_producer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    outcome: list[str] = []

    def produce() -> None:
        try:
            channel.put(1)
        except Closed:
            outcome.append("closed")

    thread = in_thread(produce)
    channel.close()
    thread.join(WAIT_S)
    assert outcome == ["closed"]
    assert len(channel) == 0
    with pytest.raises(Closed):
        channel.put(2)
    channel.close()


def test_close_wakes_a_waiting_taker() -> None:
    channel: Channel[int] = Channel(1)
    outcome: list[str] = []

    def take() -> None:
        try:
            channel.take()
        except Closed:
            outcome.append("closed")

    thread = in_thread(take)
    channel.close()
    thread.join(WAIT_S)
    assert outcome == ["closed"]


def test_finish_does_not_wait_for_room() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    channel.finish()
    assert channel.take() == 1


def test_nothing_in_time() -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises(Empty):
        channel.take(timeout_s=0)
    with pytest.raises(Empty):
        channel.take(timeout_s=0.01)


def test_waiting_until_everything_is_taken() -> None:
    channel: Channel[int] = Channel(2)
    channel.wait_until_empty()
    channel.put(1)
    seen: list[str] = []

    def wait() -> None:
        channel.wait_until_empty()
        seen.append("empty")

    thread = in_thread(wait)
    assert not seen
    channel.take()
    thread.join(WAIT_S)
    assert seen == ["empty"]
    channel.close()
    with pytest.raises(Closed):
        channel.wait_until_empty()


def test_put_after_finish_is_a_defect() -> None:
    channel: Channel[int] = Channel(1)
    channel.finish()
    with pytest.raises(RuntimeError, match="put after finish"):
        channel.put(1)


def test_a_batch_takes_what_waits_and_does_not_wait_for_more() -> None:
    channel: Channel[int] = Channel(8)
    for value in range(3):
        channel.put(value)
    assert channel.take_batch(5) == [0, 1, 2]


def test_a_filled_batch_waits_up_to_the_limit_and_ends_with_the_stream() -> None:
    channel: Channel[int] = Channel(2)  # shallower than a batch

    def produce() -> None:
        for value in range(7):
            channel.put(value)
        channel.finish(OSError("gone"))

    thread = in_thread(produce)
    assert channel.take_batch(5, fill_s=WAIT_S) == [0, 1, 2, 3, 4]
    assert channel.take_batch(5, fill_s=WAIT_S) == [5, 6]
    with pytest.raises(OSError, match="gone"):
        channel.take_batch(5, fill_s=WAIT_S)
    thread.join(WAIT_S)


def test_a_batch_is_limited_by_weight_and_by_count() -> None:
    channel: Channel[int] = Channel(20)
    for value in (3, 2, 4, 9, 0, 0, 0, 0):
        channel.put(value)
    channel.finish()

    def batch() -> list[int]:
        return channel.take_batch(6, weigh=lambda value: value, most=3, fill_s=WAIT_S)

    assert batch() == [3, 2]
    assert batch() == [4]
    assert batch() == [9]  # one value may weigh more than the limit
    assert batch() == [0, 0, 0]
    assert batch() == [0]
    with pytest.raises(Finished):
        batch()


def test_close_during_a_filling_batch_ends_it_with_what_it_has() -> None:
    channel: Channel[int] = Channel(4)
    channel.put(1)
    taken: list[list[int]] = []
    thread = in_thread(lambda: taken.append(channel.take_batch(3, fill_s=WAIT_S)))
    while len(channel):
        pass
    channel.close()
    thread.join(WAIT_S)
    assert taken == [[1]]


def test_a_batch_that_does_not_fill_in_time_is_taken_as_it_is() -> None:
    channel: Channel[int] = Channel(4)
    channel.put(1)
    assert channel.take_batch(3, fill_s=0.01) == [1]


def test_a_channel_needs_room() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Channel[int](0)


def test_a_dropping_channel_never_waits_and_lets_the_oldest_go() -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel(2, on_drop=dropped.append)
    for value in range(5):
        channel.put(value)
    channel.finish()
    assert dropped == [0, 1, 2]
    assert list(channel) == [3, 4]


def test_a_merge_takes_in_turns_and_gives_each_ending_once() -> None:
    merge: Merge[str] = Merge()
    first, second = merge.inlet(5), merge.inlet(5)
    for value in "abc":
        first.put(value)
    second.put("x")
    first.finish()
    failure = OSError("gone")
    second.finish(failure)
    taken = merge.take_batch(100)
    assert [value for number, value in taken if number == 0] == ["a", "b", "c", Ending(None)]
    assert [value for number, value in taken if number == 1] == ["x", Ending(failure)]
    assert [number for number, _ in taken[:4]] == [0, 1, 0, 1], "a full channel does not keep the other from its turn"
    with pytest.raises(Finished):
        merge.take()


def test_a_merge_waits_for_whichever_comes_first() -> None:
    merge: Merge[int] = Merge()
    silent, busy = merge.inlet(1), merge.inlet(1)
    with pytest.raises(Empty):
        merge.take(timeout_s=0.01)
    thread = in_thread(lambda: busy.put(7))
    assert merge.take(timeout_s=WAIT_S) == (1, 7)
    thread.join(WAIT_S)
    silent.close()
    assert merge.take(timeout_s=WAIT_S) == (0, Ending(None)), "a closed channel has ended"


def test_a_merges_batch_has_at_most_so_many_of_one_channel() -> None:
    merge: Merge[str] = Merge()
    first, second = merge.inlet(5), merge.inlet(5)
    for value in "abc":
        first.put(value)
    assert merge.take_batch(9, most_each=2) == [(0, "a"), (0, "b")]
    second.put("x")
    assert sorted(merge.take_batch(9, most_each=2)) == [(0, "c"), (1, "x")]
    second.finish()
    first.put("d")
    first.put("e")
    assert sorted(merge.take_batch(9, most_each=1), key=str) == [(0, "d"), (1, Ending(None))]
    assert merge.take() == (0, "e")


def test_a_merges_batch_waits_to_be_filled_as_long_as_it_may() -> None:
    merge: Merge[int] = Merge()
    inlet = merge.inlet(1)

    def produce() -> None:
        for value in range(5):
            inlet.put(value)
        inlet.finish()

    thread = in_thread(produce)
    assert merge.take_batch(4, fill_s=WAIT_S) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert merge.take_batch(4, fill_s=WAIT_S) == [(0, 4), (0, Ending(None))]
    thread.join(WAIT_S)
