"""Studies on a served model: the numbers of the same commands here, and what a server says of its model first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import alike
from trimtab.cli.models import glance
from trimtab.engines import load_engine
from trimtab.server.settings import Settings

pytestmark = pytest.mark.slow
for module in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")
#: What differs between two runs of the same study, or says where it ran.
PLACES = {
    "engine",
    "file",
    "files",
    "manifest",
    "model",
    "models",
    "report",
    "run",
    "runs",
    "wall_s",
    "warnings",
}


@pytest.fixture(scope="module")
def url(serving):
    with serving(load_engine("tiny", "reference"), Settings(inline=True)) as found:
        yield found


@pytest.fixture
def both(trimtab, url, few_neutral_texts, monkeypatch, tmp_path):
    """The record of a verb here, and the one on the server."""
    from trimtab.evaluation import limits

    few = limits.neutral_texts()[:2]
    monkeypatch.setattr(limits, "neutral_texts", lambda: few)

    def call(verb: str, *argv: Any, **folders: Any) -> list[dict[str, Any]]:
        found = []
        for name, place in (
            ("here", ("tiny", "--engine", "reference")),
            ("there", (url, "--engine", "remote")),
        ):
            more = [str(a).replace("PLACE", str(tmp_path / name)) for a in argv]
            done = trimtab(*verb.split(), *place, *more, "--json")
            assert done.code == 0, done.err
            assert "Traceback" not in done.err
            found.append(done.record)
        return found

    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    return call


#: But for the rounding of sums that are taken in another order.
same = partial(alike.same, rel=1e-4, abs=1e-5, without=PLACES)


@pytest.fixture
def items(continuations):
    return continuations("items.jsonl", ("I", "we", "you", "they"), ("feel", "seem"))


def test_a_file_is_extracted_on_the_server(both, joy_pairs):
    here, there = both("extract", "--data", joy_pairs, "-o", "PLACE/joy.safetensors")
    same({k: v for k, v in here.items() if k != "hash"}, {k: v for k, v in there.items() if k != "hash"})


def test_ranges_and_signs_are_those_of_the_same_model_here(both, joy, items):
    argv = ("--items", items, "--layers", "1-2", "--limit", "kl_mean=0.2", "--runs-dir", "PLACE")
    here, there = both("calibrate", joy, *argv, "-o", "PLACE/joy.safetensors")
    same(here, there)
    assert here["ranges"] and here["signs"]["joy"]["n"] == 4


def test_a_sweep_is_that_of_the_same_model_here(both, joy, items):
    argv = ("--items", items, "--layers", "1-2", "--doses", "-0.3,0.3", "--max-tokens", 3, "--no-refine")
    for score in ("logprob", "projection"):
        here, there = both("sweep", joy, *argv, "--score", score, "--no-write", "--runs-dir", "PLACE")
        same(here, there)
        assert here["final"][0]["study"]["n_items"] == 4
    for record in (
        here,
        there,
    ):  # what is published names the model, and not the address at which it was served
        assert "- **Model:** `tiny`" in (Path(record["run"]) / "card.md").read_text()


def test_texts_and_readings_are_those_of_the_same_model_here(both, joy):
    plan = ("--steer", joy, "--dose", 0.5, "--layers", 2)
    same(*both("generate", "--prompt", "I feel", *plan, "--read", joy, "--max-tokens", 6))


def test_a_server_says_what_its_model_is(url, refused, joy, tmp_path):
    """What does not fit is refused before the work begins, as with a folder."""
    seen, info = glance(url, "remote"), load_engine("tiny", "reference").info
    assert (seen.name, seen.n_layers, seen.hidden_size) == ("tiny", info.n_layers, info.hidden_size)
    assert seen.chat_template is (info.template_hash is not None)
    cut = seen.token_prefixes()
    assert cut is not None and cut("I feel") and all("I feel".startswith(p) for p in cut("I feel"))
    there = (url, "--engine", "remote")
    asked = ("calibrate", *there, joy, "--layers", "9", "--dry-run")
    assert "layer 9" in refused(*asked)
    assert "takes no --dtype" in refused("sweep", *there, joy, "--dtype", "float32", "--runs-dir", tmp_path)
    assert "server's address" in refused("calibrate", "tiny", "--engine", "remote", joy)
    assert "add --engine remote" in refused("calibrate", url, joy)


def test_the_embedded_model_has_its_own_materials_wherever_it_runs(serving, trimtab):
    """Its dilemmas, prompts and scores go by the name that the server gives its model."""
    engine = load_engine("tiny", "reference")
    engine.info = replace(engine.info, id="embedded")
    with serving(engine, Settings(inline=True)) as url:
        there = (url, "--engine", "remote", "--random", 0, "--limit", 40, "--dry-run", "--json")
        found = trimtab("eval", "dilemmas", *there)
        assert found.code == 0 and found.record["questions"] > 20, found.err
    local = trimtab("eval", "dilemmas", "embedded", "--random", 0, "--limit", 40, "--dry-run", "--json")
    assert found.record["questions"] == local.record["questions"]


def test_what_the_operator_does_not_allow_is_refused_with_the_mend(serving, refused, joy, items, tmp_path):
    with serving(load_engine("tiny", "reference"), Settings(), "secret") as url:
        there = ("calibrate", url, joy, "--engine", "remote", "--items", items, "--runs-dir", tmp_path)
        assert "TRIMTAB_API_KEY" in refused(*there)
    with serving(load_engine("tiny", "reference"), Settings()) as url:
        there = ("calibrate", url, joy, "--engine", "remote", "--items", items, "--runs-dir", tmp_path)
        assert "--allow-inline" in refused(*there)
