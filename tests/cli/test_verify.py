"""`trimtab verify` as a person types it, on the reference model."""

import json

import numpy as np
import pytest

from trimtab.cli import main
from trimtab.conformance.registry import names_of
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.reference.forward import Pass
from trimtab.sites import Site


class Deaf(Pass):
    """Steers nothing."""

    def apply(self, part, p, h):
        return h


def test_one_line_of_json(trimtab):
    done = trimtab("verify", "tiny", "--engine", "reference", "--only", "add,gates,cost", "--json", "--quiet")
    assert set(done.record) == {"checks", "not_run", "summary"}
    assert [c["name"] for c in done.record["checks"]] == ["add", "gates", "cost"]
    assert all(
        set(c) == {"name", "status", "detail"} and c["status"] == "pass" for c in done.record["checks"]
    )
    assert "of the plain speed" in done.record["checks"][2]["detail"]
    names = [c["name"] for kind in ("checks", "not_run") for c in done.record[kind]]
    assert sorted(names) == sorted(names_of("reference"))
    assert done.record["summary"]["pass"] == 3 and done.record["summary"]["engine"] == "reference"
    assert done.err == ""


def test_a_table_for_people(trimtab):
    done = trimtab("verify", "tiny", "--engine", "reference", "--only", "add,seeds")
    assert done.code == 0
    assert "add" in done.out and "of the typical norm" in done.out and "2 of 2 checks pass" in done.out
    assert "not chosen" in done.out


def test_a_failed_check_is_exit_code_1(trimtab, monkeypatch, capsys):
    monkeypatch.setattr(ReferenceEngine, "passes", Deaf)
    done = trimtab("verify", "tiny", "--engine", "reference", "--only", "add,receipts", "--json")
    assert done.code == 1 and done.out.count("\n") == 1
    record = json.loads(done.out)
    assert [c["status"] for c in record["checks"]] == ["fail", "pass"]
    assert "fail add: " in done.err
    shown = trimtab("verify", "tiny", "--engine", "reference", "--only", "add")
    assert shown.code == 1 and "1 fail" in shown.out


def test_the_list_loads_nothing(trimtab, monkeypatch):
    monkeypatch.setattr("trimtab.conformance.runner.load_engine", lambda *_, **__: pytest.fail("loaded"))
    done = trimtab("verify", "--engine", "vllm", "--list", "--json")
    assert [c["name"] for c in done.record["checks"]] == list(names_of("vllm"))
    assert trimtab("verify", "--engine", "mlx", "--list").out.count("\n") == len(names_of("mlx"))


@pytest.fixture
def vectors(tmp_path):
    rng = np.random.default_rng(0)
    rows = [Direction.from_raw(n, Site(layer), rng.standard_normal(32)) for n in "ab" for layer in (1, 2)]
    path = tmp_path / "own.safetensors"
    ConceptVectors.from_directions(rows).save(path)
    return path


def test_vectors_of_ones_own(trimtab, vectors, monkeypatch):
    seen = []

    def remember(self, plan, prompt):
        found = whole(self, plan, prompt)
        seen.extend(found.vectors)
        return found

    whole = ReferenceEngine.resolve
    monkeypatch.setattr(ReferenceEngine, "resolve", remember)
    done = trimtab("verify", "tiny", "--engine", "reference", "--vectors", vectors, "--only", "add", "--json")
    assert done.record["summary"]["layers"] == [1, 2]
    mine = {ConceptVectors.load(vectors).direction("a", Site(n)).hash for n in (1, 2)}
    assert set(seen) == mine


def test_what_does_not_fit_is_refused(refused, tmp_path, vectors):
    reference = ("verify", "tiny", "--engine", "reference")
    assert "check" in refused(*reference, "--only", "ad")
    assert "built-in" in refused("verify", "elsewhere", "--engine", "reference")
    assert "local folder" in refused("verify", tmp_path / "none", "--engine", "transformers")
    assert "local folder" in refused("verify", "owner/model", "--engine", "vllm")
    assert "--eager" in refused(*reference, "--eager")
    assert "--dtype" in refused(*reference, "--dtype", "float32")
    assert "compare" in refused(*reference, "--compare", "transformers")
    wide = tmp_path / "wide.safetensors"
    ConceptVectors.from_directions([Direction.from_raw("w", Site(0), np.ones(48))]).save(wide)
    assert "width" in refused(*reference, "--vectors", wide, "--only", "add")


def test_doctor_points_here(capsys):
    main(["doctor"])
    assert "trimtab verify" in capsys.readouterr().out
