"""What may go wrong between a remote engine and its server: nothing of it may pass for a steered answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import trimtab
from engines.faulty_servers import LONG, SITE, busy, dies, impatient, meddled, plan, rewriting
from engines.served import Served
from server.stock import Port
from trimtab.engines.remote.connection import Connection
from trimtab.engines.remote.packing import MEDIA, STREAM, pack, unpack
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.errors import SteeringLost, TrimtabError
from trimtab.server.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:tiny has a chat template")]
for module in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")


@pytest.fixture(scope="module")
def local():
    return trimtab.load_engine("tiny", "reference")


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
    port = Port()
    code = "import sys; from trimtab.cli import main; sys.exit(main())"
    flags = ["serve", "tiny", "--engine", "reference", "--allow-inline", "--port", str(port.number)]
    process = subprocess.Popen([sys.executable, "-c", code, *flags], stderr=subprocess.DEVNULL)
    try:
        with trimtab.load_engine(f"http://127.0.0.1:{port.number}", "remote", retries=12) as engine:
            # One call: of several, another might get no answer at all.
            long = Sampling(max_tokens=480, temperature=1.0, seed=0, n=16, ignore_eos=True)
            seen = []
            with pytest.raises(TrimtabError, match="broke off"):
                for event in engine.stream(Request("I feel", plan(local), long)):
                    seen.append(event)
                    if len(seen) == 5:
                        process.kill()
            assert all(e.sample is None for e in seen)
    finally:
        process.kill()
        process.wait()
        port.free()


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
