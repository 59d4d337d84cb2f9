"""What people write: plans validate at construction, travel as JSON, and resolve to exact numbers."""

import json
import math

import numpy as np
import pytest

import worlds
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import InputError, Mismatch, UnknownName, Unsupported
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.plans import Placement, SteeringPlan, find_vector
from trimtab.prompts import Prompt, Span
from trimtab.sites import ModelInfo, Site

MODEL = worlds.model(n_layers=10, width=24)
FILE = (
    worlds.vectors()
)  # joy, calm at layers 2, 5, 6; typical norms 12, 15, 16; raw norms 3, 6, 7 and 4, 7, 8
LIBRARY = {"mood": FILE}
PROMPT = Prompt(tuple(range(8)), (Span("system", 0, 2), Span("user", 3, 6)))
INLINE = Direction.from_raw("inline", Site(4), 2.5 * worlds.unit(24, 7), mean=0.5, std=2.0, typical_norm=11.0)


def resolve(plan, prompt=PROMPT, library=LIBRARY, model=MODEL):
    return plan.resolve(prompt, library, model)


def shifts(plan):
    return {p.site.layer: pytest.approx(p.coefficients.shift) for p in resolve(plan).placements}


# --- strength -------------------------------------------------------------------------------------------------


def test_a_dose_is_shared_by_the_layers():
    plan = SteeringPlan.add("joy", dose=0.6, layers="2,5,6")
    assert shifts(plan) == {2: 0.2 * 12, 5: 0.2 * 15, 6: 0.2 * 16}


def test_a_scale_is_shared_by_the_layers():
    plan = SteeringPlan.add("joy", scale=0.6, layers="all")
    assert shifts(plan) == {2: 0.2 * 3, 5: 0.2 * 6, 6: 0.2 * 7}


def test_per_layer_gives_each_layer_the_whole():
    assert shifts(SteeringPlan.add("joy", dose=0.6, layers="all", per_layer=True)) == {
        2: 0.6 * 12,
        5: 0.6 * 15,
        6: 0.6 * 16,
    }


def test_an_amount_is_what_it_says_at_each_layer():
    assert shifts(SteeringPlan.add("calm", amount=-2.0, layers="2,6")) == {2: -2.0, 6: -2.0}


def test_receipts_know_where_numbers_come_from():
    source = resolve(SteeringPlan.add("joy", dose=0.6, layers="2,5")).placements[0].source
    assert source["concept"] == "joy" and source["dose"] == 0.6 and source["layers"] == 2
    assert source["dose_here"] == pytest.approx(0.3) and source["scale_here"] == pytest.approx(0.3 * 12 / 3)


def test_scaled_halves_every_displacement():
    plan = SteeringPlan.add("joy", dose=0.6, layers="2") | SteeringPlan(
        Placement(Pin(1.0), "calm", layers="5")
    )
    add, pin = resolve(plan.scaled(0.5)).placements
    assert add.coefficients.shift == pytest.approx(0.3 * 12) and pin.coefficients.strength == 0.5
    assert resolve(plan.scaled(0.0)).effective == ()
    with pytest.raises(InputError):
        plan.scaled(1.5)


def test_bounds_are_absolute_or_in_stored_stds():
    absolute, z = resolve(
        SteeringPlan(
            (Placement(Cap(high=3.0), "joy", layers="5"), Placement(Pin(2.0, z=True), "joy", layers="5"))
        )
    ).placements
    assert absolute.coefficients.high == 3.0 and math.isinf(absolute.coefficients.low)
    assert z.coefficients.low == pytest.approx(0.5 * 5 + 2.0 * 1.5)


# --- layers and vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"), [(None, [6]), ("all", [2, 5, 6]), ("50%", [5]), ("-4", [6]), ([2, "60%"], [2, 6])]
)
def test_layers_of_a_file(layers, expected):
    plan = SteeringPlan.add("joy", amount=1.0, layers=layers)
    assert [p.site.layer for p in resolve(plan).placements] == expected


