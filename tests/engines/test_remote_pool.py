"""Several servers as one engine: the same as here, spread over all of them, also when one goes away in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import trimtab
from engines.faulty_servers import LONG, SITE, Between, busy, dies, meddled, plan, rewriting
from engines.served import Served
from server.stock import Port
from trimtab.engines.remote.connection import Connection
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.errors import InputError, Mismatch, SteeringLost, TrimtabError
from trimtab.server.settings import Settings
from trimtab.sites import Site

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:tiny has a chat template")]
for module in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")
GENERATE, CAPTURE, SCORE = (f"/v1/engine/{name}" for name in ("generate", "capture", "score"))


@pytest.fixture(scope="module")
def local():
    return trimtab.load_engine("tiny", "reference")


@pytest.fixture
def stack():
    with ExitStack() as found:
        yield found


def pooled(*urls: str, **options: Any) -> Any:
    """Servers as one engine that does not really wait between its tries."""
    from trimtab.engines.remote import RemoteEngine
    from trimtab.engines.remote.pool import Pool

    options = {"sleep": lambda seconds: None, "timeout": 20, "retries": 1, **options}
    return Pool([RemoteEngine(Connection(url, **options)) for url in urls])


def counted(local: Any, path: str) -> tuple[Served, Between]:
    async def through(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return meddled(local, path, through)


def asked(local: Any, count: int, **more: Any) -> list[Request]:
    """Requests of which every other one is steered."""
    prompts = [local.encode(f"I feel {'so ' * (i % 5)}happy", bare=True) for i in range(count)]
    return [Request(p, plan(local) if i % 2 else None, LONG, **more) for i, p in enumerate(prompts)]


# --- the same as here, by all of them


def test_requests_are_spread_and_come_back_in_order(local, stack):
    counts = []
    urls = []
    for _ in range(3):
        server, between = counted(local, GENERATE)
        urls.append(stack.enter_context(server).url)
        counts.append(between)
    engine = stack.enter_context(trimtab.load_engine(urls, "remote"))
    requests = asked(local, 40, capture=CaptureSpec((SITE,), "generated"))
    for got, want in zip(engine.generate(requests), local.generate(requests), strict=True):
        assert (got.tokens, got.applied, got.text) == (want.tokens, want.applied, want.text)
        a, b = got.samples[0].capture, want.samples[0].capture
        assert a is not None and b is not None
        np.testing.assert_allclose(a[SITE], b[SITE], atol=1e-6)
    assert all(c.calls for c in counts)
    drawn = Request("I feel", None, Sampling(max_tokens=8, temperature=1.0, seed=4, n=3))
    many = [drawn] * 6
    want = local.generate(drawn)[0].samples
    assert all([s.tokens for s in c.samples] == [s.tokens for s in want] for c in engine.generate(many))


def test_captures_means_and_scores_are_spread(local, stack):
    urls, counts = [], []
    for path in (CAPTURE, SCORE):
        server, between = counted(local, path)
        urls.append(stack.enter_context(server).url)
        counts.append(between)
    engine = stack.enter_context(trimtab.load_engine(" , ".join(urls), "remote"))
    prompts = [local.encode(f"They look {'very ' * n}mad", bare=True) for n in range(9)]
    sites, seen = [Site(0), Site(3)], []
    steered = {"plan": plan(local)}
    pairs = zip(
        engine.capture(prompts, sites, **steered), local.capture(prompts, sites, **steered), strict=True
    )
    assert all(np.array_equal(got[s], want[s]) for got, want in pairs for s in sites)
    means = engine.pool(prompts, sites, "mean_all", seen.append)
    for site, rows in local.pool(prompts, sites, "mean_all").items():
        np.testing.assert_allclose(means[site], rows, atol=1e-6)
    assert seen[-1] == 9 and len(seen) == 3
    orders = [ScoreRequest(p, " so", plan(local)) for p in prompts]
    for got, want in zip(engine.score(orders), local.score(orders), strict=True):
        np.testing.assert_allclose(got.logprobs, want.logprobs, atol=1e-6)
    assert all(c.calls for c in counts)
    assert engine.decode(engine.encode("I feel").tokens) == local.decode(local.encode("I feel").tokens)
    assert engine.generate([]) == []


def test_callers_share_the_room_of_all_servers():
    """The server that does least for anybody gets the next call, and no caller has more than `concurrency` anywhere."""
    from trimtab.engines.remote.spreading import Spread

    class Line:
        def __init__(self, url: str) -> None:
            self.url, self.concurrency = url, 2

    release, begun = threading.Event(), []

    def ask(line: Any, job: Any) -> Iterator[str]:
        begun.append(line.url)
        yield line.url
        release.wait(60)

    spread = Spread([Line("a"), Line("b")])  # type: ignore[list-item]
    calls = [spread.run([[0]], ask, lambda job, error: []) for _ in range(3)]
    assert [next(c) for c in calls] == ["a", "b", "a"]
    many = spread.run([[i] for i in range(6)], ask, lambda job, error: [])
    assert sorted(next(many) for _ in range(4)) == ["a", "a", "b", "b"] and len(begun) == 7
    release.set()
    assert len(list(many)) == 2 and len(begun) == 9


def test_what_differs_is_refused_by_name(local, stack):
    first = stack.enter_context(Served(local))
    assert local.info.n_layers == 4
    others = {"n_layers 4 and 3": trimtab.load_engine("tiny", "reference", n_layers=3)}
    other_type = trimtab.load_engine("tiny", "reference")
    other_type.info = type(local.info)(**{**vars(local.info), "dtype": "bfloat16", "revision": "new"})
    others["revision 1 and new; dtype float64 and bfloat16"] = other_type
    for words, engine in others.items():
        with Served(engine) as second, pytest.raises(Mismatch, match="same model") as error:
            trimtab.load_engine(f"{first.url},{second.url}", "remote")
        assert all(part in str(error.value) for part in (first.url, second.url, *words.split("; "))), (
            error.value
        )
    with pytest.raises(InputError, match="more than once"):
        trimtab.load_engine([first.url, first.url + "/v1/"], "remote")
    for bad in ([], f"{first.url},", [first.url, "tiny"]):
        with pytest.raises(InputError, match="server's address"):
            trimtab.load_engine(bad, "remote")
    with pytest.raises(TrimtabError, match="no answer from http://127.0.0.1:9"):
        trimtab.load_engine([first.url, "http://127.0.0.1:9"], "remote", retries=0)


# --- one goes away


def test_what_a_dying_server_leaves_goes_to_the_other(local, stack):
    dying, between = meddled(local, GENERATE, dies)
    a, b = stack.enter_context(dying), stack.enter_context(Served(local))
    engine = stack.enter_context(pooled(a.url, b.url))
    requests = asked(local, 40)
    with pytest.warns(UserWarning, match=f"{a.url} broke off.*goes to {b.url}") as told:
        got = engine.generate(requests)
    assert len(told) == 1 and between.calls
    want = local.generate(requests)
    assert [c.tokens for c in got] == [c.tokens for c in want]
    assert [c.applied for c in got] == [c.applied for c in want]
    calls = between.calls
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [c.tokens for c in engine.generate(requests[:4])] == [c.tokens for c in want[:4]]
    assert between.calls == calls, "a server that went away was asked again"


def test_a_stream_goes_on_where_it_broke_off(local, stack):
    dying, _ = meddled(local, GENERATE, dies)
    a, b = stack.enter_context(dying), stack.enter_context(Served(local))
    request = Request(local.encode("I feel", bare=True), plan(local), LONG)
    with pooled(a.url, b.url) as engine, pytest.warns(UserWarning, match=a.url):
        got = list(engine.stream(request))
    want = list(local.stream(request))
    assert [(e.token, e.text) for e in got] == [(e.token, e.text) for e in want]
    assert [e.sample is not None for e in got] == [False] * 40 + [True]


def test_a_stream_that_another_server_would_not_go_on_with_is_withheld(local, stack):
    def other_token(pairs: Any) -> Any:
        pairs[2][0]["token"] += 1
        return pairs

    dying, _ = meddled(local, GENERATE, dies)
    strange, _ = meddled(local, GENERATE, rewriting(other_token))
    a, b = stack.enter_context(dying), stack.enter_context(strange)
    request = Request(local.encode("I feel", bare=True), plan(local), LONG)
    seen = []
    with (
        pooled(a.url, b.url) as engine,
        pytest.warns(UserWarning, match=a.url),
        pytest.raises(TrimtabError, match=f"{b.url} does not repeat"),
    ):
        for event in engine.stream(request):
            seen.append(event)
    assert seen and all(e.sample is None for e in seen)


def test_a_sample_without_a_seed_is_not_drawn_twice(local, stack):
    dying, _ = meddled(local, GENERATE, dies)
    a = stack.enter_context(dying)
    b, between = counted(local, GENERATE)
    stack.enter_context(b)
    drawn = Sampling(max_tokens=40, temperature=1.0, ignore_eos=True)
    with (
        pooled(a.url, b.url) as engine,
        pytest.raises(TrimtabError, match=f"{a.url} broke off.*give it a seed"),
    ):
        engine.generate(Request(local.encode("I feel", bare=True), None, drawn))
    assert between.calls == 0


@pytest.mark.parametrize("path", [CAPTURE, SCORE])
def test_captures_and_scores_of_a_dying_server_go_to_the_other(local, stack, path):
    async def hang_up(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"99"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise RuntimeError("the server dies")

    dying, between = meddled(local, path, hang_up)
    a, b = stack.enter_context(dying), stack.enter_context(Served(local))
    engine = stack.enter_context(pooled(a.url, b.url))
    prompts = [local.encode(f"I feel {'so ' * i}happy", bare=True) for i in range(7)]
    with pytest.warns(UserWarning, match=f"no answer from {a.url}.*goes to {b.url}"):
        if path == CAPTURE:
            pairs = zip(engine.capture(prompts, [SITE]), local.capture(prompts, [SITE]), strict=True)
            assert all(np.array_equal(x[SITE], y[SITE]) for x, y in pairs)
        else:
            orders = [ScoreRequest(p) for p in prompts]
            pairs = zip(engine.score(orders), local.score(orders), strict=True)
            assert all(np.allclose(x.logprobs, y.logprobs, atol=1e-6) for x, y in pairs)
    assert between.calls >= 2


def test_a_killed_server_is_replaced_by_the_other(local, stack):
    """A real server in a process of its own, killed in the middle of its answers."""
    port = Port()
    code = "import sys; from trimtab.cli import main; sys.exit(main())"
    flags = ["serve", "tiny", "--engine", "reference", "--allow-inline", "--port", str(port.number)]
    process = subprocess.Popen([sys.executable, "-c", code, *flags], stderr=subprocess.DEVNULL)
    stack.callback(port.free)
    stack.callback(process.wait)
    stack.callback(process.kill)
    url = f"http://127.0.0.1:{port.number}"
    trimtab.load_engine(url, "remote", retries=12).close()  # it is there
    other = stack.enter_context(Served(local))
    engine = stack.enter_context(pooled(url, other.url))
    long = Sampling(max_tokens=480, temperature=1.0, seed=0, n=8, ignore_eos=True)
    request = Request(local.encode("I feel", bare=True), plan(local), long)
    found: dict[int, list[int]] = {}
    with pytest.warns(UserWarning, match=f"{url}.*goes to {other.url}"):
        for i, event in enumerate(engine.stream(request)):
            if i == 5:
                process.kill()
            if event.token is not None:
                found.setdefault(event.index, []).append(event.token)
    assert found == {j: list(s.tokens) for j, s in enumerate(local.generate(request)[0].samples)}


def test_when_all_are_gone_every_one_is_named_and_asked_anew_later(local, stack):
    there = [False]

    async def away(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await (app if there[0] else lambda *a: dies(calls, app, *a))(scope, receive, send)

    a, b = (stack.enter_context(meddled(local, GENERATE, away)[0]) for _ in range(2))
    engine = stack.enter_context(pooled(a.url, b.url))
    request = Request(local.encode("I feel", bare=True), plan(local), LONG)
    with (
        pytest.warns(UserWarning, match=a.url),
        pytest.raises(TrimtabError, match="no server is left") as error,
    ):
        engine.generate(request)
    assert a.url in str(error.value) and b.url in str(error.value)
    there[0] = True
    assert engine.generate(request)[0].tokens == local.generate(request)[0].tokens


def test_a_full_server_is_passed_by_and_asked_again_later(local, stack):
    async def first_full(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await (busy(send, b"1") if calls <= 2 else app(scope, receive, send))

    full, between = meddled(local, GENERATE, first_full)
    a, b = stack.enter_context(full), stack.enter_context(Served(local))
    engine = stack.enter_context(pooled(a.url, b.url))
    drawn = Sampling(max_tokens=4, temperature=1.0)  # never begun, so that it may go elsewhere without a seed
    with pytest.warns(UserWarning, match=f"{a.url}: full.*goes to {b.url}"):
        assert engine.generate(Request(local.encode("I feel", bare=True), None, drawn))[0].tokens
    assert between.calls == 2
    engine.generate(Request(local.encode("I feel", bare=True), None, drawn))
    assert between.calls == 3


# --- what no other server is asked for


@pytest.mark.parametrize("health", [200, 503])
def test_a_server_whose_engine_died_went_away(local, stack, health):
    from trimtab.server.app import build

    def failing(status: int, message: str) -> Any:
        async def meddle(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"application/json")]
            body = json.dumps({"error": {"message": message, "kind": "TrimtabError"}}).encode()
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return meddle

    app = Between(build(local, Settings(inline=True)), "/health", failing(health, "about"))
    a = stack.enter_context(Served.of(Between(app, GENERATE, failing(500, "the engine died"))))
    b = stack.enter_context(Served(local))
    engine = stack.enter_context(pooled(a.url, b.url))
    request = Request(local.encode("I feel", bare=True), plan(local), LONG)
    if health == 200:
        with pytest.raises(TrimtabError, match=f"{a.url}: the engine died"):
            engine.generate(request)
    else:
        with pytest.warns(UserWarning, match=f"{a.url}: the engine died.*goes to {b.url}"):
            assert engine.generate(request)[0].tokens == local.generate(request)[0].tokens


def test_lost_steering_and_refusals_are_errors_that_name_the_server(local, stack):
    def plain_instead(pairs: Any) -> Any:
        pairs[0][0]["applied"] = ["plain"]
        return pairs

    unsteered, _ = meddled(local, GENERATE, rewriting(plain_instead))
    a = stack.enter_context(unsteered)
    b, between = counted(local, GENERATE)
    stack.enter_context(b)
    request = Request(local.encode("I feel", bare=True), plan(local), LONG)
    with pooled(a.url, b.url) as engine, pytest.raises(SteeringLost, match=f"{a.url}: .*plain"):
        engine.generate(request)
    closed = stack.enter_context(Served(local, Settings()))
    with (
        pooled(closed.url, b.url) as engine,
        pytest.raises(InputError, match=f"{closed.url}: .*ALLOW_INLINE"),
    ):
        engine.generate(request)
    assert between.calls == 0


# --- the command line


def test_the_verbs_take_several_addresses(local, stack, capsys):
    from trimtab.cli import main

    both = ",".join(stack.enter_context(Served(local)).url for _ in range(2))
    flags = ["--engine", "remote", "--prompt", "I feel", "--max-tokens", "4", "--json"]
    assert main(["generate", both, *flags]) == 0
    there = json.loads(capsys.readouterr().out)
    assert main(["generate", "tiny", "--engine", "reference", *flags[2:]]) == 0
    assert there["text"] == json.loads(capsys.readouterr().out)["text"]
    for verb in ("chat", "watch"):
        assert main([verb, both, "--json"]) == 2
        assert "one server" in capsys.readouterr().err
