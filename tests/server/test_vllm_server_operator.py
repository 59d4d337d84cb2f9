"""A real vLLM server with what an operator sets: rules that bind everybody, a key, limits, few blocks; and its end."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import trimtab
from engines.checkpoints import save_adapter
from server.asking import ALL, FLAGS, ask, check_readings, fetch, text
from server.stock import LAYERS, Server, vectors
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.errors import InputError, Unsupported
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import Site

psutil = pytest.importorskip("psutil", reason="comes with vllm; finds the server's processes")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.engine, pytest.mark.slow]
KEY = "a key that nobody guesses"
LATER = {"op": "add", "vector": "calm", "dose": 1.5, "layers": [3]}
#: Ten usable blocks of 32 tokens: replies of LENGTH tokens need eight each, so no two of them fit side by side.
LENGTH = 230
CROWDED = [*FLAGS, "--num-gpu-blocks-override", "11"]


@pytest.fixture(scope="module")
def threshold(truth):
    """A z of "sad" at layer 2 that one state in ten passes."""
    prompt = truth.encode(
        "In the morning the girl went out with the old dog. They saw a river and a tree.", bare=True
    )
    (found,) = truth.capture([prompt], [2])
    z = (found[2] @ vectors().direction("sad", Site(2)).unit - 0.25) / 2
    return float(np.quantile(z, 0.9))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, threshold):
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    folder = tmp_path_factory.mktemp("guarded")
    vectors().save(folder / "feelings.safetensors")
    (folder / "calmer.json").write_text(json.dumps({"placements": [LATER]}))
    (folder / "rules.txt").write_text(f"# house rules\nsad@2 z > {threshold} -> log, steer calmer\n")
    (folder / "tmp").mkdir()
    environment = {
        "TRIMTAB_READOUT_VECTORS": str(folder / "feelings.safetensors"),
        "TRIMTAB_RULES": str(folder / "rules.txt"),
        "TRIMTAB_ALLOW_INLINE": "1",
        "TRIMTAB_MAX_BODY_BYTES": str(1 << 20),
        "VLLM_API_KEY": KEY,
        "TMPDIR": str(folder / "tmp"),
    }
    with Server(folder, environment, CROWDED) as found:
        yield found


@pytest.fixture(scope="module")
def client(guarded):
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=guarded.url, timeout=600, headers=headers) as found:
        yield found


def test_every_route_of_ours_wants_the_key(guarded):
    routes = (
        "/v1/engine",
        "/v1/readings",
        "/v1/vectors",
        "/v1/steering",
        "/v1/readout/manifest",
        "/v1/captures/x",
    )
    posts = ("encode", "decode", "generate", "capture", "score")
    with httpx.Client(base_url=guarded.url, timeout=120) as nobody:
        for route in routes:
            assert nobody.get(route).status_code == 401, route
        for route in (*(f"/v1/engine/{p}" for p in posts), "/v1/completions", "/v1/vectors/load"):
            assert nobody.post(route, json={}).status_code == 401, route
        assert nobody.get("/health").status_code == 200


def test_long_bodies_are_refused(client):
    long = b"x" * ((1 << 20) + 1)
    for route in ("/v1/completions", "/v1/engine/encode", "/v1/responses"):
        answer = client.post(route, content=long)
        assert answer.status_code == 413 and "1048576" in answer.json()["error"]["message"], route
    # Arrays have a limit of their own, which clients are told.
    assert client.post("/v1/engine/score", content=long).status_code == 400
    over = client.post("/v1/engine/score", content=b"x" * (client.get("/v1/engine").json()["body_bytes"] + 1))
    assert over.status_code == 413


def test_the_operators_rules_hold_for_whoever_asks_for_nothing(client):
    answer = ask(client, text(max_tokens=60, ignore_eos=True))
    (fired,) = answer["rules"]
    assert fired["then"][0] == "log" and answer["steering_applied"]["layers"] == [3]
    body = {"model": "embedded", "input": "hi", "max_output_tokens": 3}
    refused = client.post("/v1/responses", json=body)
    assert refused.status_code == 400 and "judges rules" in refused.text
    same = {"name": fired["rule"], "when": {"concept": "sad", "above": 1.0}, "then": "log"}
    twice = client.post("/v1/completions", json=text(rules=[same]))
    assert twice.status_code == 400 and "another name" in twice.json()["error"]["message"]
    assert client.post("/v1/completions", json=text(readout={"at": "before"})).status_code == 400


def preemptions(client: httpx.Client) -> int:
    lines = [
        x for x in client.get("/metrics").text.splitlines() if x.startswith("vllm:num_preemptions_total")
    ]
    return int(sum(float(x.split()[-1]) for x in lines))


def crowding(client: httpx.Client, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to requests that came so close together that some were preempted. On a busy machine requests may
    come one after the other, so they are asked again until it happened."""
    before = preemptions(client)
    for _ in range(10):
        with ThreadPoolExecutor(len(asked)) as pool:
            crowd = list(pool.map(lambda a: ask(client, a), asked))
        if preemptions(client) > before:
            return crowd
        for answer in crowd:
            fetch(client, answer["choices"][0]["capture"])
    raise AssertionError("nothing was preempted, so this test shows nothing")


