"""The OpenAPI document against the server that it describes: schemathesis writes thousands of requests from it, good
and bad ones, and every answer must be one that the document announces."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import trimtab
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.remote.packing import MEDIA, pack
from trimtab.resolved import ResolvedPlan
from trimtab.server.settings import Settings
from trimtab.sites import Site

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'trimtab[serve]'")
schemathesis = pytest.importorskip(
    "schemathesis", reason="requests from the OpenAPI document: pip install 'schemathesis>=4.32'"
)
checks = pytest.importorskip("schemathesis.checks")

pytestmark = pytest.mark.slow
CHECKS = (
    checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance, checks.negative_data_rejection,
    checks.ignored_auth, checks.unsupported_method,
)  # fmt: skip
#: What was asked, by route and by the status of the answer.
SEEN: collections.Counter[tuple[str, int]] = collections.Counter()
KEY = {"Authorization": "Bearer secret"}
#: An answer that is generated takes longer than any other.
OFTEN, SELDOM = 110, 60


@contextlib.asynccontextmanager
async def _all_along(app: Any) -> AsyncIterator[None]:
    """Schemathesis starts and ends an app for every test, and ours does not begin again."""
    yield


def served() -> Any:
    """A server with a key and vectors, whose engine is quick."""
    from trimtab.server.app import build

    engine = trimtab.load_engine("tiny", "reference", context_length=200)
    app = build(engine, Settings(inline=True), key="secret")
    app.router.lifespan_context = _all_along
    rows = [
        Direction(n, Site(layer), u, typical_norm=3.0, mean=0.5, std=2.0)
        for n, u in engine.planted.items()
        for layer in range(4)
    ]
    app.state.trimtab.counter.library["planted"] = ConceptVectors.from_directions(rows)
    app.state.trimtab.counter.library.default = "planted"
    return app


def easier(document: dict[str, Any]) -> dict[str, Any]:
    """The document with names that this server knows and with short answers, so that what is written from it gets
    far, soon."""
    forms = document["components"]["schemas"]
    for form in ("ChatBody", "CompletionBody"):
        properties = forms[form]["properties"]
        properties["model"] = {"enum": ["tiny", None]}
        properties["n"] = {"type": "integer", "minimum": 1, "maximum": 2}
        properties["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 4}
    forms["Vector"]["anyOf"][0] = {"enum": ["joy", "anger", "planted/joy"]}
    return document


def body_of(head: dict[str, Any]) -> bytes:
    """A body of the engine's routes."""
    return pack(head, {})


LEAVES = st.none() | st.booleans() | st.integers(-2, 400) | st.text(max_size=4)
JSON = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=2)
)
PLAIN = st.just({"fingerprint": ResolvedPlan().fingerprint, "placements": []})
TOKENS = st.lists(st.integers(0, 343), min_size=1, max_size=6)
ITEM = st.fixed_dictionaries(
    {"tokens": TOKENS | JSON, "plan": PLAIN | JSON},
    optional={
        "positions": st.just([0]) | JSON, "first": st.just(1) | JSON, "logprobs": st.just("all") | JSON,
        "sampling": st.just({"max_tokens": 2}) | JSON,
    },
)  # fmt: skip
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "requests": st.lists(ITEM, max_size=2) | JSON, "items": st.lists(ITEM, max_size=2) | JSON,
        "sites": st.just(["layer_1"]) | JSON, "at": st.just("after") | JSON, "mean": st.booleans() | JSON,
    },
)  # fmt: skip
schemathesis.openapi.media_type(MEDIA, HEADS.map(body_of) | st.binary(max_size=64))


@schemathesis.serializer(MEDIA)
def _as_it_is(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


app = served()
schema = schemathesis.openapi.from_dict(easier(app.openapi()))
schema.app = app
OPERATIONS = {operation.ok().label: operation.ok() for operation in schema.get_all_operations()}
#: Without a body there is nothing to be wrong: unknown parameters of an address are ignored, as everywhere.
WAYS = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in (("positive", "negative") if operation.body else ("positive",))
]


@pytest.mark.parametrize(("label", "mode"), WAYS)
def test_every_answer_is_announced(label, mode):
    @settings(
        max_examples=SELDOM if "completions" in label else OFTEN, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), derandomize=True, database=None,
    )  # fmt: skip
    @given(OPERATIONS[label].as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case):
        answer = case.call(headers=KEY)
        SEEN[label, answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS, headers=KEY)

    ask()


@pytest.mark.parametrize("label", ["POST /v1/chat/completions", "POST /v1/completions"])
def test_a_stream_is_what_the_document_says(label):
    """Whether one of those above is a stream that is generated depends on what is drawn."""
    asked = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in label else {"prompt": "hi"}
    body = {"model": "tiny", "stream": True, "max_tokens": 2, **asked}
    case = OPERATIONS[label].Case(body=body, media_type="application/json")
    answer = case.call(headers=KEY)
    assert answer.status_code == 200 and "[DONE]" in answer.text
    case.validate_response(answer, checks=CHECKS, headers=KEY)


def test_there_were_enough_of_them():
    if {label for label, _ in SEEN} != set(OPERATIONS):
        pytest.skip("only a part of the routes was asked")
    assert sum(SEEN.values()) >= 2000, SEEN
    for label in ("POST /v1/chat/completions", "POST /v1/completions"):
        assert SEEN[label, 200] >= 10, f"hardly any request got through: {SEEN}"


def test_an_answer_that_is_not_announced_is_found():
    document = easier(served().openapi())
    document["components"]["schemas"]["Model"]["properties"]["owned_by"] = {"const": "nobody"}
    wrong = schemathesis.openapi.from_dict(document)
    wrong.app = app
    case = wrong["/v1/models"]["GET"].Case()
    with pytest.raises(BaseExceptionGroup) as found:
        case.validate_response(case.call(headers=KEY), checks=CHECKS, headers=KEY)
    assert "nobody" in str(found.value.exceptions[0])
