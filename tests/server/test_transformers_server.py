"""The same door on Transformers: the official client streams a steered answer with readings from the embedded model."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load

import trimtab
from server.malformed import requests
from server.stock import LAYERS, vectors
from trimtab.server.settings import Settings
from trimtab.sites import Site

openai = pytest.importorskip("openai", reason="the official client, to see that it needs no change")
pytest.importorskip("torch", reason="the transformers engine needs torch: pip install 'trimtab[hf]'")
testclient = pytest.importorskip(
    "fastapi.testclient", reason="the server needs fastapi: pip install 'trimtab[serve]'"
)
pytestmark = pytest.mark.engine

PLAN = {"placements": [{"op": "add", "vector": "happy", "dose": 1.0, "layers": [2]}]}
MESSAGES = [{"role": "user", "content": "How was your day?"}]
ASKED = {"model": "embedded", "messages": MESSAGES, "max_tokens": 10, "temperature": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    from trimtab.server.app import build

    file = tmp_path_factory.mktemp("vectors") / "feelings.safetensors"
    vectors().save(file)
    engine = trimtab.load_engine("embedded", "transformers", dtype="float32")
    with testclient.TestClient(build(engine, Settings(readout=(file,)))) as found:
        yield found
    engine.close()


def test_the_official_client_streams_a_steered_answer_with_readings(client):
    official = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client)
    more = {"steering": PLAN, "readout": {"layers": "all"}, "capture": {"layers": "all"}}
    chunks = [c.model_dump() for c in official.chat.completions.create(**ASKED, stream=True, extra_body=more)]
    parts = [c["choices"][0] for c in chunks]
    values = np.array([v for p in parts for v in p.get("readout", {}).get("values", [])])
    first = next(p["readout"] for p in parts if "readout" in p)
    states = load(client.get(next(p["capture"]["url"] for p in parts if p.get("capture"))).content)
    for n in range(LAYERS):
        rows = np.stack([vectors().direction(c, Site(n)).unit for c in first["concepts"]])
        want = states[f"layer_{n}.states"][first["position"] :] @ rows.T
        assert np.abs(values[:, n] - want).max() <= 1e-4 * np.abs(want).max()
    assert chunks[-1]["steering_applied"]["dose"] == {"happy": 1.0}
    steered = "".join(p["delta"]["content"] or "" for p in parts)
    whole = official.chat.completions.create(**ASKED, extra_body={"steering": PLAN})
    plain = official.chat.completions.create(**ASKED)
    assert steered == whole.choices[0].message.content != plain.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="nobody"):
        official.chat.completions.create(**ASKED, extra_body={"readout": {"vectors": "nobody"}})


def test_staggered_clients_get_what_they_get_alone(client):
    """Plans, seeds, samples, readings and captures of clients that join one another while they run."""
    plans = [None, PLAN, {"placements": [{**PLAN["placements"][0], "dose": -0.5}]}]
    bodies = [
        {**ASKED, "max_tokens": 8 + 3 * i, "temperature": 0.8 * (i % 2), "seed": i, "n": 1 + i % 3, "logprobs": True,
         "readout": {"layers": [2, 4]}, "steering": plans[i % 3]}
        for i in range(8)
    ]  # fmt: skip

    def ask(i: int) -> list:
        time.sleep(0.03 * i)
        answer = client.post(
            "/v1/chat/completions", json={k: v for k, v in bodies[i].items() if v is not None}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"]

    assert client.get("/health").json() == {"status": "ok", "batching": "continuous"}
    alone = [ask(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    for got, want in zip(together, alone, strict=True):
        assert [c["message"] for c in got] == [c["message"] for c in want]
        for a, b in zip(got, want, strict=True):
            assert np.allclose(a["readout"]["values"], b["readout"]["values"], atol=1e-3)
            logprobs = [[t["logprob"] for t in c["logprobs"]["content"]] for c in (a, b)]
            assert np.allclose(*logprobs, atol=1e-4)


def test_every_malformed_request_is_refused_in_words(client):
    """That the words name the fault is shown without a server (`test_counter`)."""
    faults = requests()
    assert len(faults) >= 500
    for i, (word, fields) in enumerate(faults):
        route, body = ("chat/completions", ASKED) if i % 2 else ("completions", {"prompt": "In the morning"})
        content = json.dumps({**body, **fields, "stream": i % 3 == 0})  # NaN included, as Python writes it
        answer = client.post(f"/v1/{route}", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (word, fields, answer.text[:300])
        error = answer.json()["error"]
        assert error["type"] == "BadRequestError" and error["code"] == 400 and error["message"], (word, error)
