"""What only the vLLM engine has: a prefix cache, chunks, preemption, aborts, and requests that batch across threads.

Everything is teacher-forced: the distribution over the whole vocabulary at each of vLLM's own tokens is compared with
one full forward pass of Transformers under the same plan.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from engines.oracles import Trace
from engines.registry import place
from engines.vllm_cases import (
    BLOCK,
    EXACT,
    LENGTH,
    NEW,
    WORST,
    base,
    cases,
    check,
    counted,
    exact_subject,
    mixed,
    run,
    settled,
)
from engines.vllm_soak import Soak
from trimtab.directions import ConceptVectors
from trimtab.engines.handles import CaptureHandle, fetch_all
from trimtab.engines.requests import Capture, CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.engines.vllm import captured
from trimtab.engines.vllm.engine import VllmEngine
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json
from trimtab.errors import InputError, SteeringLost, Unsupported
from trimtab.interventions import Add
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt, resolve_positions
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    yield from exact_subject(tmp_path_factory.mktemp("vllm"))


def test_three_rounds_of_a_mixed_batch_with_the_prefix_cache(subject):
    """Cold; prompts that share prefixes of different length; reversed. Captures and readings ride along."""
    tokens = base()
    capture = (Site(0), Site(subject.last))
    for turn in range(3):
        shared = tokens if turn != 1 else tokens[: LENGTH - 13]
        batch = cases(subject, shared)[:: -1 if turn == 2 else 1]
        observed = [c for i, c in enumerate(batch) if i % 3 == 2]
        threads = [
            threading.Thread(target=run, args=(subject, [c for c in batch if c not in observed])),
            threading.Thread(target=run, args=(subject, observed, capture)),
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for case in batch:
            check(subject, case)
        print("WORST round", turn, max(WORST))
        if turn:
            # A plan on "prompt" ends with it, so on a shorter prompt it is another plan.
            again = [c for c in batch if c not in observed and not (turn == 1 and c.name == "prompt")]
            assert all(c.cached == 4 * BLOCK for c in again), [(c.name, c.cached) for c in again]
        assert all(c.cached == 0 for c in observed)


def test_the_cache_is_shared_up_to_the_first_steered_block(subject):
    """Plain blocks are never read by a request that steers them, and are read by one that steers later."""
    tokens = base(1)
    (plain,) = run(subject, cases(subject, tokens, ["plain"]))
    found = {}
    for name in ("add", "generated", "from 40", "plain", "add"):
        (found[name],) = run(subject, cases(subject, tokens, [name]))
        check(subject, found[name])
        if name == "add" and len(found) == 1:
            assert found[name].cached == 0
    whole = (LENGTH - 1) // BLOCK * BLOCK
    assert plain.cached == 0
    assert found["generated"].cached == found["plain"].cached == whole
    assert found["from 40"].cached == BLOCK  # the block of token 40 is the second
    assert found["add"].cached == whole  # its own, from the first time
    stronger = cases(subject, tokens, ["add"])[0]
    p = stronger.plan.placements[0]
    other = replace(p, coefficients=p.coefficients.scaled(1.5))
    stronger = replace(stronger, plan=ResolvedPlan((other,), stronger.plan.vectors))
    check(subject, run(subject, [stronger])[0])
    assert stronger.cached == 0


def test_preemption_changes_nothing(subject):
    """More requests than blocks: some are thrown out and begin again, with their captures."""
    before = counted("num_preemptions")
    kinds = cases(subject, base(2))
    batch = [replace(c, prompt=Prompt(base(10 + i))) for i, c in enumerate([*kinds, *kinds[1:5]])]
    batch = [replace(c, plan=subject.engine.resolve(mixed(subject)[c.name], c.prompt)) for c in batch]
    for _ in range(5):  # on a busy machine they may come one after the other
        run(subject, batch, (Site(1), Site(subject.last)), new=150)
        if counted("num_preemptions") > before:
            break
    assert counted("num_preemptions") > before, "nothing was preempted; the test shows nothing"
    for case in batch:
        check(subject, case, 3 * EXACT)  # 300 tokens of float32, through weights that amplify


def test_samples_of_one_request_and_ids_that_begin_alike(subject):
    """vLLM's own n > 1, sent straight to it, and a plain request whose id is the beginning of a steered one's."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine: Any = subject.engine
    (case,) = cases(subject, base(3), ["add everywhere"])
    held = engine.shelf.hold(case.plan.vectors)
    ticket = Ticket("mine", engine.epoch, plan_json(case.plan), case.plan.first_position())
    record = engine.ledger.open("mine", LENGTH + NEW)
    shared: dict[str, Any] = {"max_tokens": NEW, "ignore_eos": True, "logprobs": -1, "temperature": 1.0}
    shared["output_kind"] = RequestOutputKind.FINAL_ONLY
    steered = SamplingParams(**shared, n=3, seed=5, extra_args={KEY: ticket.to_text()})
    plain = SamplingParams(**shared, seed=5)

    async def one(params: Any, id: str) -> Any:
        last = None
        async for output in engine.loop.llm.generate(
            {"prompt_token_ids": list(case.prompt.tokens)}, params, id
        ):
            last = output
        return last

    async def both() -> Any:
        return await asyncio.gather(one(steered, "run"), one(plain, "run-1"), one(plain, "ru"))

    outputs = engine.loop.submit(both()).result(timeout=900)
    engine.ledger.whole(record, 0, LENGTH)
    engine.ledger.close("mine")
    engine.shelf.release(held)
    assert len(outputs[0].outputs) == 3 and len({tuple(o.token_ids) for o in outputs[0].outputs}) == 3
    for output, plan in zip(outputs, (case.plan, ResolvedPlan(), ResolvedPlan()), strict=True):
        for done in output.outputs:
            whole = case.prompt.tokens + tuple(done.token_ids)[:-1]
            want = subject.oracle.run(whole, plan).logprobs[LENGTH - 1 :]
            got = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
            assert np.abs(got - want).max() <= EXACT


