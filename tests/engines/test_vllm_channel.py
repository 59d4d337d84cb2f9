"""What passes between the front end and the workers: records, the channel, arrays sent ahead. Without vLLM."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from trimtab.engines.vllm import captured, channel, ledger
from trimtab.engines.vllm.ledger import Ledger
from trimtab.engines.vllm.shelf import Shelf
from trimtab.errors import SteeringLost
from trimtab.readouts import Readout
from trimtab.sites import Site

pytestmark = pytest.mark.engine


# --- records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "in a file"])
def test_rows_are_put_together_by_position_and_the_last_one_wins(large, monkeypatch, tmp_path):
    monkeypatch.setattr(captured, "LARGE", 0 if large else 1 << 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    book = Ledger()
    record = book.open("k", 10)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    book.take([("k", "id", 4, 3, "")], [(("k", "id", 1, "", ((4, 7),)), rows[4:7])])
    book.take([("k", "id", 0, 5, "")], [(("k", "id", 1, "", ((0, 1), (2, 5))), rows[[0, 2, 3, 4]] + 100)])
    assert np.array_equal(record.rows(1, np.array([0, 2, 4, 6])), [*(rows[[0, 2, 4]] + 100), rows[6]])
    with pytest.raises(SteeringLost, match="1 of 2"):
        record.rows(1, np.array([0, 1]))
    with pytest.raises(SteeringLost, match="2 of 2 captured states of layer 3"):
        record.rows(3, np.array([0, 1]))
    book.whole(record, 0, 7)
    window = record.rows(1, np.array([4, 5, 6]))
    assert np.array_equal(window, [rows[4] + 100, rows[5], rows[6]])
    book.take([], [(("k", "id", 1, "", ((9, 12),)), rows[:3])])  # a step more than asked for
    assert np.array_equal(record.rows(1, np.array([9])), rows[:1])
    assert np.shares_memory(window, record.rows(1, np.arange(4, 7)))
    assert record.captured[1].in_file is large and not list(tmp_path.iterdir())


def test_waiting_ends_with_the_result_with_a_loss_or_with_patience(monkeypatch):
    book = Ledger()
    record = book.open("k", 10)
    done = []
    waiter = threading.Thread(target=lambda: done.append(book.whole(record, 2, 6)))
    waiter.start()
    book.take([("k", "id", 2, 3, "")], [])
    assert not done
    book.take([("k", "id", 5, 1, "")], [])
    waiter.join(60)
    assert done == [None]
    monkeypatch.setattr(ledger, "PATIENCE", 0.05)
    with pytest.raises(SteeringLost, match="did not arrive"):
        book.whole(record, 0, 6)
    book.take([("k", "id", 0, 2, "layers [3] were never reached")], [])
    with pytest.raises(SteeringLost, match="never reached"):
        book.whole(record, 0, 6)
    book.close("k")
    book.take([("k", "id", 0, 2, "")], [(("k", "id", 1, "", ((0, 1),)), np.zeros((1, 2), np.float32))])
    assert len(book) == 0


# --- the channel ---------------------------------------------------------------------------------------------------


def test_a_reader_that_falls_behind_makes_the_worker_wait_and_misses_nothing(monkeypatch):
    monkeypatch.setattr(channel, "BEHIND", 4)
    gate, got, sent = threading.Event(), [], []

    def take(reports, results):
        if not reports:
            return  # the sender's first word
        gate.wait(60)
        got.append((reports, results))

    receiver, sender = channel.Receiver(take), channel.Sender()
    place = Path(receiver.address.removeprefix("ipc://"))
    assert place.exists() and place.parent.stat().st_mode & 0o077 == 0
    sender.attach(receiver.address)
    assert receiver.settle() and not place.parent.exists(), "a killed process would leave it"
    rows = np.arange(6 << 16, dtype=np.float32).reshape(6, -1)  # beyond what a socket's own buffer swallows

    def work() -> None:
        for n in range(60):
            sender([("k", f"id{n}", n, 6, "")], [(("k", f"id{n}", 1, "", ((n, n + 6),)), rows + n)])
            sent.append(n)

    worker_thread = threading.Thread(target=work)
    worker_thread.start()
    worker_thread.join(1.0)
    behind = len(sent)
    gate.set()
    worker_thread.join(60)
    until = time.monotonic() + 60
    while len(got) < 60 and time.monotonic() < until:
        time.sleep(0.05)
    receiver.close()
    sender.close()
    assert behind < 20, "the worker never waited"
    assert [r[0][1] for r, _ in got] == [f"id{n}" for n in range(60)]
    assert all(np.array_equal(found[0][1], rows + n) for n, (_, found) in enumerate(got))


def test_the_sockets_name_stays_until_every_worker_has_come(monkeypatch):
    monkeypatch.setattr(channel, "GREETING", 0.3)
    receiver = channel.Receiver(lambda *step: None)
    place = Path(receiver.address.removeprefix("ipc://"))
    first, second = channel.Sender(0, 2), channel.Sender(1, 2)
    first.attach(receiver.address)
    assert not receiver.settle() and place.exists()
    monkeypatch.setattr(channel, "GREETING", 60.0)
    second.attach(receiver.address)
    assert receiver.settle() and not place.parent.exists()
    for end in (first, second, receiver):
        end.close()


# --- arrays --------------------------------------------------------------------------------------------------------


class Workers:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __call__(self, method: str, *args: object) -> None:
        self.calls.append((method, *args))

    def count(self, method: str) -> int:
        return sum(m == method for m, *_ in self.calls)


def test_arrays_are_sent_once_kept_while_used_and_dropped_when_there_are_too_many():
    workers = Workers()
    shelf = Shelf(workers, idle=3 * 40)
    arrays = {f"a{i}": np.full(10, i, np.float32) for i in range(6)}
    held = [shelf.hold({n: a}) for n, a in arrays.items()]
    shelf.hold({"a0": arrays["a0"]})
    assert workers.count("trimtab_put") == 6
    for names in held:
        shelf.release(names)
    dropped = [n for m, *rest in workers.calls if m == "trimtab_drop" for n in rest[0]]
    assert dropped == ["a1", "a2"]  # a0 is still used; three idle ones may stay
    shelf.hold({"a1": arrays["a1"], "a5": arrays["a5"]})
    assert workers.count("trimtab_put") == 7
    shelf.forget()
    shelf.hold({"a5": arrays["a5"]})
    assert workers.count("trimtab_put") == 8
    for names in (("a0",), ("a1", "a5"), ("a5",)):
        shelf.release(names)


def test_readouts_go_by_their_content():
    workers = Workers()
    shelf = Shelf(workers)
    site = Site(2)

    def readout(concept: str, value: float) -> Readout:
        return Readout((concept,), {site: np.full((1, 4), value)}, {site: np.zeros(1)}, {site: np.ones(1)})

    names = [shelf.hold_readout(readout(c, v)) for c, v in (("a", 1.0), ("b", 1.0), ("a", 2.0))]
    assert names[0] == names[1] != names[2]
    assert workers.count("trimtab_put_readout") == 2
