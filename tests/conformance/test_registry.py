"""The lists of names: one per registered engine, published, and every name in exactly one of a report's two lists."""

import importlib.util
from pathlib import Path

import pytest

from trimtab.conformance import registry, runner
from trimtab.conformance.registry import CHECKS, FEATURES, NotRun, load, names_of
from trimtab.conformance.report import Report
from trimtab.conformance.runner import run_checks
from trimtab.conformance.stands import stand_of
from trimtab.conformance.subject import Subject
from trimtab.engines import ENGINES, load_engine
from trimtab.engines.reference import ReferenceEngine
from trimtab.errors import UnknownName, Unsupported

DOCS = Path(__file__).parents[2] / "docs"

#: Names that others may rely on. They are never taken off the list; what breaks them is told in the changelog.
PROMISED = (
    "changes_output identity batchmates cache_isolation n_gt_1 id_prefix abort capture_parity reading_parity stacks "
    "gates positions malformed_refused cost"
).split()


@pytest.fixture
def subject():
    return Subject(load_engine("tiny", "reference"), stand_of("reference"))


def test_every_registered_engine_has_a_list_and_a_stand():
    assert set(FEATURES) == set(ENGINES)
    for engine in ENGINES:
        names = names_of(engine)
        assert len(names) == len(set(names)) >= 40 and set(PROMISED) <= set(names)
        assert stand_of(engine).engine == engine
    assert {"preemption", "chunking", "cache_sharing", "lost_is_withheld", "non_finite_contained"} <= set(
        names_of("vllm")
    )


def test_every_check_says_what_it_checks_and_needs_what_some_engine_has():
    features = set().union(*FEATURES.values())
    for check in load().values():
        assert check.line.endswith(".") and len(check.line) > 30, check.name
        assert check.needs in features | {""}, check.name


def test_the_page_is_the_registry():
    spec = importlib.util.spec_from_file_location("regenerate", DOCS / "regenerate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (DOCS / "verify.md").read_text(encoding="utf-8")
    assert module.refreshed(page) == page, "Run: make docs"
    assert all(f"| `{name}` | " in page for name in CHECKS)
    assert module.refreshed(page.replace("| `id_prefix` | A", "| `id_suffix` | A")) == page


def told(report):
    record = report.to_json()
    return [c["name"] for c in record["checks"]], [c["name"] for c in record["not_run"]]


def test_a_name_is_run_or_named_as_not_run(subject, monkeypatch):
    def shy(s):
        raise NotRun("there is no GPU")

    monkeypatch.setitem(CHECKS, "pin", registry.Check("pin", "edits", shy))
    ran, left = told(run_checks(subject, only=("add", "pin")))
    assert ran == ["add"] and sorted([*ran, *left]) == sorted(names_of("reference"))
    assert ("pin", "there is no GPU") in run_checks(subject, only=("pin",)).not_run


def test_a_name_on_neither_list_is_a_bug(subject, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"every check once.*add"):
        run_checks(subject, only=("add",))


def test_an_engine_that_raises_is_an_error_and_not_a_pass(subject, monkeypatch):
    monkeypatch.setattr(subject.engine, "score", lambda *_: 1 / 0)
    report = run_checks(subject, only=("changes_output",))
    (entry,) = report.checks
    assert entry.status == "error" and "ZeroDivisionError" in entry.detail
    assert not report.passed and report.counts == {"pass": 0, "fail": 0, "error": 1, "not_run": 50}


def test_a_report_without_checks_has_not_passed():
    assert not Report().passed


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="add"):
        runner.check_names("reference", ["ad"])
    with pytest.raises(UnknownName, match="vllm"):
        names_of("vlm")


class AddsOnly(ReferenceEngine):
    """Somebody else's engine: it takes `Add`, and says so of everything else."""

    def _check_plan(self, plan):
        if any(not p.coefficients.adds or p.gate for p in plan.effective):
            raise Unsupported("this engine adds, and nothing else")


def test_what_a_partial_engine_cannot_say_is_not_run_and_what_it_can_is():
    subject = Subject(AddsOnly.load(), stand_of("reference"))
    chosen = ("add", "ablate", "gates", "batchmates", "cache_rounds")
    report = run_checks(subject, only=chosen, partial=True)
    assert [e.name for e in report.checks] == ["add", "batchmates", "cache_rounds"] and report.passed
    assert ("ablate", "this engine adds, and nothing else") in report.not_run
    ours = run_checks(subject, only=("ablate",))
    assert [e.status for e in ours.checks] == ["error"] and not ours.passed
