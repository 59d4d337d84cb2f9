"""The fingerprint: the same effect has the same one, any other effect another; and it survives the wire."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

import worlds
from trimtab.errors import InputError
from trimtab.interventions import Ablate, Add, Cap, Coefficients, Deltas, Gate, Pin
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedGate, ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

MODEL = worlds.model(n_layers=10, width=24)
LIBRARY = {"mood": worlds.vectors()}
PROMPT = Prompt(tuple(range(8)))

SIMPLE = np.zeros(4, dtype=np.float32)
SIMPLE[1] = 1.0


def resolve(*placements, prompt=PROMPT):
    return SteeringPlan(placements).resolve(prompt, LIBRARY, MODEL)


def by_hand(**changes):
    """A small plan without any arithmetic in it, so that its fingerprint is a constant of the format."""
    fields = {
        "site": Site(2),
        "vector": "v",
        "coefficients": Coefficients(shift=1.5),
        "ranges": ((0, 3), (5, None)),
    }
    return ResolvedPlan((ResolvedPlacement(**(fields | changes)),), {"v": SIMPLE, "w": -SIMPLE})


def test_the_fingerprint_is_a_constant_of_the_format():
    """If this fails, every stored result and prefix cache changes its key: raise `resolved.SCHEMA` and say so."""
    assert by_hand().fingerprint == "a7e4179691d477a1575f58e9f8a7324a"


def test_plain():
    nothing = resolve(
        Placement(Add(amount=0.0), "joy"),
        Placement(Ablate(keep=1.0), "joy"),
        Placement(Pin(3.0), "joy", factor=0.0),
    )
    assert EMPTY.fingerprint == nothing.fingerprint == "plain"
    assert not nothing and not nothing.effective and nothing.sites == () and nothing.first_position() is None
    assert len(nothing.placements) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"site": Site(3)},
        {"site": Site(2, "mlp_out")},
        {"vector": "w"},
        {"coefficients": Coefficients(shift=1.5000001)},
        {"coefficients": Coefficients(gain=0.5)},
        {"coefficients": Coefficients(low=1.5)},
        {"coefficients": Coefficients(high=1.5)},
        {"coefficients": Coefficients(low=1.5, high=1.5)},
        {"coefficients": Coefficients(low=1.5, high=1.5, strength=0.5)},
        {"ranges": ((0, 3), (6, None))},
        {"ranges": ((0, 3), (5, 6))},
        {"ranges": ((0, None),)},
        {"relative": True},
        {"renormalise": True},
        {"gate": ResolvedGate("v", Site(2), 1.0, True)},
        {"gate": ResolvedGate("w", Site(2), 1.0, True)},
        {"gate": ResolvedGate("v", Site(1), 1.0, True)},
        {"gate": ResolvedGate("v", Site(1), 1.0, True, "after")},
        {"gate": ResolvedGate("v", Site(1), 1.0, False)},
        {"gate": ResolvedGate("v", Site(1), 2.0, True)},
    ],
)
def test_every_field_counts(changes):
    plans = [by_hand(), by_hand(**changes)]
    assert len({p.fingerprint for p in plans} | {"plain"}) == 3


def test_equal_effects_share_a_fingerprint():
    joy = LIBRARY["mood"].direction("joy", Site(5))
    same = [
        resolve(Placement(Add(dose=0.2), "joy", layers="5")),
        resolve(Placement(Add(dose=0.2), "mood/joy", layers="50%")),
        resolve(Placement(Add(dose=0.2), joy)),
        resolve(Placement(Add(dose=0.1), "joy", layers=[5], factor=2.0)),
        resolve(Placement(Add(dose=0.2), "joy", layers="5"), Placement(Add(amount=0.0), "calm")),
        resolve(Placement(Add(dose=0.2), joy, positions={"ranges": [[0, 4], [3, None]]})),
    ]
    assert len({p.fingerprint for p in same}) == 1
    assert same[0].fingerprint != resolve(Placement(Add(dose=0.2), replace(joy, unit=-joy.unit))).fingerprint


def test_role_positions_depend_on_the_prompt_and_names_do_not():
    placement = Placement(Add(amount=1.0), "joy", positions="prompt")
    longer = Prompt(tuple(range(9)))
    assert resolve(placement).fingerprint != resolve(placement, prompt=longer).fingerprint
    everywhere = replace(placement, positions="all")
    assert resolve(everywhere).fingerprint == resolve(everywhere, prompt=longer).fingerprint


def test_a_table_counts_by_content_and_start():
    def deltas(table, start=0):
        return resolve(Placement(Deltas(table, start), layers=[3])).fingerprint

    table = np.arange(48.0).reshape(2, 24)
    other = table.copy()
    other[1, 23] += 1e-3
    assert len({deltas(table), deltas(other), deltas(table, 1), deltas(table[:1])}) == 4
    assert deltas(table) == deltas(table.astype(np.float32))


def test_an_altered_vector_is_another_plan():
    altered = LIBRARY["mood"].direction("joy", Site(5)).unit.copy()
    altered[0] += 1e-4
    nudged = replace(LIBRARY["mood"].direction("joy", Site(5)), unit=altered / np.linalg.norm(altered))
    plans = [
        resolve(Placement(Add(amount=1.0), v)) for v in (nudged, LIBRARY["mood"].direction("joy", Site(5)))
    ]
    assert plans[0].fingerprint != plans[1].fingerprint


# --- JSON -----------------------------------------------------------------------------------------------------


def rich():
    return resolve(
        Placement(Add(dose=0.3), "joy", layers="all", positions="generated"),
        Placement(Cap(low=-1.0), "calm", layers="5", gate=Gate("joy", above=0.5, layer=2, at="after")),
        Placement(Pin(1.0), "calm", layers="6", factor=0.5, renormalise=True),
        Placement(Deltas(np.ones((2, 24)), 3), layers=[1], stream="mlp_out"),
    )


def test_json_round_trip():
    plan = rich()
    back = ResolvedPlan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert back.fingerprint == plan.fingerprint
    assert back.placements == plan.placements
    assert all(np.array_equal(back.vectors[k], v) for k, v in plan.vectors.items())


@pytest.mark.parametrize(
    "tamper",
    [
        lambda d: d["placements"][0].update(shift=9.0),
        lambda d: d["placements"][0].update(site="layer_3"),
        lambda d: d["placements"][0].update(ranges=[[0, None]]),
        lambda d: d["placements"].reverse(),
        lambda d: d["placements"].pop(),
        lambda d: d["placements"][3]["gate"].update(threshold=0.4),
        lambda d: d.update(fingerprint="0" * 32),
        lambda d: _corrupt(d),
    ],
)
def test_tampering_is_noticed(tamper):
    data = json.loads(json.dumps(rich().to_json()))
    tamper(data)
    with pytest.raises(InputError, match="changed|promises"):
        ResolvedPlan.from_json(data)


def _corrupt(data):
    packed = next(iter(data["vectors"].values()))
    packed["data"] = ("B" if packed["data"][0] == "A" else "A") + packed["data"][1:]


@pytest.mark.parametrize("missing", ["placements", "vectors"])
def test_what_is_not_a_resolved_plan(missing):
    data = copy.deepcopy(rich().to_json())
    del data[missing]
    with pytest.raises(InputError, match="not a resolved plan"):
        ResolvedPlan.from_json(data)


# --- checks and questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vector": "nobody"}, "does not carry"),
        ({"gate": ResolvedGate("nobody", Site(2), 0.0, True)}, "does not carry"),
        ({"table_start": 0}, "does not fit"),
        ({"ranges": ((5, 7), (0, 3))}, "sorted"),
        ({"ranges": ((0, 3), (3, 5))}, "sorted"),
        ({"gate": ResolvedGate("v", Site(3), 0.0, True)}, "later"),
        ({"gate": ResolvedGate("v", Site(2), 0.0, True, "after")}, "earlier site"),
        ({"relative": True, "coefficients": Coefficients(gain=0.0)}, "relative"),
    ],
)
def test_malformed_placements(changes, message):
    with pytest.raises(InputError, match=message):
        by_hand(**changes)


def test_which_tokens_are_steered():
    plan = by_hand()
    assert [plan.placements[0].acts_on(i) for i in range(8)] == [True] * 3 + [False] * 2 + [True] * 3
    assert plan.tokens_steered(8) == 6 and plan.tokens_steered(4) == 3 and plan.first_position() == 0
    assert by_hand(ranges=((4, None),)).first_position() == 4


def test_placements_of_a_site_keep_their_order():
    plan = resolve(
        Placement(Add(amount=1.0), "joy", layers="5"),
        Placement(Ablate(), "joy", layers="2"),
        Placement(Pin(1.0), "calm", layers="5"),
    )
    assert [p.coefficients.adds for p in plan.at(Site(5))] == [True, False]
    assert plan.sites == (Site(2), Site(5))


def test_vectors_cannot_be_written_to():
    plan = by_hand()
    with pytest.raises(ValueError, match="read-only"):
        plan.vectors["v"][0] = 1.0
