"""Rules that act, and the feed, at vLLM's door by itself: what the workers are told, what must agree, who is told."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from server.stock import vectors
from trimtab.errors import SteeringLost, Unsupported
from trimtab.server.settings import Settings

pytest.importorskip("torch", reason="the worker's side needs torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from server.doors import PLAN, PROMPT, Kind, admitted, door, event, given, output, report, sampling, soon
from trimtab.engines.vllm.ticket import KEY, Ticket
from trimtab.server.vllm import hooks, judging, watching
from trimtab.server.vllm.answers import Chunks, complete

pytestmark = pytest.mark.engine
WHEN = {"concept": "sad", "layer": 2, "below": -1.0}
STEER = {"placements": [{"op": "add", "vector": "calm", "dose": 0.5, "layers": [3]}]}
LOW, HIGH = [-4.0], [9.0]  # z = (x - .25) / 2


def rule(then: Any, name: str = "low") -> dict[str, Any]:
    return {"name": name, "when": WHEN, "then": then}


def ticket_of(admission: Any) -> Ticket:
    return Ticket.from_text(admission.params.extra_args[KEY])


def reading_door(settings: Settings | None = None) -> Any:
    found = door(settings)
    if settings is None:
        found.counter.library.default = "feelings"
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "feelings.safetensors"
    vectors().save(path)
    return path


def test_a_rule_that_acts_is_judged_by_the_worker_and_one_that_reports_is_not():
    async def run() -> None:
        d = reading_door()
        rules = [rule({"tag": "x"}, "tags"), rule("abort", "ends"), rule(["log", {"steer": STEER}], "steers")]
        a = await admitted(
            d, rules=rules, readout={"layers": [3], "concepts": ["calm", "happy"]}, steering=PLAN
        )
        ticket, joint = ticket_of(a), a.journeys[0].joint
        assert (
            joint is not None and ticket.judged_from == 3 and ticket.switches_from == 4 and ticket.first == 0
        )
        assert [r["rule"]["name"] for r in ticket.rules] == ["ends", "steers"]
        assert [r["stop"] for r in ticket.rules] == [True, False]
        assert [r["column"] for r in ticket.rules] == [2, 2]  # behind the two columns of the answer's readout
        assert {(r["offset"], r["scale"]) for r in ticket.rules} == {(0.25, 2.0)}
        assert ticket.rules[0]["plan"] is None and "vectors" not in ticket.rules[1]["plan"]
        names = {v for p in a.journeys[0].clauses[1].plan.placements for v in [p.vector]}
        assert names < set(d.shelf.held) and len(a.journeys[0].rows) == 2
        a.close()
        await d.hold(lambda: None)
        assert d.shelf.held == [] and not d._rows

    asyncio.run(run())


def test_a_rule_that_ends_the_reply_is_a_stop_and_nothing_may_follow():
    async def run() -> None:
        for more in (output(0, [2], "length"), output(0, [2]), output(0, [2], "stop")):
            d = reading_door()
            a = await admitted(d, rules=[rule("abort")])
            key = a.journeys[0].key
            report(d, key, 0, 5, layer_2_3=HIGH, layer_2_4=LOW, verdict_3=[0.0], verdict_4=[1.0])
            stream = a.follow(given(output(0, [1]), more, output(0, [3], "length")))
            await anext(stream)
            done = await anext(stream)
            assert a.journeys[0].parts[0].fired[0]["position"] == 4
            ended = more.outputs[0].finish_reason
            assert done.outputs[0].finish_reason == (None if not ended else "stop")
            if not ended:
                report(d, key, 5, 1, layer_2_5=HIGH, verdict_5=[0.0])
                with pytest.raises(SteeringLost, match="went on"):
                    await anext(stream)
            a.close()

    asyncio.run(run())


def test_a_reply_that_was_at_its_length_anyway_says_length():
    async def run() -> None:
        d = reading_door()
        a = await admitted(d, rules=[rule("abort")])
        rows = {f"layer_2_{p}": HIGH for p in range(3, 10)} | {f"verdict_{p}": [0.0] for p in range(3, 10)}
        report(d, a.journeys[0].key, 0, 11, **rows, layer_2_10=LOW, verdict_10=[1.0])
        stream = a.follow(given(output(0, list(range(8)), "length")))
        assert (await anext(stream)).outputs[0].finish_reason == "length"
        a.close()

    asyncio.run(run())


@pytest.mark.parametrize(("verdict", "row"), [([0.0], LOW), ([1.0], HIGH)])
def test_a_worker_that_judges_otherwise_withholds_the_token(verdict, row):
    async def run() -> None:
        d = reading_door()
        a = await admitted(d, rules=[rule({"steer": STEER})])
        key = a.journeys[0].key
        stream = a.follow(given(output(0, [1])))
        waiting = asyncio.ensure_future(anext(stream))
        report(d, key, 0, 4, layer_2_3=row)
        assert not await soon(waiting), "no verdict has come"
        report(d, key, 3, 1, verdict_3=verdict)
        with pytest.raises(SteeringLost, match="differently"):
            await waiting
        assert d.epoch == 1
        a.close()

    asyncio.run(run())


def test_what_a_rule_switched_on_stands_in_the_receipt():
    async def run() -> None:
        d = reading_door()
        for n in (1, 2):
            a = await admitted(d, n=n, rules=[rule({"steer": STEER})], steering=PLAN)
            key, journey = a.journeys[0].key, a.journeys[0]
            last = n - 1  # the last sample fires, at position 4
            for i in range(n):
                rows = {"layer_2_3": HIGH, "layer_2_4": LOW if i == last else HIGH, "layer_2_5": HIGH}
                told = {"verdict_3": [0.0], "verdict_4": [float(i == last)], "verdict_5": [0.0]}
                report(d, key, 0, 6, id=f"{i}_r", **rows, **told)
            stream = a.follow(given(*(output(i, [1, 2, 3], "stop") for i in range(n))))

            async def server(stream: Any = stream) -> Any:
                async for out in stream:
                    yield event(delta={"content": "t"}, index=out.outputs[0].index, finish_reason="stop")

            chunks = [json.loads(c[6:]) async for c in Chunks(a, server(), usage=False)]
            switched = journey.order.plan.then(journey.order.ruling.steer["low"].beyond(4))
            stated = chunks[-1]["steering_applied"]
            if n == 1:
                assert stated["fingerprint"] == switched.fingerprint and stated["layers"] == [2, 3]
            else:
                want = [journey.order.plan.fingerprint, switched.fingerprint]
                assert [s["fingerprint"] for s in stated] == want
            assert [(f["index"], f["position"]) for f in chunks[-1]["rules"]] == [(last, 4)]

    asyncio.run(run())


def test_a_whole_answer_under_rules_is_followed_token_by_token_and_handed_on_once(caplog):
    async def run() -> None:
        d = reading_door()
        a = await admitted(d, n=2, kind=Kind.FINAL_ONLY, rules=[rule(["log", {"tag": "x"}])])
        assert a.params.output_kind is Kind.CUMULATIVE  # type: ignore[attr-defined]
        key = a.journeys[0].key
        for i in range(2):
            report(d, key, 0, 5, id=f"{i}_r", layer_2_3=LOW, layer_2_4=HIGH)
        steps = (output(0, [1]), output(1, [1, 2], "stop"), output(0, [1, 2], "length"))
        found = []
        async for out in a.follow(given(*steps)):
            found.append([(o.index, o.token_ids, o.finish_reason) for o in out.outputs])
        assert found == [[(0, [1, 2], "length"), (1, [1, 2], "stop")]]
        answer = complete(a, SimpleNamespace(choices=[SimpleNamespace(), SimpleNamespace()]))
        assert [(f["index"], f["position"]) for f in answer.rules] == [(0, 3), (1, 3)]
        assert [c.rules[0]["rule"] for c in answer.choices] == ["low", "low"]
        assert sum("low" in r.message for r in caplog.records) == 2
        plain = await admitted(d, kind=Kind.FINAL_ONLY, steering=PLAN)
        assert plain.params.output_kind is Kind.FINAL_ONLY  # type: ignore[attr-defined]

    asyncio.run(run())


def test_the_operators_rules_bind_every_request(file, tmp_path):
    async def run() -> None:
        rules = tmp_path / "rules.txt"
        rules.write_text("sad@2 z < -1 -> abort\n")
        d = door(Settings(readout=(file,), rules=rules))
        assert d.binds == ""  # nobody has opened it
        d.receiver = SimpleNamespace()  # type: ignore[assignment]
        assert "judges rules" in d.binds
        a = await admitted(d)
        assert a.ruled and len(ticket_of(a).rules) == 1
        pytest.importorskip("vllm", reason="what vLLM's routes raise")
        client = SimpleNamespace()
        hooks.Door.of(client).receiver, hooks.Door.of(client).counter = d.receiver, d.counter  # type: ignore[attr-defined]
        try:
            generate = hooks._following(lambda *args, **kwargs: "plain")
            with pytest.raises(Exception, match="judges rules"):
                generate(client, {"prompt_token_ids": [1]}, SimpleNamespace(extra_args=None), "id")
        finally:
            hooks.Door.of(client).receiver = None
            hooks.Door.of(client).close()

    asyncio.run(run())


def test_rules_that_act_are_refused_where_they_would_not_be_exact():
    rules = [judging.Rule.from_json(r) for r in (rule("log", "a"), rule("abort", "b"))]
    judging.check(rules, "")
    judging.check(rules[:1], "on two workers")
    with pytest.raises(Unsupported, match="'b' wants to abort.*on two workers.*--engine transformers"):
        judging.check(rules, "on two workers")
    parallel, scheduler = SimpleNamespace(world_size=1), SimpleNamespace(async_scheduling=False)
    config = SimpleNamespace(parallel_config=parallel, scheduler_config=scheduler)
    assert judging.inexact(config) == ""
    scheduler.async_scheduling = True
    assert "asynchronous" in judging.inexact(config)
    parallel.world_size = 2
    assert "2 workers" in judging.inexact(config)


def events(stream: Any) -> Any:
    """A call for the next event of a feed."""

    async def following() -> dict[str, Any]:
        return json.loads((await anext(stream))[len("data: ") :])

    return following


def test_whoever_watches_sees_all_traffic_and_no_text(file):
    async def run() -> None:
        d = door(Settings(readout=(file,), feed=True))
        assert d.counter.feed is not None and not d.watched
        d.receiver = SimpleNamespace()  # type: ignore[assignment]
        unwatched = await admitted(d, steering=PLAN)
        assert unwatched.journeys[0].joint is None and not d.watched
        feed = d.counter.feed.join()
        following = events(feed)
        assert (await following())["event"] == "head" and d.watched
        # A request with fields of its own, read for its answer and for the feed.
        a = await admitted(d, readout={"layers": [2], "concepts": ["sad"]}, rules=[rule({"tag": "x"})])
        width = len(a.journeys[0].joint.readout.concepts)  # type: ignore[union-attr]
        rows = {f"layer_{n}_3": [-4.0] * width for n in range(6)}
        report(d, a.journeys[0].key, 0, 4, **rows)
        async for _ in a.follow(given(output(0, [1], "stop")), "chatcmpl-1"):
            pass
        token, fired, end = [await following() for _ in range(3)]
        assert (token["event"], token["request"], token["position"]) == ("token", "chatcmpl-1", 3)
        assert token["values"] == [[-2.125] * 3] * 6  # the file's z, at all of its layers
        assert fired["rule"] == "low" and fired["then"] == ["tag"] and end["finish"] == "stop"
        # A plain one, on a route that knows nothing of us.
        params = sampling(kind=Kind.FINAL_ONLY)

        def outputs(mine: Any) -> Any:
            assert mine is not params and mine.output_kind is Kind.CUMULATIVE
            ticket = Ticket.from_text(mine.extra_args[KEY])
            assert ticket.plan is None and ticket.first is None and ticket.readout
            report(d, ticket.key, 0, 5, **{f"layer_{n}_{p}": [0.25] * 3 for n in range(6) for p in (3, 4)})
            return given(output(0, [1]), output(0, [1, 2], "length"))

        prompt = watching.tokens_of({"type": "token", "prompt_token_ids": list(PROMPT)})
        assert prompt is not None and watching.tokens_of({"prompt_embeds": 1}) is None
        found = [o async for o in watching.watched(d, prompt, params, "resp-1", outputs)]
        assert [o.outputs[0].token_ids for o in found] == [[1, 2]] and params.extra_args is None
        told = [await following() for _ in range(3)]
        assert [(e["event"], e["request"]) for e in told] == [("token", "resp-1")] * 2 + [("end", "resp-1")]
        # One whose client goes away.
        a = await admitted(d, steering=PLAN)
        report(d, a.journeys[0].key, 0, 4, **{f"layer_{n}_3": [0.0] * 3 for n in range(6)})
        stream = a.follow(given(output(0, [1]), output(0, [2])), "gone")
        await anext(stream)
        await stream.aclose()
        assert [(await following())["event"] for _ in range(1)] == ["token"]
        assert (await following())["finish"] == "abandoned"
        # The server ends: so does the feed.
        d.results.loop.call_soon(d.dismiss)
        with pytest.raises(StopAsyncIteration):
            await anext(feed)

    asyncio.run(run())


def test_a_request_for_which_there_is_no_room_to_watch_runs_unwatched(file):
    async def run() -> None:
        d = door(Settings(readout=(file,), feed=True))
        feed = d.counter.feed.join()  # type: ignore[union-attr]
        await anext(feed)
        d.shelf.hold_readout = lambda readout: (_ for _ in ()).throw(Unsupported("no room"))  # type: ignore[method-assign]
        params = sampling()
        found = [
            o async for o in watching.watched(d, list(PROMPT), params, "id", lambda p: given(p is params))
        ]
        assert found == [True] and len(d.results) == 0
        await feed.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