def test_plans_are_switched_on_exactly_where_requests_are_preempted(client, truth):
    """Each state of each reply is what another engine makes of the same tokens under the plan after the token that
    fired; and each is the reply that it would have been alone."""
    words = ["dog", "tree", "girl", "river", "house", "bird", "boat", "moon"]
    asked = [
        text(
            prompt=f"The {w} in the morning", max_tokens=LENGTH, ignore_eos=True, return_token_ids=True,
            capture={"layers": "all", "positions": "all" if i % 2 else "generated"}, readout=ALL,
        )
        for i, w in enumerate(words)
    ]  # fmt: skip
    alone = [ask(client, a) for a in asked]
    for a in alone:
        fetch(client, a["choices"][0]["capture"])
    crowd = crowding(client, asked)
    assert sum(bool(a["rules"]) for a in crowd) >= 6
    for one, other in zip(alone, crowd, strict=True):
        choice = other["choices"][0]
        assert choice["token_ids"] == one["choices"][0]["token_ids"]
        assert [f["position"] for f in other["rules"]] == [f["position"] for f in one["rules"]]
        states, readout = fetch(client, choice["capture"]), choice["readout"]
        assert len(readout["values"]) == LENGTH
        if states["positions"][0] > 0:  # the first token was emitted by the prompt's last state
            readout = {**readout, "values": readout["values"][1:], "position": readout["position"] + 1}
        check_readings(readout, states)
        tokens = choice["prompt_token_ids"] + choice["token_ids"][:-1]
        placements = [{**LATER, "positions": {"after": f["position"]}} for f in other["rules"]]
        plan = truth.resolve(
            SteeringPlan.from_json({"placements": placements}), Prompt(tuple(choice["prompt_token_ids"]))
        )
        assert other["steering_applied"]["fingerprint"] == plan.fingerprint
        (want,) = truth.capture([Prompt(tuple(tokens))], range(LAYERS), plan=plan)
        for layer in range(LAYERS):
            got = states[f"layer_{layer}.states"]
            expected = want[layer][states["positions"]]
            assert np.abs(got - expected).max() <= 2e-4 * np.abs(want[layer]).max(), layer


def test_the_remote_engine_reads_and_scores_and_does_not_pass_the_rules_by(guarded, truth):
    with pytest.raises(InputError, match="key"):
        trimtab.load_engine(guarded.url, "remote")
    engine: Any = trimtab.load_engine(guarded.url, "remote", api_key=KEY)
    with engine:
        prompt = engine.encode("In the morning the dog ran", bare=True)
        plan = truth.resolve(SteeringPlan.from_json({"placements": [LATER]}), prompt)
        (got,), (want,) = (e.capture([prompt], [2, 4], plan=plan) for e in (engine, truth))
        for layer in (2, 4):
            assert np.abs(got[layer] - want[layer]).max() <= 2e-4 * np.abs(want[layer]).max()
        (ours,), (theirs,) = (e.score([ScoreRequest(prompt, " to", plan, "all")]) for e in (engine, truth))
        assert np.abs(ours.distribution - theirs.distribution).max() < 1e-3
        with pytest.raises(Unsupported, match="rules"):
            engine.generate(Request(prompt, plan, Sampling(max_tokens=3)))


def leftovers(folder: Path) -> list[str]:
    """What our part of the server keeps on the disk."""
    return sorted(p.name for p in folder.glob("trimtab*"))


def following(server: Server, body: dict[str, Any], found: list[str], begun: threading.Event) -> None:
    """A client that reads a stream to its end, or until it breaks."""
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        url = server.url + "/v1/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=300) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    found.append(line[6:])
                    begun.set()
    except httpx.HTTPError as error:
        found.append(f"broken: {error!r}")


def is_told(found: list[str]) -> bool:
    """Whether a client could take what it got for a whole answer."""
    if found[-1].startswith("broken"):
        return True
    return any(x.startswith("{") and "error" in json.loads(x) for x in found)


#: So long that it is not over, on a busy machine, before whoever reads it has come to its first token and has killed.
LONG = text(max_tokens=240, ignore_eos=True, stream=True, n=16, temperature=1, capture=ALL, readout=ALL)


