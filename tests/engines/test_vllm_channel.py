"""What a worker found, on its way to whoever waits."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from trimtab.engines.vllm import channel

pytestmark = pytest.mark.engine


def test_a_reader_that_falls_behind_makes_the_worker_wait_and_misses_nothing(monkeypatch):
    monkeypatch.setattr(channel, "BEHIND", 4)
    gate, got, sent = threading.Event(), [], []

    def take(reports, results):
        if not reports:
            return  # the sender's first word
        gate.wait(10)
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
    worker_thread.join(20)
    for _ in range(200):
        if len(got) == 60:
            break
        time.sleep(0.05)
    receiver.close()
    sender.close()
    assert behind < 20, "the worker never waited"
    assert [r[0][1] for r, _ in got] == [f"id{n}" for n in range(60)]
    assert all(np.array_equal(found[0][1], rows + n) for n, (_, found) in enumerate(got))
