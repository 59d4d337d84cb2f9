"""What may go wrong between a remote engine and its server: nothing of it may pass for a steered answer."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import trimtab
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.base import Engine
from trimtab.engines.remote.connection import Connection
from trimtab.engines.remote.packing import MEDIA, STREAM, frame, frames, pack, unpack
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.errors import (
    InputError,
    MissingDependency,
    SteeringLost,
    TrimtabError,
    UnknownName,
    Unsupported,
)
from trimtab.objectives import Separation
from trimtab.plans import SteeringPlan
from trimtab.server.settings import Settings
from trimtab.sites import Site

pytestmark = pytest.mark.filterwarnings("ignore:tiny has a chat template")
for module in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")

from engines.served import Served  # noqa: E402 (it needs what was just looked for)

SITE = Site(1)
LONG = Sampling(max_tokens=40, ignore_eos=True)


@pytest.fixture(scope="module")
def local():
    return trimtab.load_engine("tiny", "reference")


@pytest.fixture(scope="module")
def server(local) -> Iterator[Served]:
    with Served(local) as found:
        yield found


@pytest.fixture(scope="module")
def remote(server) -> Iterator[Engine]:
    with trimtab.load_engine(server.url, "remote") as found:
        yield found


def plan(engine: Any, amount: float = -6.0) -> SteeringPlan:
    unit = np.random.default_rng(3).standard_normal(engine.info.width(SITE))
    return SteeringPlan.add(Direction.from_raw("d", SITE, unit), amount=amount)


def impatient(url: str, slept: list[float] | None = None, **options: Any) -> Any:
    """A remote engine that does not really wait between its tries."""
    from trimtab.engines.remote import RemoteEngine

    waits = [] if slept is None else slept
    return RemoteEngine(Connection(url, sleep=waits.append, timeout=20, **options))


class Between:
    """ASGI middleware that hands the calls of one path to `meddle(calls so far, app, scope, receive, send)`."""

    def __init__(self, app: Any, path: str, meddle: Callable[..., Any]) -> None:
        self.app, self.path, self.meddle, self.calls = app, path, meddle, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            self.calls += 1
            await self.meddle(self.calls, self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def meddled(local: Any, path: str, meddle: Callable[..., Any]) -> tuple[Served, Between]:
    from trimtab.server.app import build

    between = Between(build(local, Settings(inline=True)), path, meddle)
    return Served.of(between), between


async def busy(send: Any, after: bytes | None = None) -> None:
    headers = [(b"content-type", b"application/json")] + ([(b"retry-after", after)] if after else [])
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"error": {"message": "full"}}'})


def rewriting(change: Callable[[list[tuple[dict[str, Any], Any]]], list[Any]]) -> Callable[..., Any]:
    """Rewrites the frames of a stream."""

    async def meddle(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        held = bytearray()

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            held.extend(message.get("body", b""))
            if not message.get("more_body"):
                body = b"".join(frame(*pair) for pair in change(list(frames([bytes(held)]))))
                await send({"type": "http.response.body", "body": body})

        await app(scope, receive, keep)

    return meddle


# --- bodies


def test_bodies_and_streams_come_back_whole_however_they_are_cut():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 4), np.float32)}
    head, found = unpack(pack({"x": [1, None, "é"]}, arrays))
    assert head == {"x": [1, None, "é"]} and found["a"].tolist() == arrays["a"].tolist()
    assert found["none"].shape == (0, 4)
    whole = frame({"i": 0}, arrays) + frame({"i": 1})
    for size in (1, 7, len(whole)):
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert [h["i"] for h, _ in frames(pieces)] == [0, 1]
    assert [h["i"] for h, _ in frames([whole[:-1]])] == [0]
    for bad in (b"", b"\xff" * 8, whole, pack({})[:-1], b"\x02\0\0\0\0\0\0\0{}"):
        with pytest.raises(InputError):
            unpack(bad)


# --- the same as here


def test_many_requests_side_by_side_are_the_engines(remote, local):
    prompts = [f"I feel {'so ' * n}happy" for n in range(40)]
    requests = [
        Request(local.encode(p, bare=True), plan(local) if i % 2 else None, LONG)
        for i, p in enumerate(prompts)
    ]
    want = local.generate(requests)
    for engine in (remote, impatient(remote.line.url, concurrency=2)):
        got = engine.generate(requests)
        assert [c.tokens for c in got] == [c.tokens for c in want]
        assert [c.applied for c in got] == [c.applied for c in want]
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda r: remote.generate(r)[0].tokens, requests[:12]))
    assert alone == [c.tokens for c in want[:12]]


def test_captures_and_means_in_several_calls_are_the_engines(remote, local, monkeypatch):
    monkeypatch.setattr(remote, "_answer_bytes", 4 * 2 * local.info.hidden_size * 8)
    prompts = [local.encode(f"They look {'very ' * n}mad", bare=True) for n in range(9)]
    sites, seen = [Site(0), Site(3)], []
    for got, want in zip(remote.capture(prompts, sites), local.capture(prompts, sites), strict=True):
        assert all(np.array_equal(got[s], want[s]) for s in sites)
    pooled = remote.pool(prompts, sites, "mean_all", seen.append)
    for site, rows in local.pool(prompts, sites, "mean_all").items():
        np.testing.assert_allclose(pooled[site], rows, atol=1e-6)
    assert seen[-1] == 9 and len(seen) > 2


def test_what_cannot_travel_is_refused_in_words(remote, local):
    prompt, objective = local.encode("I feel", bare=True), Separation(0)
    for call in (
        lambda: remote.weight(Site(0, "o")),
        lambda: remote.gradient([prompt], SITE, np.ones(32), objective, [1.0]),  # type: ignore[arg-type]
    ):
        with pytest.raises(Unsupported, match="transformers"):
            call()
    with pytest.raises(Unsupported, match="thinking"):
        remote.encode([{"role": "user", "content": "I feel"}], thinking=True)
    with pytest.raises(InputError, match="vocabulary"):
        remote.generate(Request([10**6]))


# --- what the operator allows


def test_without_inline_vectors_only_what_the_server_holds_steers(local, tmp_path):
    rows = [Direction(n, Site(1), u) for n, u in local.planted.items()]
    vectors = ConceptVectors.from_directions(rows)
    vectors.save(tmp_path / "planted.safetensors")
    settings = Settings(readout=(tmp_path / "planted.safetensors",))
    with Served(local, settings) as server, trimtab.load_engine(server.url, "remote") as engine:
        prompt = local.encode("I feel", bare=True)
        engine.library["planted"] = local.library["planted"] = vectors
        known = SteeringPlan.add("joy", amount=-6.0)
        try:
            (want,) = local.generate(Request(prompt, known, LONG))
        finally:
            del local.library["planted"]
        assert engine.generate(Request(prompt, known, LONG))[0].tokens == want.tokens
        for call in (
            lambda: engine.generate(Request(prompt, plan(local), LONG)),
            lambda: engine.capture([prompt], [SITE], plan=plan(local)),
            lambda: engine.score(ScoreRequest(prompt, None, plan(local))),
        ):
            with pytest.raises(InputError, match="TRIMTAB_ALLOW_INLINE"):
                call()


def test_the_operators_limits_hold(local):
    settings = Settings(inline=True, max_capture_bytes=10_000, max_plan_bytes=400)
    with Served(local, settings) as server, trimtab.load_engine(server.url, "remote") as engine:
        prompt = local.encode("I feel", bare=True)
        with pytest.raises(InputError, match="10000"):
            engine.score(ScoreRequest(local.encode("so " * 200, bare=True), None, None, "all"))
        with pytest.raises(InputError, match="10000"):
            engine.generate(Request(prompt, None, Sampling(max_tokens=100), CaptureSpec((SITE,))))
        with pytest.raises(InputError, match="400"):
            engine.generate(Request(prompt, plan(local), LONG))


def test_the_key_is_the_servers(local, monkeypatch):
    with Served(local, Settings(inline=True), key="secret") as server:
        monkeypatch.delenv("TRIMTAB_API_KEY", raising=False)
        with pytest.raises(InputError, match="TRIMTAB_API_KEY"):
            trimtab.load_engine(server.url, "remote")
        trimtab.load_engine(server.url, "remote", api_key="secret").close()
        monkeypatch.setenv("TRIMTAB_API_KEY", "secret")
        trimtab.load_engine(server.url + "/v1/", "remote").close()


# --- what is asked again


@pytest.mark.parametrize("path", ["/v1/engine/generate", "/v1/engine/score", "/v1/engine/encode"])
def test_a_full_server_is_asked_again_after_the_time_it_names(local, path):
    async def twice(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await (busy(send, b"3") if calls <= 2 else app(scope, receive, send))

    server, between = meddled(local, path, twice)
    slept: list[float] = []
    with server, impatient(server.url, slept) as engine:
        (got,) = engine.generate(Request("I feel", plan(local), LONG))
        (score,) = engine.score(ScoreRequest("I feel", " so", plan(local)))
        (want,) = local.generate(Request(local.encode("I feel", bare=True), plan(local), LONG))
    assert got.tokens == want.tokens and len(score.tokens) == 1
    assert slept[:2] == [3.0, 3.0] and between.calls >= 3


def test_a_server_that_stays_full_is_an_error(local):
    async def never(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await busy(send)

    server, between = meddled(local, "/v1/engine/score", never)
    slept: list[float] = []
    with server, impatient(server.url, slept, retries=3) as engine, pytest.raises(TrimtabError, match="full"):
        engine.score(ScoreRequest("I feel"))
    assert between.calls == 4 and len(slept) == 3 and slept == sorted(slept)


def test_a_broken_call_is_repeated_only_where_that_is_safe(local):
    async def hang_up(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        if calls > 1:
            await app(scope, receive, send)
            return
        kind = (STREAM if scope["path"].endswith("generate") else MEDIA).encode()
        headers = [(b"content-length", b"99"), (b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("the server dies")

    server, between = meddled(local, "/v1/engine/score", hang_up)
    with server, impatient(server.url) as engine:
        assert len(engine.score(ScoreRequest("I feel so"))[0].tokens) > 0
    assert between.calls == 2
    server, between = meddled(local, "/v1/engine/generate", hang_up)
    with server, impatient(server.url) as engine, pytest.raises(TrimtabError, match="broke off"):
        engine.generate(Request("I feel", None, LONG))
    assert between.calls == 1


def test_no_server_is_an_error_that_says_so():
    slept: list[float] = []
    with pytest.raises(TrimtabError, match=r"no answer from http://127.0.0.1:9 \(3 tries\)"):
        impatient("http://127.0.0.1:9", slept, retries=2)
    assert len(slept) == 2


# --- what is never taken for a steered answer


def test_a_stream_that_breaks_off_is_an_error_at_once(local):
    """The server dies after some tokens: what came is let out, the end is an error and no sample."""

    async def dies(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        sent = 0

        async def some(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent > 6:
                raise RuntimeError("the server dies")
            await send(message)

        await app(scope, receive, some)

    server, between = meddled(local, "/v1/engine/generate", dies)
    with server, impatient(server.url) as engine:
        seen = []
        with pytest.raises(TrimtabError, match="broke off"):
            for event in engine.stream(Request("I feel", plan(local), LONG)):
                seen.append(event)
        assert seen and all(e.sample is None for e in seen)
        with pytest.raises(TrimtabError, match="broke off"):
            engine.generate([Request("I feel", plan(local), LONG)] * 40)
    assert between.calls < 8


def test_a_server_that_is_killed_takes_its_answer_with_it(local):
    """The real server in a process of its own, killed in the middle of an answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from trimtab.cli import main; sys.exit(main())"
    flags = ["serve", "tiny", "--engine", "reference", "--allow-inline", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-c", code, *flags], stderr=subprocess.DEVNULL)
    try:
        with trimtab.load_engine(f"http://127.0.0.1:{port}", "remote", retries=12) as engine:
            long = Sampling(max_tokens=480, ignore_eos=True)
            seen = []
            with pytest.raises(TrimtabError, match="broke off"):
                for event in engine.stream([Request("I feel", plan(local), long)] * 16):
                    seen.append(event)
                    if len(seen) == 5:
                        process.kill()
            assert all(e.sample is None for e in seen)
    finally:
        process.kill()
        process.wait()


def test_the_verbs_take_an_address_as_their_model(server, capsys):
    from trimtab.cli import main

    flags = [
        "generate",
        server.url,
        "--engine",
        "remote",
        "--prompt",
        "I feel",
        "--max-tokens",
        "4",
        "--json",
    ]
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == 3
    assert main(["verify", server.url, "--engine", "remote", "--only", "receipts,unknown_refused"]) == 0
    assert main([*flags, "--dtype", "float32"]) == 2


def without(key: str) -> Callable[..., Any]:
    def change(pairs: Any) -> Any:
        for head, _ in pairs:
            head.pop(key, None)
            (head.get("sample") or {}).pop(key, None)
        return pairs

    return change


def plain_instead(pairs: Any) -> Any:
    """An answer that says that it was not steered."""
    pairs[0][0]["applied"] = ["plain"]
    return pairs


def other_receipt(pairs: Any) -> Any:
    for head, _ in pairs:
        if head.get("sample"):
            head["sample"]["applied"] |= {"tokens_steered": 0}
    return pairs


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (without("applied"), SteeringLost, "lacks its receipt"),
        (lambda pairs: pairs[:1] + without("applied")(pairs[1:]), SteeringLost, "lacks its receipt"),
        (plain_instead, SteeringLost, "plain"),
        (other_receipt, SteeringLost, "tokens_steered"),
        (without("model"), TrimtabError, "another model"),
        (lambda pairs: [p for p in pairs if not p[0].get("sample")], SteeringLost, "lacks samples"),
        (lambda pairs: pairs[:-1], TrimtabError, "broke off"),
    ],
)
def test_an_answer_without_its_receipt_is_withheld(local, change, error, words):
    server, _ = meddled(local, "/v1/engine/generate", rewriting(change))
    with server, impatient(server.url) as engine, pytest.raises(error, match=words):
        engine.generate(Request("I feel", plan(local), LONG))