def end(server: Server, kill: Any) -> list[str]:
    """Kill something while a stream with a capture runs; what its client got."""
    found: list[str] = []
    begun = threading.Event()
    client = threading.Thread(target=following, args=(server, LONG, found, begun))
    client.start()
    assert begun.wait(240), found
    kill()
    client.join(240)
    assert not client.is_alive(), "the client still waits"
    return found


def gone(processes: list[Any], seconds: float = 240) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_a_killed_worker_is_an_error_for_its_clients_and_leaves_nothing(guarded, client):
    """The last test with this server."""
    assert leftovers(guarded.log.parent / "tmp") == []  # nothing that a kill could leave
    whole = psutil.Process(guarded.process.pid)
    workers = [
        p for p in whole.children(recursive=True) if "EngineCore" in " ".join([p.name(), *p.cmdline()])
    ]
    assert workers
    found = end(guarded, lambda: [p.kill() for p in workers])
    assert is_told(found), found[-3:]
    for _ in range(600):
        try:
            answer = client.post("/v1/completions", json=text())
            assert answer.status_code >= 500 and "choices" not in answer.text
        except httpx.HTTPError:
            break  # vLLM ends its server when the engine is dead
        time.sleep(0.2)
    assert gone([whole]) and leftovers(guarded.log.parent / "tmp") == []


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, truth):
    """A server with an adapter, and what that adds to each weight. And room for another: on a CPU, vLLM gives requests
    without an adapter the last one's when they share a batch."""
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    folder = tmp_path_factory.mktemp("adapted")
    vectors().save(folder / "feelings.safetensors")
    added = save_adapter(folder / "loud", truth.model, size=0.08)
    with tempfile.TemporaryDirectory() as short:  # the name of a socket of vLLM must be short
        environment = {
            "TRIMTAB_READOUT_VECTORS": str(folder / "feelings.safetensors"),
            "VLLM_API_KEY": KEY,
            "TMPDIR": short,
        }
        flags = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--lora-modules"]
        with Server(folder, environment, [*FLAGS, *flags, f"loud={folder / 'loud'}"]) as server:
            yield server, added, Path(short)


@contextlib.contextmanager
def changed(model: Any, added: dict[str, Any]) -> Iterator[None]:
    """The model with something added to its weights."""
    weights = dict(model.named_parameters())
    before = {name: weights[name].detach().clone() for name in added}
    with torch.no_grad():
        try:
            for name, more in added.items():
                weights[name] += more
            yield
        finally:
            for name, kept in before.items():
                weights[name].copy_(kept)


def test_an_adapter_is_steered_and_read_as_its_base_model_is(adapted, truth):
    """With and without each of them; the second time from the prefix cache."""
    server, added, _ = adapted
    plan = {"placements": [{"op": "add", "vector": "happy", "dose": 1.0, "layers": [2]}]}
    prompt = "In the morning the girl went out with the old dog. They saw a river and a tree, and a house."
    found = []
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, timeout=120, headers=headers) as client:
        for turn in range(2):
            for model in ("embedded", "loud"):
                for asked in ({}, {"steering": plan}):
                    capture = {"layers": "all", "positions": "generated" if turn else "all"}
                    more = {"capture": capture, "return_token_ids": True, "ignore_eos": True, **asked}
                    answer = ask(client, text(model=model, prompt=prompt, **more))
                    choice = answer["choices"][0]
                    states = fetch(client, choice["capture"])
                    at, tokens = states["positions"], choice["prompt_token_ids"] + choice["token_ids"][:-1]
                    resolved = SteeringPlan.from_json(plan) if asked else None
                    with changed(truth.model, added if model == "loud" else {}):
                        (want,) = truth.capture([Prompt(tuple(tokens))], range(LAYERS), plan=resolved)
                    for layer in range(LAYERS):
                        gap = np.abs(states[f"layer_{layer}.states"] - want[layer][at]).max()
                        assert gap <= 2e-4 * np.abs(want[layer]).max(), (turn, model, asked, layer)
                    found.append(want[LAYERS - 1][len(choice["prompt_token_ids"]) - 1])
    assert min(np.abs(a - b).max() for i, a in enumerate(found[:4]) for b in found[:i]) > 1


def test_a_server_that_is_killed_while_it_captures_leaves_nothing(adapted):
    """The last test with this server."""
    server, _, short = adapted
    processes = psutil.Process(server.process.pid).children(recursive=True)
    assert processes and leftovers(short) == []
    found = end(server, server.process.kill)
    assert is_told(found), found[-3:]
    assert gone(processes) and leftovers(short) == []