def test_the_default_layer_is_the_files_own_recommendation():
    tuned = worlds.vectors(calibration={"layer": 2})
    plan = SteeringPlan.add("joy", amount=1.0)
    assert [p.site.layer for p in resolve(plan, library={"mood": tuned}).placements] == [2]
    auto = SteeringPlan.add("joy", amount=1.0, layers="auto")
    assert [p.site.layer for p in resolve(auto, library={"mood": tuned}).placements] == [2]
    with pytest.raises(InputError, match="sweep"):
        resolve(auto)


def test_layers_that_the_file_lacks_are_named():
    with pytest.raises(InputError, match=r"no resid_post rows at layers \[3\]"):
        resolve(SteeringPlan.add("joy", amount=1.0, layers="2-3"))


def test_each_layer_gets_its_own_row():
    plan = resolve(SteeringPlan.add("calm", amount=1.0, layers="all"))
    for p in plan.placements:
        assert np.array_equal(plan.vectors[p.vector], FILE.direction("calm", p.site).unit)


def test_a_bare_direction_at_another_layer_keeps_its_row_and_no_foreign_norm():
    plan = resolve(SteeringPlan.add(INLINE, amount=1.0, layers="1,8"))
    assert [p.site.layer for p in plan.placements] == [1, 8]
    assert len(plan.vectors) == 1
    assert shifts(SteeringPlan.add(INLINE, dose=0.5)) == {4: 5.5}
    with pytest.raises(InputError, match="typical residual norm"):
        resolve(SteeringPlan.add(INLINE, dose=0.5, layers="8"))


def test_names():
    other = worlds.vectors(("joy", "fear"))
    both = {"mood": FILE, "other": other, "solo": INLINE}
    assert find_vector("calm", both).concepts == ("calm",)
    assert find_vector("other/joy", both).hash == other.only(["joy"]).hash
    assert find_vector("solo", both) is INLINE
    with pytest.raises(InputError, match="mood/joy"):
        find_vector("joy", both)
    with pytest.raises(InputError, match="name one: joy, calm"):
        find_vector("mood", both)
    with pytest.raises(UnknownName, match="Did you mean 'calm'"):
        find_vector("clam", both)
    with pytest.raises(UnknownName):
        find_vector("mood/fear", both)


def test_positions_and_roles_become_ranges():
    for positions, ranges in (
        ("all", ((0, None),)),
        ("generated", ((8, None),)),
        ({"role": "user"}, ((3, 6),)),
        ({"ranges": [[4, 6], [0, 1], [5, 7]]}, ((0, 1), (4, 7))),
    ):
        plan = resolve(SteeringPlan.add("joy", amount=1.0, positions=positions))
        assert plan.placements[0].ranges == ranges
    with pytest.raises(InputError, match="messages"):
        resolve(SteeringPlan.add("joy", amount=1.0, positions={"role": "user"}), prompt=Prompt((1, 2)))


def test_gates():
    same = Placement(Pin(0.0), "joy", layers="5", gate=Gate("calm", above=1.0, z=True))
    earlier = Placement(Pin(0.0), "joy", layers="5", gate=Gate("calm", below=2.0, layer=2, at="after"))
    a, b = resolve(SteeringPlan((same, earlier))).placements
    assert (a.gate.site, a.gate.above, a.gate.at) == (Site(5), True, "before")
    assert a.gate.threshold == pytest.approx(0.5 * 5 + 1 + 1.0 * (1 + 0.5 + 1))
    assert (b.gate.site, b.gate.above, b.gate.threshold, b.gate.at) == (Site(2), False, 2.0, "after")
    for late in (
        Gate("calm", above=1.0, layer=6),
        Gate(INLINE, above=1.0, layer=5, stream="resid_post", at="after"),
        Gate(INLINE, above=1.0, layer=9),
    ):
        with pytest.raises(InputError, match="later than the edit|needs an earlier site"):
            resolve(SteeringPlan(Placement(Pin(0.0), "joy", layers="5", gate=late)))


def test_plans_join_in_order():
    a, b = SteeringPlan.add("joy", amount=1.0), SteeringPlan(Placement(Ablate(), "calm"))
    assert [p.op.op for p in (a | b).placements] == ["add", "ablate"]
    assert resolve(a | b).fingerprint != resolve(b | a).fingerprint