@pytest.mark.parametrize("path", ["/v1/engine/capture", "/v1/engine/score"])
@pytest.mark.parametrize("told", [None, ["plain"]])
def test_captures_and_scores_need_their_receipt_too(local, path, told):
    async def strip(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        async def changed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [h for h in message["headers"] if h[0] != b"content-length"]
            else:
                head, tensors = unpack(message["body"])
                message["body"] = pack({**head, "applied": told}, tensors)
            await send(message)

        await app(scope, receive, changed)

    server, _ = meddled(local, path, strip)
    with server, impatient(server.url) as engine, pytest.raises(SteeringLost):
        engine.capture("I feel", [SITE], plan=plan(local))
        engine.score(ScoreRequest("I feel", None, plan(local)))


def test_another_model_behind_the_address_is_noticed(local):
    with Served(local) as server, impatient(server.url) as engine:
        other = trimtab.load_engine("tiny", "reference", n_layers=3)
        from trimtab.server.app import build

        server.server.config.loaded_app = build(other, Settings(inline=True))
        engine.line._client.close()
        engine.line = engine._streams.line = Connection(server.url)
        with pytest.raises(TrimtabError, match="another model"):
            engine.capture([local.encode("I feel", bare=True)], [SITE])


def test_a_changed_plan_is_refused_by_the_server(remote, local, monkeypatch):
    """What was altered on the way does not match its fingerprint, or its vector's name."""
    from trimtab.engines.remote import streams

    real = streams.plan_form
    prompt = local.encode("I feel", bare=True)

    def stronger(p: Any, tensors: Any) -> Any:
        form = real(p, tensors)
        form["placements"][0]["shift"] = 99.0
        return form

    def turned(p: Any, tensors: Any) -> Any:
        form = real(p, tensors)
        tensors.update({k: -v for k, v in tensors.items()})
        return form

    for change, words in ((stronger, "fingerprint"), (turned, "content")):
        monkeypatch.setattr(streams, "plan_form", change)
        with pytest.raises(InputError, match=words):
            remote.generate(Request(prompt, plan(local), LONG))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ranges": [[0.5, 2]]}, "positions"),
        ({"ranges": [[-1, None]]}, "positions"),
        ({"ranges": [[3, 2]]}, "positions"),
        ({"relative": 1}, "true or false"),
        ({"shift": float("nan")}, "finite"),
        ({"shift": "much"}, "malformed|resolved plan"),
        ({"site": "layer_9"}, "layer 9"),
        ({"vector": "0" * 32}, "carry"),
        ({"gate": {"vector": "0" * 32}}, "malformed|resolved plan"),
    ],
)
def test_a_placement_that_no_plan_resolves_to_is_refused(remote, local, monkeypatch, change, words):
    """Also where its fingerprint is its own: what runs together must not fail together."""
    from trimtab.engines.remote import streams

    real = streams.plan_form

    def altered(p: Any, tensors: Any) -> Any:
        placements = [{**q, **change} for q in real(p, tensors)["placements"]]
        try:
            from trimtab.engines.remote.forms import vectors_of
            from trimtab.resolved import ResolvedPlan

            found = ResolvedPlan.from_json({"placements": placements}, vectors_of(tensors)).fingerprint
        except (TrimtabError, TypeError, ValueError):
            found = p.fingerprint
        return {"fingerprint": found, "placements": placements}

    monkeypatch.setattr(streams, "plan_form", altered)
    with pytest.raises(InputError, match=words):
        remote.generate(Request(local.encode("I feel", bare=True), plan(local), LONG))