def test_aborted_requests_leave_nothing(subject):
    engine: Any = subject.engine
    plan, prompt = mixed(subject)["stack"], Prompt(base(5))
    spec = CaptureSpec((Site(1),))
    for _ in range(3):
        stream = engine.stream([Request(prompt, plan, Sampling(max_tokens=200, ignore_eos=True), spec)] * 4)
        next(stream)
        stream.close()
    counts = settled(engine)
    assert (counts["programs"], counts["bank"], len(engine.ledger)) == (0, 0, 0)
    (case,) = run(subject, cases(subject, base(5), ["stack"]))
    check(subject, case)


def test_threads_batch_together(subject):
    """Concurrent calls with different plans, captures and readings, each compared with its own solo run."""
    engine: Any = subject.engine
    vectors = ConceptVectors.from_directions([subject.direction(Site(1), 5)])
    plans = list(mixed(subject).values())
    requests = [
        Request(
            Prompt(base(20 + i)[: 40 + 5 * i]),
            plans[i % len(plans)],
            Sampling(max_tokens=8, temperature=float(i % 2), seed=i, ignore_eos=True),
            CaptureSpec((Site(i % 4),), "generated") if i % 3 == 0 else None,
            Readout.from_vectors(vectors) if i % 4 == 0 else None,
        )
        for i in range(20)
    ]

    async def together() -> Any:
        return await asyncio.gather(*(engine.agenerate(r) for r in requests))

    for r, (got,) in zip(requests, asyncio.run(together()), strict=True):
        sample, resolved = got.samples[0], engine.resolve(r.plan, r.prompt)
        want: Trace = subject.oracle.run(r.prompt.tokens + sample.tokens[:-1], resolved)
        at = np.arange(len(r.prompt) - 1, len(r.prompt) - 1 + len(sample.tokens))
        assert np.abs(sample.logprobs - want.logprobs[at, list(sample.tokens)]).max() <= EXACT
        if r.capture is not None:
            (site,) = r.capture.sites
            subject.same_states(sample.capture[site], want.state(site, "after")[len(r.prompt) :], site)
        if r.readout is not None:
            truth = r.readout.apply(Site(1), want.state(Site(1), "after")[at])
            subject.same_states(sample.readings.values[:, 0], truth, Site(1))
    assert settled(engine)["programs"] == 0


