"""The same door on Transformers: the official client streams a steered answer with readings from the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

import trimtab
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
