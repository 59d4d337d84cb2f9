"""The kit can fail: every check names the mistake of an engine that makes it."""

import pytest

from conformance.faults import FAULTS
from conformance.served_faults import Served, ServedStand
from engines import broken_edits, broken_engines  # noqa: F401 (they fill the register)
from engines.broken import BROKEN
from trimtab.conformance.registry import CHECKS, FEATURES, load, names_of
from trimtab.conformance.runner import run_checks
from trimtab.conformance.stands import ReferenceStand
from trimtab.conformance.subject import Subject

#: Engines of the contract's register, and the checks that must fail on them, among others.
CAUGHT = {
    "SteersTheWrongLayer": ("add", "strengths", "streams", "deltas"),
    "ForgetsDecodeSteps": (
        "positions",
        "decode_steps",
        "generation_parity",
        "capture_generated",
        "concurrency",
    ),
    "SteersOnlyDecodeSteps": ("changes_output", "layers", "prompt_step", "score_parity"),
    "LeaksToABatchmate": ("batch_sizes", "distinct_plans", "strength_sweep", "id_prefix", "cache_rounds"),
    "CountsColumnsAsPositions": ("deltas", "batchmates"),
    "RestartsPositionsInEveryChunk": ("chunking",),
    "LosesTheScale": ("add", "strengths"),
    "IgnoresGates": ("gates",),
    "GatesAfterTheEdits": ("gate_times",),
    "ActsInReverseOrder": ("stacks",),
    "IgnoresRelative": ("relative",),
    "IgnoresRenormalise": ("renormalise",),
    "RoundsWhatItDoesNotTouch": ("identity", "cap"),
    "IgnoresStrength": ("scaled",),
    "RunsThePlainThroughTheKernel": ("identity",),
    "AblatesAlways": ("ablate",),
    "TakesOForAttnOut": ("residual",),
    "KnowsNoBounds": ("cap", "pin", "mixture"),
    "CapturesAfterTheNorm": ("add", "residual"),
    "DropsBlockZero": ("capture_rows", "capture_parity"),
    "DropsBlockZeroWhileGenerating": ("capture_generated",),
    "ReturnsFewerRows": ("capture_rows",),
    "CapturesBeforeInsteadOfAfter": ("add", "positions"),
    "ReadsBeforeInsteadOfAfter": ("reading_parity",),
    "ReadsThePreviousToken": ("capture_generated",),
    "SteersTheFirstSampleOnly": ("n_gt_1",),
    "SharesOneRandomStream": ("seeds",),
    "ScoresPlain": ("score_parity",),
    "IgnoresAnUnknownVector": ("unknown_refused",),
    "StampsEveryToken": ("receipts",),
    "IgnoresTopK": ("filters",),
    "StreamsTheFirstTokenTwice": ("streaming",),
    "LosesThePlanInTheThread": ("concurrency",),
    "LeavesItsPlanBehind": ("abort",),
    "LeaksTheStopString": ("streaming",),
    "ForgetsTheDefaultPlan": ("default_plan",),
}
#: Of the text that goes in and of the order in which things happen the kit knows nothing; the engine contract does.
OUTSIDE = {"RefusesTooLate", "BeginsAContinuationAnew", "DropsTheSystemMessage", "WarnsEveryTime"}

load()
CASES = [(n, c) for n, checks in CAUGHT.items() for c in checks]
CASES += [(n, c) for n, f in FAULTS.items() for c in f.checks]
#: These generate much, or measure time.
LONG = ("cost", "preemption")
MARKED = [pytest.param(*case, marks=pytest.mark.slow) if case[1] in LONG else case for case in CASES]


def status(engine, stand, *checks):
    """The outcome of checks on an engine class in the reference's place."""
    subject = Subject(engine.load(), stand())
    return {name: CHECKS[name].run(subject) for name in checks}


@pytest.mark.parametrize(("name", "check"), MARKED)
def test_the_kit_catches(name, check):
    engine, stand = (
        (BROKEN[name].engine, ReferenceStand) if name in BROKEN else (FAULTS[name].engine, FAULTS[name].stand)
    )
    with pytest.raises((AssertionError, RuntimeError, KeyError)):
        status(engine, stand, check)


def test_every_broken_engine_is_caught_or_named():
    assert set(CAUGHT) | OUTSIDE == set(BROKEN)


def test_every_check_is_failed_by_somebody():
    assert {check for _, check in CASES} == set(CHECKS)


@pytest.mark.slow
def test_the_healthy_engine_passes_also_in_a_servers_place():
    served = [c.name for c in CHECKS.values() if c.needs not in ("", *FEATURES["reference"])]
    assert served
    status(Served, ServedStand, *served, "id_prefix")
    report = run_checks(Subject(Served.load(), ReferenceStand()))
    assert report.passed, [e for e in report.checks if e.status != "pass"]
    assert [e.name for e in report.checks] == list(names_of("reference"))
