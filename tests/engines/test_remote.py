"""The remote engine against its server: the same as here, what the operator allows, what the server refuses."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import trimtab
from engines.faulty_servers import LONG, SITE, impatient, plan
from engines.served import Served
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.base import Engine
from trimtab.engines.remote.packing import frame, frames, pack, unpack
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.errors import InputError, MissingDependency, TrimtabError, UnknownName, Unsupported
from trimtab.objectives import Separation
from trimtab.plans import SteeringPlan
from trimtab.server.settings import Settings
from trimtab.sites import Site

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:tiny has a chat template")]
for module in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")


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


def test_a_sample_goes_on_over_http_with_its_own_numbers(local, remote):
    """Cut after four tokens and gone on with: the sample of one request, here and there."""
    prompt = local.encode("I feel", bare=True)
    whole = Sampling(max_tokens=10, temperature=1.0, seed=7, n=3, ignore_eos=True)
    (done,) = local.generate(Request(prompt, None, whole))
    for j, sample in enumerate(done.samples):
        longer = replace(prompt, tokens=prompt.tokens + sample.tokens[:4])
        rest = replace(whole, n=1, max_tokens=6, resumes=(j, 4))
        for engine in (local, remote):
            (found,) = engine.generate(Request(longer, None, rest))
            assert found.tokens == sample.tokens[4:]


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


def test_the_operators_rules_are_not_passed_by(local, tmp_path):
    rows = [Direction(n, Site(1), u) for n, u in local.planted.items()]
    ConceptVectors.from_directions(rows).save(tmp_path / "planted.safetensors")
    (tmp_path / "rules.txt").write_text("joy raw > 1e9 -> abort\n")
    settings = Settings(
        inline=True, readout=(tmp_path / "planted.safetensors",), rules=tmp_path / "rules.txt"
    )
    with Served(local, settings) as server, trimtab.load_engine(server.url, "remote") as engine:
        prompt = local.encode("I feel", bare=True)
        with pytest.raises(TrimtabError, match="without --rules"):
            engine.generate(Request(prompt, plan(local), LONG))
        assert engine.capture([prompt], [SITE])


def test_the_key_is_the_servers(local, monkeypatch):
    with Served(local, Settings(inline=True), key="secret") as server:
        monkeypatch.delenv("TRIMTAB_API_KEY", raising=False)
        with pytest.raises(InputError, match="TRIMTAB_API_KEY"):
            trimtab.load_engine(server.url, "remote")
        trimtab.load_engine(server.url, "remote", api_key="secret").close()
        monkeypatch.setenv("TRIMTAB_API_KEY", "secret")
        trimtab.load_engine(server.url + "/v1/", "remote").close()


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


# --- what the server refuses


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
    until = time.monotonic() + 60
    while (batcher.running or batcher.waiting) and time.monotonic() < until:
        time.sleep(0.02)
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

    async def odd(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answers.pop()})

    answers = [b"[]", b"{}", b'{"schema": 1, "model": {"id": 3}}', b"<html>"]
    with Served.of(odd) as stranger:
        for words in ("trimtab serve", "damaged", "same version", "trimtab serve"):
            with pytest.raises(TrimtabError, match=words):
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
                       ("sampling", {"stop": [1]}), ("sampling", {"resumes": [0, "a"]}), ("sampling", {"resumes": [0]}),
                       ("sampling", {"seed": 0.5}), ("sampling", {"temperature": None}),
                       ("capture", {}), ("readout", {"sites": ["layer_0"]})):  # fmt: skip
        heads.append(
            {"items": [{**item, key: value}], "requests": [{**item, key: value}], "sites": ["layer_0"]}
        )
    for body in spoilt + [pack(h) for h in heads]:
        answer = httpx.post(f"{server.url}/v1/engine/{route}", content=body, trust_env=False, timeout=60)
        assert answer.status_code == 400, (body, answer.text)
        assert len(answer.json()["error"]["message"]) > 10


def test_an_unknown_name_is_named_before_anything_is_sent(remote):
    with pytest.raises(UnknownName):
        remote.generate(Request("I feel", SteeringPlan.add("nobody", amount=1.0)))
    assert asyncio.run(remote.agenerate(Request("I feel", None, Sampling(max_tokens=2))))[0].tokens