def test_a_lost_request_is_withheld_and_the_next_one_is_right(subject):
    """The worker lost the arrays: the output is not given out, and neither are the keys and values that it wrote."""
    engine: Any = subject.engine
    plan, prompt = mixed(subject)["ablate"], Prompt(base(6))
    request = Request(prompt, plan, Sampling(max_tokens=4, ignore_eos=True))
    names = engine.shelf.hold(engine.resolve(plan, prompt).vectors)
    engine.shelf.release(names)
    engine.loop.call("trimtab_drop", list(names))
    with pytest.raises(SteeringLost, match="does not carry"):
        engine.generate(request)
    (case,) = run(subject, cases(subject, base(6), ["ablate"]))
    check(subject, case)
    assert case.cached == 0


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("positions", ["all", "generated"])
def test_a_plan_that_breaks_states_loses_its_request_alone(subject, positions, together):
    """Batchmates are right, nothing of it is in the prefix cache, and whoever gets its blocks reads nothing of it."""
    engine: Any = subject.engine
    strong = place(subject, Add(amount=3e38), Site(1), positions=positions).placements * 9
    request = Request(Prompt(base(30)), SteeringPlan(strong), Sampling(max_tokens=40, ignore_eos=True))
    batch, epoch = cases(subject, base(31)), engine.epoch
    mates = threading.Thread(target=run, args=(subject, batch))
    if together:
        mates.start()
    with pytest.raises(SteeringLost, match="not finite.*layer 3"):
        engine.generate(request)
    if not together:
        mates.start()
    mates.join()
    for case in batch:
        check(subject, case)
    # As a client would come that knows nothing of the loss: with the same key of the prefix cache.
    settled(engine)
    hits = counted("prefix_cache_hits")
    for _ in range(2):
        engine.epoch = epoch
        with pytest.raises(SteeringLost, match="not finite"):
            engine.generate(request)
    # The blocks before the first steered token are everybody's.
    shared = 0 if positions == "all" else 4 * BLOCK
    assert settled(engine)["programs"] == 0
    assert counted("prefix_cache_hits") - hits == 2 * shared
    # Every block of the cache is written anew, also those that held what was not finite.
    everywhere = [replace(c, prompt=Prompt(base(40 + i))) for i, c in enumerate(cases(subject, base(32)) * 2)]
    everywhere = [replace(c, plan=engine.resolve(mixed(subject)[c.name], c.prompt)) for c in everywhere]
    run(subject, everywhere, new=100)
    for case in everywhere:
        check(subject, case, 3 * EXACT)


def test_scores_of_a_long_prompt_in_chunks(subject):
    (case,) = cases(subject, base(7), ["from 40"])
    got = subject.engine.score(ScoreRequest(case.prompt, None, case.plan, "all"))[0]
    want = subject.oracle.run(case.prompt.tokens, case.plan).logprobs
    assert got.distribution is not None and np.abs(got.distribution - want).max() <= EXACT


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.check)])
def test_a_soak_of_mixed_requests_with_aborts(subject, count):
    """Each is what it was alone, none has anything of another, and nothing is left behind."""
    soak = Soak(subject)
    first = count * 3 // 4  # until then, torch's allocator takes what it needs and keeps
    soak.run(first)
    before = soak.memory()
    soak.run(count - first)
    more = soak.memory() - before
    print(f"soak of {count}: {soak.worst:.2g} nats, {soak.aborted} aborted, {more:.1f} MB more")
    assert soak.worst <= EXACT and soak.finished + soak.aborted == count
    assert count / 15 < soak.aborted < count / 2 and soak.states > count / 2
    assert more < 30, "the worker's memory grows"
    counts = settled(subject.engine)
    assert (counts["programs"], counts["bank"], len(subject.engine.ledger)) == (0, 0, 0)
    assert counts["requests"] <= 1  # the request that settled it


def test_captures_are_handles_that_hold_nothing_when_they_are_gone(subject, monkeypatch):
    """The first lies in memory, and what is captured after that in a file."""
    engine: Any = subject.engine
    plan, tokens, new = mixed(subject)["stack"], base(60)[:70], 5
    monkeypatch.setattr(captured, "MEMORY", memory := captured.Memory(1))
    sites, end = (Site(1), Site(subject.last)), 70 + new - 1
    request = Request(
        Prompt(tokens), plan, Sampling(max_tokens=new, ignore_eos=True), CaptureSpec(sites, {"after": 60})
    )

    async def both() -> Any:
        first, second = await asyncio.gather(engine.agenerate(request), engine.agenerate([request, request]))
        handles = [c.samples[0].capture for c in (*first, *second)]
        return [first[0].tokens, handles, await handles[0].fetch(), *fetch_all(handles[1:])]

    made, handles, *found = asyncio.run(both())
    want = subject.oracle.run(tokens + made[:-1], engine.resolve(plan, Prompt(tokens)))
    for handle, got in zip(handles, found, strict=True):
        assert isinstance(handle, CaptureHandle) and type(got) is Capture
        assert list(got.positions) == list(range(61, end)) and handle.nbytes == 2 * 4 * 64 * (end - 61)
        for site in sites:
            subject.same_states(got[site], want.state(site, "after")[61:], site)
            assert np.shares_memory(got[site], handle[site]), "fetching copies"
        handle.close()
        with pytest.raises(InputError, match="closed"):
            handle.fetch()
    assert 0 < memory.taken < 3 * handles_bytes(end)
    del found, got, handle, handles
    gc.collect()
    assert memory.taken == 0 and len(engine.ledger) == 0


