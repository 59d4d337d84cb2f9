"""Fields of a request, resolved or refused in words; no server and no model."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from server.malformed import requests
from server.stock import CONCEPTS, LAYERS, WIDTH, typical, vectors
from trimtab.errors import InputError
from trimtab.prompts import Prompt, Span
from trimtab.server import wire
from trimtab.server.counter import Counter
from trimtab.server.receipts import applied, preview
from trimtab.server.settings import Settings
from trimtab.sites import ModelInfo, Site

PROMPT = Prompt(tuple(range(10)), (Span("system", 1, 3), Span("user", 4, 8)))
INFO = ModelInfo("embedded", LAYERS, WIDTH, {Site(n): WIDTH for n in range(LAYERS)})
HAPPY = {"op": "add", "vector": "happy", "dose": 0.6, "layers": "2-3"}


def counter(**settings) -> Counter:
    found = Counter(INFO, Settings(**settings))
    found.library["feelings"] = vectors()
    return found


def order(c: Counter, **found):
    return c.order(c.parse(found), PROMPT)


def test_a_plan_in_all_its_parts():
    c = counter()
    plan = order(c, steering={"placements": [{**HAPPY, "positions": {"role": "user"}}]}).plan
    assert [p.site.layer for p in plan.placements] == [2, 3]
    assert [p.ranges for p in plan.placements] == [((4, 8),)] * 2
    # 0.6 of the typical norm, shared by two layers.
    assert [p.coefficients.shift for p in plan.placements] == pytest.approx(
        [0.3 * typical(2), 0.3 * typical(3)]
    )


def test_the_receipt_says_what_was_done():
    c = counter()
    both = {
        "placements": [{**HAPPY, "positions": "generated"}, {"op": "ablate", "vector": "sad", "layers": [5]}]
    }
    found = applied(order(c, steering=both).plan, [12, 14])
    assert found["vectors"] == ["happy", "sad"] and found["layers"] == [2, 3, 5]
    assert found["dose"] == {"happy": pytest.approx(0.6), "sad": None}
    assert found["tokens_steered"] == 12 + 14  # the second placement reaches every token
    first = applied(order(c, steering={"placements": both["placements"][:1]}).plan, [12, 14])
    assert first["tokens_steered"] == 2 + 4
    assert applied(order(c, readout=True).plan, [12]) == {
        "fingerprint": "plain", "vectors": [], "layers": [], "dose": {}, "tokens_steered": 0,
    }  # fmt: skip
    json.dumps(preview(order(c, steering=both).plan), allow_nan=False)
    gated = {"placements": [{**HAPPY, "gate": {"vector": "sad", "above": 1.0, "layer": 1}}]}
    (shown,) = preview(order(c, steering=gated).plan)["placements"][:1]
    assert shown["gate"]["threshold"] == 1.0 and shown["gate"]["align"] == "own"


def test_fields_and_xargs_are_the_same():
    plan = {"placements": [HAPPY]}
    extra, xargs = {"steering": plan, "other": 1}, {"steering": json.dumps(plan), "mine": 2}
    assert wire.take(extra, None) == wire.take(None, xargs) == {"steering": plan}
    assert (extra, xargs) == ({"other": 1}, {"mine": 2})
    assert wire.take({"steering": None, "x": 1}, None) == {}


@pytest.mark.parametrize("allowed", [False, True])
def test_inline_vectors_travel_as_float16_where_they_are_allowed(allowed):
    unit = vectors().direction("sad", Site(2)).unit
    half = base64.b64encode(unit.astype("<f2").tobytes()).decode()
    inline = {"name": "mine", "site": "layer_2", "dtype": "float16", "data": half, "norm": 3.0}
    c = counter(inline=allowed)
    asked = {"placements": [{"op": "add", "vector": inline, "scale": 2.0}]}
    if not allowed:
        with pytest.raises(InputError, match="TRIMTAB_ALLOW_INLINE"):
            order(c, steering=asked)
        return
    plan = order(c, steering=asked).plan
    (row,) = plan.vectors.values()
    assert np.abs(row - unit).max() < 1e-3 and plan.placements[0].coefficients.shift == 6.0


#: What else a refusal may say: the part of the value that is at fault.
PARTS = {
    "positions": ("token range", "role"),
    "gate": ("vector", "layer", "above"),
    "vector": ("name one",),
}


@pytest.mark.parametrize(("word", "found"), [r for r in requests() if r[0] != "trimtab"])
def test_whatever_is_wrong_is_named(word, found):
    c, extra = counter(), dict(found)
    xargs = dict(extra.pop("vllm_xargs", {}))
    field = next(iter(extra or xargs))
    with pytest.raises(InputError) as caught:
        order(c, **wire.take(extra, xargs))
    text = str(caught.value)
    assert text.startswith(field) and any(w.rstrip("s") in text for w in (word, *PARTS.get(word, ()))), text


def test_there_are_enough_of_them():
    assert len(requests()) >= 500


def test_limits_are_the_operators():
    with pytest.raises(InputError, match="2 placements"):
        order(counter(max_placements=1), steering={"placements": [HAPPY, HAPPY]})
    with pytest.raises(InputError, match="bytes"):
        order(counter(max_plan_bytes=10), steering={"placements": [HAPPY]})


def test_a_reading_is_the_rows_asked_for():
    c = counter()
    selection = order(c, readout={"layers": [3, 1], "concepts": ["calm", "happy"]}).selection
    assert selection.layers == [1, 3] and selection.readout.concepts == ("calm", "happy")
    state = np.random.default_rng(0).standard_normal(WIDTH).astype(np.float32)
    want = [[state @ vectors().direction(n, Site(layer)).unit for n in ("calm", "happy")] for layer in (1, 3)]
    got = [selection.readout.apply(s, state) for s in selection.readout.sites]
    assert np.allclose(got, want, atol=1e-5)
    z = order(c, readout={"layers": 1, "z": True}).selection.readout
    assert np.allclose(
        z.apply(Site(1), state),
        (order(c, readout={"layers": 1}).selection.readout.apply(Site(1), state) - 0.25) / 2,
    )


def test_where_a_file_is_read_by_default():
    c = counter()
    assert order(c, readout=True).selection.layers == [3]  # nearest 60 % of six
    c.library["feelings"] = replace(vectors(), calibration={"read_layer": 5, "layer": 1})
    assert order(c, readout={}).selection.layers == [5]
    assert order(c, readout=False).selection is None
    c.library["other"] = vectors(1)
    with pytest.raises(InputError, match="TRIMTAB_READOUT_VECTORS"):
        order(c, readout=True)


def test_readings_are_packed():
    rows = [np.array([[1.5, -2.0, 0.25]], np.float32), np.array([[0.1, 0.3, 0.2]], np.float32)]
    c = counter()
    plain = order(c, readout={}).selection.pack(rows)
    assert plain == {"values": [[[1.5, -2.0, 0.25]], [[0.1, 0.3, 0.2]]]}
    packed = order(c, readout={"encoding": "float16"}).selection.pack(rows)
    numbers = np.frombuffer(base64.b64decode(packed["values"]), "<f2").reshape(packed["shape"])
    assert np.abs(numbers - np.array(rows)).max() < 1e-3
    top = order(c, readout={"top_k": 2}).selection.pack(rows)
    assert top == {"values": [[[1.5, 0.25]], [[0.3, 0.2]]], "indices": [[[0, 2]], [[1, 2]]]}
    assert order(c, readout={}).selection.pack([None, rows[0]])["values"][0] is None
    lost = order(c, readout={}).selection.pack([np.array([[np.nan, 1, 2]], np.float32)])
    json.dumps(lost, allow_nan=False)


def test_captures_resolve_to_rows():
    found = order(counter(), capture={"layers": "0,50%", "positions": {"ranges": [[2, 4], [8, None]]}})
    assert found.layers == (0, 3) and found.ranges == ((2, 4), (8, None))
    assert found.rows(12) == 2 + 4 and found.rows(3) == 1


def test_the_default_plan_serves_requests_without_one():
    c = counter()
    c.set_default({"placements": [HAPPY]})
    assert order(c).plan.fingerprint == order(c, steering={"placements": [HAPPY]}).plan.fingerprint
    assert not order(c, steering={"placements": []}).plan
    with pytest.raises(InputError, match="default plan needs"):
        c.unload("feelings")
    assert "feelings" in c.library
    with pytest.raises(InputError, match="by role"):
        c.set_default({"placements": [{**HAPPY, "positions": {"role": "user"}}]})
    with pytest.raises(InputError, match="unknown vector"):
        c.set_default({"placements": [{**HAPPY, "vector": "nobody"}]})
    c.set_default(None)
    c.unload("feelings")
    assert not c.library and CONCEPTS
