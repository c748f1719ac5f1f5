"""Which batches are published when: in order, once, and again only with reason."""

from __future__ import annotations

from edge.outbox import Batch
from edge.window import RECEIPT_WAIT, WINDOW_BATCHES, Window

EPOCH = 7


def batches(*sequences: int) -> list[Batch]:
    return [Batch(id=s, epoch=EPOCH, sequence=s, count=1, message=b"") for s in sequences]


def publish(window: Window, now_s: float) -> list[int]:
    """Publish what is due; return the sequences."""
    due = window.due(now_s)
    for batch in due:
        window.sent(batch, mid=batch.sequence, now_s=now_s)
    return [batch.sequence for batch in due]


def receipt(window: Window, *sequences: int, now_s: float) -> None:
    window.receipted([(EPOCH, s) for s in sequences], now_s)


def test_new_batches_go_at_once_and_in_order() -> None:
    window = Window()
    window.add(batches(1, 2, 3))
    assert publish(window, 0.0) == [1, 2, 3]
    assert publish(window, 1.0) == []


def test_the_window_is_bounded() -> None:
    window = Window()
    window.add(batches(*range(1, WINDOW_BATCHES + 1)))
    assert window.room == 0
    receipt(window, 1, 2, now_s=1.0)
    assert window.room == 2
    assert window.last_id == WINDOW_BATCHES


def test_without_any_receipt_only_the_oldest_is_sent_again() -> None:
    window = Window()
    window.add(batches(1, 2, 3))
    publish(window, 0.0)
    assert publish(window, RECEIPT_WAIT.first_s) == [1]


def test_a_receipt_shows_that_what_was_sent_before_it_was_lost() -> None:
    window = Window()
    window.add(batches(1, 2, 3))
    publish(window, 0.0)
    receipt(window, 3, now_s=5.0)
    assert publish(window, 5.0) == []
    assert publish(window, RECEIPT_WAIT.first_s) == [1, 2]


def test_the_wait_for_a_receipt_doubles_up_to_its_bound() -> None:
    window = Window()
    window.add(batches(1))
    now_s = 0.0
    waits = []
    for _ in range(12):
        publish(window, now_s)
        wake_s = window.wake_s()
        assert wake_s is not None
        waits.append(wake_s - now_s)
        now_s = wake_s
    assert RECEIPT_WAIT.first_s / 2 <= waits[0] <= RECEIPT_WAIT.first_s
    assert RECEIPT_WAIT.longest_s / 2 <= waits[-1] <= RECEIPT_WAIT.longest_s


def test_a_receipt_of_another_epoch_is_for_no_batch_here() -> None:
    window = Window()
    window.add(batches(1))
    publish(window, 0.0)
    window.receipted([(EPOCH + 1, 1)], 1.0)
    assert window.room == WINDOW_BATCHES - 1


def test_after_a_reconnection_only_what_the_broker_had_not_taken_is_sent_again() -> None:
    window = Window()
    window.add(batches(1, 2, 3))
    publish(window, 0.0)
    window.accepted(1)
    window.reconnected(is_resumed=True)
    assert publish(window, 1.0) == [2, 3]


def test_after_the_broker_lost_our_session_everything_is_sent_again() -> None:
    window = Window()
    window.add(batches(1, 2, 3))
    publish(window, 0.0)
    for mid in (1, 2, 3):
        window.accepted(mid)
    window.reconnected(is_resumed=False)
    assert publish(window, 1.0) == [1, 2, 3]


def test_nothing_in_flight_needs_no_waking() -> None:
    window = Window()
    assert window.wake_s() is None
    window.add(batches(1))
    publish(window, 0.0)
    receipt(window, 1, now_s=1.0)
    assert window.wake_s() is None


def test_what_is_in_flight_outlives_the_file_it_came_from() -> None:
    """A damaged outbox was set aside; its batches that are in memory are still good."""
    window = Window()
    window.add(batches(40, 41))
    publish(window, 0.0)
    window.begin_anew()
    assert window.last_id == 0
    new = [Batch(id=1, epoch=EPOCH + 1, sequence=1, count=1, message=b"")]
    window.add(new)
    assert window.due(1.0) == new
    window.reconnected(is_resumed=False)
    assert publish(window, 2.0) == [40, 41, 1]