def handles_bytes(end: int) -> int:
    """What two layers of one such request take."""
    return 2 * 4 * 64 * (end - 61)


def test_what_vllm_cannot_do_is_refused_before_running(subject):
    engine, prompt = subject.engine, Prompt(base(8))
    with pytest.raises(Unsupported, match="temperature"):
        engine.generate(Request(prompt, None, Sampling(temperature=3.0)))
    with pytest.raises(InputError, match="vocabulary"):
        engine.generate(Request(Prompt((5, 99)), None, Sampling(max_tokens=1)))
    with pytest.raises(InputError, match="context"):
        engine.capture(Prompt((5,) * 512), [Site(0)])
    assert resolve_positions("all", prompt) == ((0, None),)


def test_an_engine_on_an_asyncllm_that_runs_already(subject):
    """The last test with this engine: its workers tell one engine at a time."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    llm, prompt = subject.engine.loop.llm, Prompt(base(70)[:90])
    plans = [mixed(subject)[n] for n in ("stack", "gated", "generated", "plain")]
    vectors = ConceptVectors.from_directions([subject.direction(Site(1), 5)])
    readout, sites = Readout.from_vectors(vectors), (Site(0), Site(subject.last))
    params = SamplingParams(
        n=2, max_tokens=8, temperature=1.0, seed=3, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
    )

    async def one(engine: VllmEngine, plan: Any, id: str) -> Any:
        ride = await engine.aboard(
            prompt, params, plan=plan, capture=CaptureSpec(sites, "generated"), readout=readout
        )
        async for output in llm.generate(ride.prompt, ride.params, id):
            last = output
        return await ride.acompletion(last)

    async def client() -> Any:
        engine = await VllmEngine.aattach(llm)
        with pytest.raises(InputError, match="await"):
            engine.board(prompt, params, plan=plans[0])
        rides = [one(engine, p, f"mine-{i}") for i, p in enumerate(plans)]
        request = Request(prompt, plans[0], Sampling(max_tokens=8, ignore_eos=True), CaptureSpec(sites))
        *found, whole = await asyncio.gather(*rides, engine.agenerate(request))
        with pytest.raises(InputError, match="vocabulary"):
            await engine.aboard(Prompt((5, 9999)), params)
        left = await engine.aboard(prompt, params, plan=plans[0], capture=CaptureSpec(sites))
        async for _ in llm.generate(left.prompt, left.params, "left"):
            break
        left.close()
        held = len(engine.ledger)
        engine.close()
        return [*found, *whole], held

    found, held = subject.engine.loop.submit(client()).result(timeout=300)
    assert held == 0
    for completion, plan in zip(found, [*plans, plans[0]], strict=True):
        resolved = subject.engine.resolve(plan, prompt)
        assert len({s.tokens for s in completion.samples}) == len(completion.samples)
        for sample in completion.samples:
            want: Trace = subject.oracle.run(prompt.tokens + sample.tokens[:-1], resolved)
            at = np.arange(len(prompt) - 1, len(prompt) + 7)
            assert np.abs(sample.logprobs - want.logprobs[at, list(sample.tokens)]).max() <= EXACT
            assert sample.applied.fingerprint == resolved.fingerprint
            for site in sites:
                truth = want.state(site, "after")[sample.capture.positions]
                subject.same_states(sample.capture.fetch()[site], truth, site)
            if sample.readings is not None:
                truth = readout.apply(Site(1), want.state(Site(1), "after")[at])
                subject.same_states(sample.readings.values[:, 0], truth, Site(1))
    assert all(s.readings is not None for c in found[:-1] for s in c.samples)
