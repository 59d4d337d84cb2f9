"""`trimtab watch` and the feed it shows: readings of all traffic, and nobody's text."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

from trimtab.cli.watch import split
from trimtab.cli.watch_board import CELLS, Board, bar
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine

HEAD = {"event": "head", "layers": [1, 2], "concepts": ["b", "a"], "z": True, "default_layer": 2}


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


def token(values, request="r", index=0):
    return {"event": "token", "request": request, "index": index, "position": 3, "values": values}


def body(**more):
    return {"prompt": "I feel", "max_tokens": 8, "temperature": 0, "ignore_eos": True, **more}


def once_watched(trimtab, url, asks, *flags):
    """What `watch` says of requests that are sent while it looks."""
    import httpx

    found = []
    client = httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}, timeout=60)
    sending = threading.Event()

    def send():
        sending.wait(60)
        for ask in asks:
            found.append(client.post("/v1/completions", json=ask).json())

    from trimtab.server.feed import Feed

    join = Feed.join

    def joined(self):
        stream = join(self)
        sending.set()
        return stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Feed, "join", joined)
        thread = threading.Thread(target=send)
        thread.start()
        done = trimtab("watch", url, "--api-key", "secret", "--timeout", "60", *flags)
        thread.join()
    client.close()
    return done, found


@pytest.mark.slow
def test_what_is_watched_is_what_the_readout_says(trimtab, refused, engine, joy, serving):
    from trimtab.server.settings import Settings

    with serving(engine, Settings(readout=(joy,), feed=True), "secret") as url:
        done, _ = once_watched(trimtab, url, [body()], "--json")
        read, _ = once_watched(
            trimtab, url, [body(readout={"layers": "all", "z": True})], "--json", "--layer", "1"
        )
        import httpx

        headers = {"Authorization": "Bearer secret"}
        asked = body(readout={"layers": "all", "z": True})
        plain = httpx.post(f"{url}/v1/completions", json=asked, headers=headers, timeout=60).json()
        values = np.array(plain["choices"][0]["readout"]["values"])[:, :, 0]
        for record in (done.record, read.record):
            assert record["unit"] == "z" and record["tokens"] == 8 and record["concepts"] == ["joy"]
            assert [record["mean"][str(n)]["joy"] for n in range(4)] == pytest.approx(
                values.mean(0), rel=1e-3
            )
            assert [e["finish"] for e in record["finished"]] == ["length"]
            assert "feel" not in json.dumps(record)
        best = ConceptVectors.load(joy).read_site(4).layer
        assert (done.record["layer"], read.record["layer"]) == (best, 1) and best != 1
        rule = {
            "name": "any",
            "when": {"concept": "joy", "layer": 2, "above": -99.0},
            "then": {"tag": "secretly"},
        }
        ruled, answers = once_watched(trimtab, url, [body(rules=[rule])], "--json")
        assert [r["then"] for r in ruled.record["rules"]] == [["tag"]]  # not the tag's own text
        assert answers[0]["rules"][0]["then"] == [{"tag": "secretly"}]
        shown, _ = once_watched(trimtab, url, [body()], "--once")
        assert "joy" in shown.out and f"layer {best} of 0, 1, 2, 3" in shown.out and "8 tokens" in shown.out
        assert "API key" in refused("watch", url, "--api-key", "wrong", "--once")
        assert "terminal" in refused("watch", url, "--api-key", "secret")
        for seconds in ("0.3", "1", "3", "10"):  # on a busy machine the feed's first word may take its time
            silent = trimtab("watch", url, "--api-key", "secret", "--once", "--timeout", seconds)
            if "says nothing" not in silent.err:
                break
        assert silent.code == 1 and "no reply" in silent.err
    with serving(engine, Settings(readout=(joy,)), "secret") as url:
        assert "TRIMTAB_FEED" in refused("watch", url, "--api-key", "secret", "--once")
    assert "URL" in refused("watch", "embedded")


def test_nothing_is_read_for_a_feed_that_nobody_watches(engine, joy, monkeypatch):
    from trimtab.server import feed as room
    from trimtab.server.feed import Feed

    monkeypatch.setattr(room, "PULSE", 3600.0)  # whoever is sent home does not wait for a sign of life
    feed = Feed(ConceptVectors.load(joy), engine.info)
    assert not feed.watched

    async def look():
        stream = feed.join()
        assert feed.watched
        head = json.loads((await anext(stream))[6:])
        feed.token("r", 0, 4, np.ones((4, 1)))
        for _ in range(5000):
            feed.end("r", 0, "stop")
        dropped = json.loads((await anext(stream))[6:])
        waiting = feed.join()
        await anext(waiting)
        idle = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        feed.close()
        async with asyncio.timeout(60):
            rest = [event async for event in stream]
            with pytest.raises(StopAsyncIteration):
                await idle
        return head, dropped, len(rest)

    head, dropped, rest = asyncio.run(look())
    assert head["layers"] == [0, 1, 2, 3] and head["z"] and dropped == {"event": "dropped", "count": 905}
    assert rest == 4096 and not feed.watched


def test_a_board_keeps_its_order_and_turns_its_layers():
    board = Board.of(HEAD)
    board.take(token([[1.0, None], [3.0, -2.0]]))
    board.take(token([[2.0, 4.0], [5.0, -4.0]], "s"))
    assert np.allclose(board.recent(), [[1.5, 4.0], [4.0, -3.0]]) and np.allclose(
        board.mean(), board.recent()
    )
    assert len(board.under_way) == 2
    board.take({"event": "end", "request": "s", "index": 0, "finish": "stop"})
    assert list(board.under_way) == [("r", 0)] and board.finished[0]["tokens"] == 1
    table = board.render()
    assert [str(c) for c in table.columns[0].cells] == ["b", "a"] and "layer 2" in str(table.title)
    board.turn(-5)
    assert "layer 1" in str(board.render().title)
    for _ in range(64):
        board.take(token([[0.0, 0.0], [0.0, 0.0]]))
    assert not board.recent().any() and board.mean().any()
    assert split("q\x1b[C\x1b[Dl") == ["q", "\x1b[C", "\x1b[D", "l"]


@pytest.mark.parametrize(
    ("value", "left", "right"), [(0, 0, 0), (2, 0, 10), (-1, 5, 0), (99, 0, 20), (np.nan, 0, 0)]
)
def test_a_bar_is_as_long_as_its_value(value, left, right):
    before, after = bar(value, 4.0).split("│")
    assert (before.count("█"), after.count("█")) == (left, right) and len(before) == len(after) == CELLS // 2