def test_resolving_changes_nothing():
    before = FILE.hash
    plan = SteeringPlan.add("joy", dose=0.5, layers="all")
    assert resolve(plan).fingerprint == resolve(plan).fingerprint
    assert FILE.hash == before


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: Placement("add", "joy"),
        lambda: Placement(Add(amount=1.0)),
        lambda: Placement(Add(amount=1.0), "joy", stream="residual"),
        lambda: Placement(Add(amount=1.0), "joy", positions="everywhere"),
        lambda: Placement(Add(dose=1.0), "joy", relative=True),
        lambda: Placement(Pin(1.0), "joy", relative=True),
        lambda: Placement(Pin(1.0), "joy", factor=2.0),
        lambda: Placement(Add(amount=1.0), "joy", factor=math.nan),
        lambda: Placement(Deltas(np.ones((2, 24))), "joy", layers=[0]),
        lambda: Placement(Deltas(np.ones((2, 24)))),
        lambda: SteeringPlan(("joy",)),
        lambda: SteeringPlan.add("joy"),
    ],
)
def test_plans_validate_at_construction(build):
    with pytest.raises(InputError):
        build()


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(Mismatch, match="another model"):
        resolve(SteeringPlan.add("joy", amount=1.0), model=worlds.model(width=16))
    with pytest.raises(InputError, match="does not exist"):
        resolve(SteeringPlan.add("joy", amount=1.0, layers="all"), model=worlds.model(n_layers=6))
    foreign = worlds.vectors(origin=worlds.origin(n_layers=12))
    with pytest.raises(Mismatch, match="12 blocks"):
        resolve(SteeringPlan.add("joy", amount=1.0), library={"mood": foreign})
    with pytest.raises(Mismatch, match="resid_post|mlp_out"):
        resolve(SteeringPlan(Placement(Add(amount=1.0), INLINE, stream="mlp_out")))
    bare = ModelInfo("bare", 10, 24, {Site(n): 24 for n in range(10)})
    table = Placement(Deltas(np.ones((2, 24))), layers=[3], stream="mlp_out")
    with pytest.raises(Unsupported, match="mlp_out"):
        resolve(SteeringPlan(table), model=bare)


# --- JSON -----------------------------------------------------------------------------------------------------

EVERYTHING = SteeringPlan(
    (
        Placement(Add(dose=0.3), "joy"),
        Placement(Add(scale=-1.5), "mood/joy", layers="2,5", per_layer=True),
        Placement(Add(amount=0.2), INLINE, relative=True, renormalise=True, positions={"role": "user"}),
        Placement(Ablate(keep=-0.5), "calm", layers=["50%"], factor=0.25, positions="generated"),
        Placement(Cap(low=-1.0), "joy", layers=5, positions={"after": 3}),
        Placement(Cap(high=2.0, z=True), "calm", layers="5-6", gate=Gate("joy", above=0.5, layer=2, at="after")),
        Placement(Pin(value=1.0), INLINE, gate=Gate(INLINE, below=-1.0, z=True)),
        Placement(
            Deltas(np.arange(48).reshape(2, 24) / 7, start=3), layers=[1], stream="mlp_out",
            positions={"ranges": [[2, 5], [7, None]]}, factor=-2.0,
        ),
    )
)  # fmt: skip


def test_json_round_trip_of_everything():
    text = json.dumps(EVERYTHING.to_json(), allow_nan=False)
    back = SteeringPlan.from_json(text)
    assert back.to_json() == EVERYTHING.to_json()
    assert resolve(back).fingerprint == resolve(EVERYTHING).fingerprint
    assert [p.op for p in back.placements] == [p.op for p in EVERYTHING.placements]
    assert [p.gate is None for p in back.placements] == [p.gate is None for p in EVERYTHING.placements]