# --- what is left behind


def test_a_stream_that_is_left_frees_the_server(server, remote, local):
    batcher = server.app.state.trimtab.batcher
    stream = remote.stream([Request("I feel", plan(local), Sampling(max_tokens=400, ignore_eos=True))] * 20)
    next(stream)
    stream.close()
    done = threading.Event()
    for _ in range(400):
        if not batcher.running and not batcher.waiting:
            break
        done.wait(0.02)
    assert not batcher.running and not batcher.waiting
    assert remote.generate(Request("I feel", None, Sampling(max_tokens=2)))[0].tokens


def test_addresses_and_strangers_are_told_apart(local, monkeypatch):
    for bad in ("tiny", "ftp://host", "http://", "http://me:word@host", "http://host?x=1"):
        with pytest.raises(InputError, match="http|TRIMTAB_API_KEY"):
            trimtab.load_engine(bad, "remote")

    async def openai_only(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"nothing here"})

    with Served.of(openai_only) as stranger, pytest.raises(Unsupported, match="trimtab serve"):
        trimtab.load_engine(stranger.url, "remote")
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependency, match=r"trimtab\[serve\]"):
        trimtab.load_engine("http://127.0.0.1:9", "remote")


@pytest.mark.parametrize("route", ["generate", "capture", "score"])
def test_no_body_breaks_a_binary_route(server, route):
    import httpx

    spoilt: list[bytes] = [b"", b"{}", b"\xff" * 64]
    heads: list[Any] = [{}, {"requests": []}, {"items": [{}]}, {"requests": [{}]}, {"items": 3}]
    item = {"tokens": [1, 2], "plan": {"fingerprint": "plain", "placements": []}, "positions": [5], "first": 9,
            "logprobs": "all", "sampling": {"n": 1e9}}  # fmt: skip
    heads += [{"items": [item], "requests": [item], "sites": ["layer_0"], "at": "after", "mean": False}]
    for key, value in (("tokens", [-1]), ("tokens", "x"), ("plan", None), ("positions", [True]), ("sampling", {"x": 1}),
                       ("sampling", {"stop": [1]}), ("sampling", {"seed": 0.5}), ("sampling", {"temperature": None}),
                       ("capture", {}), ("readout", {"sites": ["layer_0"]})):  # fmt: skip
        heads.append(
            {"items": [{**item, key: value}], "requests": [{**item, key: value}], "sites": ["layer_0"]}
        )
    for body in spoilt + [pack(h) for h in heads]:
        answer = httpx.post(f"{server.url}/v1/engine/{route}", content=body, trust_env=False)
        assert answer.status_code == 400, (body, answer.text)
        assert len(answer.json()["error"]["message"]) > 10


def test_an_unknown_name_is_named_before_anything_is_sent(remote):
    with pytest.raises(UnknownName):
        remote.generate(Request("I feel", SteeringPlan.add("nobody", amount=1.0)))
    assert asyncio.run(remote.agenerate(Request("I feel", None, Sampling(max_tokens=2))))[0].tokens
