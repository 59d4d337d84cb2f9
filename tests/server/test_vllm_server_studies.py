"""Studies on a real vLLM server: the numbers of the same commands on Transformers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import alike
from server.stock import vectors
from trimtab.cli import main

pytestmark = pytest.mark.engine


@pytest.fixture
def both(server, capsys, monkeypatch, tmp_path):
    """The record of a verb on Transformers, and the one on the server; both with a file of what the server holds."""
    monkeypatch.delenv("TRIMTAB_API_KEY", raising=False)
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": q}]}) + "\n" for q in QUESTIONS)
    )

    def call(verb: str, *argv: str) -> list[dict[str, Any]]:
        found = []
        here = ("embedded", "--engine", "transformers", "--dtype", "float32")
        for name, place in (("here", here), ("there", (server.url, "--engine", "remote"))):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            vectors().save(folder / "feelings.safetensors")
            more = [a.replace("PLACE", str(folder)).replace("ITEMS", str(tmp_path)) for a in argv]
            capsys.readouterr()
            code = main([*verb.split(), *place, *more, "--runs-dir", str(folder / "runs"), "--json"])
            out, err = capsys.readouterr()
            assert code == 0 and "Traceback" not in err, err
            found.append(json.loads(out))
        return found

    return call


#: But for the rounding of another engine.
same = partial(alike.same, rel=1e-3, abs=1e-4)


QUESTIONS = [f"{a} the {b}?" for a in ("Where is", "How was") for b in ("dog", "garden")]


def test_a_vector_may_be_pushed_as_far_as_on_another_engine(both, tmp_path):
    """Distances between whole distributions, at strengths that a search chooses by them."""
    argv = ("--items", "ITEMS/items.jsonl", "--layers", "3", "--limit", "kl_p95=0.3", "--no-sign")
    here, there = both("calibrate", "PLACE/feelings.safetensors:happy", *argv)
    assert len(here["ranges"]) == len(there["ranges"]) == 2
    for a, b in zip(here["ranges"], there["ranges"], strict=True):
        assert (a["concept"], a["site"], a["sign"]) == (b["concept"], b["site"], b["sign"]) and a["reached"]
        assert b["strength"] == pytest.approx(a["strength"], rel=1e-3)
        assert b["cost"] == pytest.approx(a["cost"], rel=1e-2)
    assert there["of"]["model"] == here["of"]["model"] == "embedded"
    assert there["of"]["revision"] == here["of"]["revision"] is not None
    assert (tmp_path / "there" / "feelings.safetensors").exists() and Path(there["report"]).exists()


def test_dilemmas_are_decided_as_on_another_engine(both):
    """The served model is asked its own dilemmas, and nothing that the operator does not allow travels."""
    argv = ("--steer", "PLACE/feelings.safetensors:sad", "--doses", "0.3", "--layers", "1-4", "--random", "0")
    here, there = both("eval dilemmas", *argv, "--limit", "40")
    assert here["questions"] == there["questions"] == 40
    for part in ("plain", "rows", "prompts", "openings"):
        assert here[part]
        same(here[part], there[part], part)
