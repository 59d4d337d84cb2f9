"""Whatever JSON comes in, an answer goes out that is no fault of the server's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trimtab
from server.malformed import BAD, CAPTURES, OF_KIND, READOUTS, VALID
from trimtab.directions import ConceptVectors, Direction
from trimtab.server.settings import Settings
from trimtab.sites import Site

pytestmark = pytest.mark.slow

testclient = pytest.importorskip(
    "fastapi.testclient", reason="the server needs fastapi: pip install 'trimtab[serve]'"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted(
    {k for table in (BAD, READOUTS, CAPTURES, *OF_KIND.values()) for k in table} | set(VALID["add"])
)
#: Objects with our keys and any values, or values that are known to be wrong.
TABLES = (BAD, READOUTS, CAPTURES, *OF_KIND.values())
WORSE = st.sampled_from([v for table in TABLES for values in table.values() for v in values])
OURS = st.dictionaries(st.sampled_from(KEYS), JSON | WORSE, max_size=5)
PLANS = st.fixed_dictionaries(
    {"placements": st.lists(OURS | st.sampled_from(list(VALID.values())), max_size=3)}
)
ROUTES = [
    "/v1/steering/preview",
    "/v1/vectors/load",
    "/v1/vectors/unload",
    "/v1/completions",
    "/v1/engine/encode",
    "/v1/engine/decode",
    "/v1/engine/generate",
    "/v1/engine/capture",
    "/v1/engine/score",
]
USUAL = [
    "model",
    "n",
    "seed",
    "stop",
    "stream",
    "temperature",
    "top_p",
    "logprobs",
    "stream_options",
    "vllm_xargs",
]


@pytest.fixture(scope="module")
def client():
    from trimtab.server.app import build

    engine = trimtab.load_engine("tiny", "reference")
    app = build(engine, Settings(inline=True))
    rows = [Direction(n, Site(layer), u) for n, u in engine.planted.items() for layer in range(4)]
    app.state.trimtab.counter.library["planted"] = ConceptVectors.from_directions(rows).renamed(
        dict(zip(engine.planted, ("happy", "sad", "calm"), strict=False))
    )
    with testclient.TestClient(app, raise_server_exceptions=False) as found:
        yield found


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(
    chat=st.booleans(),
    plan=st.none() | PLANS | JSON,
    readout=st.none() | OURS | JSON,
    capture=st.none() | OURS | JSON,
    more=st.dictionaries(st.sampled_from(USUAL), JSON, max_size=2),
)
def test_no_request_breaks_the_server(client, chat, plan, readout, capture, more):
    body: dict[str, Any] = {"max_tokens": 2, "steering": plan, "readout": readout, "capture": capture, **more}
    body |= {"messages": [{"role": "user", "content": "I feel"}]} if chat else {"prompt": "I feel"}
    route = "/v1/chat/completions" if chat else "/v1/completions"
    try:
        content = json.dumps(body)
        content.encode()
    except (ValueError, UnicodeEncodeError):
        return
    answer = client.post(route, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@settings(max_examples=150, deadline=None)
@given(route=st.sampled_from(ROUTES), body=JSON)
def test_no_body_breaks_a_route(client, route, body):
    answer = client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    answer = client.put(
        "/v1/steering", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 400), answer.text