def test_json_of_a_hand_written_plan():
    plan = SteeringPlan.from_json(
        {
            "placements": [
                {"op": "add", "vector": "joy", "dose": 0.5, "layers": "50%", "positions": {"after": 2}}
            ]
        }
    )
    assert plan.to_json() == SteeringPlan.add("joy", dose=0.5, layers="50%", positions={"after": 2}).to_json()
    assert shifts(plan) == {5: 0.5 * 15}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"placements": [{"op": "ad", "vector": "joy"}]}, "'add'"),
        ({"placements": [{"op": "add", "vector": "joy", "doze": 1}]}, "'dose'"),
        ({"placements": [{"op": "add", "vector": "joy", "dose": 1, "position": "all"}]}, "'positions'"),
        (
            {"placements": [{"op": "pin", "vector": "joy", "value": 1, "gate": {"vector": "x", "abov": 1}}]},
            "'above'",
        ),
        ({"placement": []}, "'placements'"),
        ({"schema": 99, "placements": []}, "schema 99"),
        ({"placements": {"op": "add"}}, "list"),
        ({"placements": "add"}, "list"),
        ({"placements": [3]}, "op"),
        ({}, "placements"),
        ([], "object"),
        ("{not json", "not JSON"),
        ('"text"', "object"),
        ({"placements": [{"op": "add", "dose": 1, "vector": {"nam": "x"}}]}, "'name'"),
        ({"placements": [{"op": "add", "dose": 1, "vector": {"name": "x"}}]}, "site"),
        ({"placements": [{"op": "add", "dose": 1, "vector": {"site": "layer_1", "data": "%%%"}}]}, "base64"),
        ({"placements": [{"op": "deltas", "layers": [0], "data": "AAAA", "shape": [2, 2]}]}, "base64"),
        ({"placements": [{"op": "add", "vector": "joy", "dose": "much"}]}, "finite"),
        ({"placements": [{"op": "ablate", "vector": "joy", "keep": None}]}, "finite"),
        ({"placements": [{"op": "add", "vector": "joy", "dose": 1, "relative": "yes"}]}, "true or false"),
        ({"placements": [{"op": "add", "vector": 5, "dose": 1}]}, "name or an object"),
    ],
)
def test_malformed_json_says_what_is_wrong(plan, message):
    with pytest.raises(InputError, match=message):
        SteeringPlan.from_json(plan)


@pytest.mark.parametrize(
    "placement",
    [
        {"op": "add", "vector": "joy", "dose": 1, "gate": 5},
        {"op": "add", "vector": "joy", "dose": 1, "factor": "half"},
        {"op": "add", "vector": "joy", "dose": 1, "factor": None},
        {"op": "add", "vector": "joy", "dose": 1, "stream": 3},
        {"op": "add", "vector": "joy", "dose": 1, "stream": ["mlp_out"]},
        {"op": ["add"], "vector": "joy", "dose": 1},
        {"op": "deltas", "layers": [0]},
        {"op": "deltas", "layers": [0], "shape": [1, 1], "data": "AAAAAA==", "start": "0"},
        {"op": "add", "dose": 1, "vector": {"site": "layer_1", "data": "AAAAAA==", "norm": "long"}},
        {"op": "add", "dose": 1, "vector": {"site": 1, "data": "AAAAAA=="}},
        {"op": "pin", "vector": "joy", "value": 1, "z": "yes"},
        {"op": "pin", "vector": "joy", "value": 1, "gate": {"vector": "joy", "above": "high"}},
        {"op": "pin", "vector": "joy", "value": 1, "gate": {"vector": "joy", "above": 1, "stream": "x"}},
        {"op": "pin", "vector": "joy", "value": 1, "gate": {"above": 1}},
        {"op": "add", "vector": "joy", "dose": 1, "layers": {"from": 1}},
        {"op": "add", "vector": "joy", "dose": 1, "layers": [[1]]},
    ],
)
def test_no_json_is_too_strange_for_a_clear_error(placement):
    """Whatever comes over the wire is refused as input, at construction or when it is resolved; never a traceback."""
    with pytest.raises(InputError):
        resolve(SteeringPlan.from_json({"placements": [placement]}))


def test_a_file_does_not_travel_in_a_plan():
    with pytest.raises(InputError, match="library"):
        SteeringPlan.add(FILE.only(["joy"]), amount=1.0).to_json()
    assert isinstance(FILE, ConceptVectors)
