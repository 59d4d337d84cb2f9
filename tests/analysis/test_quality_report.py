"""The report as a whole, on a model whose truth is known: verdicts, files, and what is said to be missing."""

import dataclasses
import json
import random

import numpy as np
import pytest

from markup import Tags
from trimtab.analysis.quality import BESIDE, NEEDS, Corpus, assess, background, readers, review, writers
from trimtab.analysis.quality.folder import Target, readout_quality, write, write_readout
from trimtab.analysis.quality.page import page
from trimtab.analysis.quality.table import render
from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_texts
from trimtab.directions import ConceptVectors, Origin
from trimtab.engines import load_engine
from trimtab.errors import InputError
from trimtab.recipes import extract_full
from trimtab.sites import Site

pytestmark = pytest.mark.slow

SUBJECTS, VERBS = ("I", "you", "we", "they"), ("feel", "seem", "look")


def texts(*words, start=""):
    return [f"{start}{s} {v} really {w} today." for s in SUBJECTS for v in VERBS for w in words]


JOY = Contrast("joy", texts("happy", "glad"), texts("sad", "gloomy"), paired=True)
GLEE = Contrast("glee", texts("merry", "glad"), texts("lonely", "gloomy"), paired=True)
ANGER = Contrast("anger", texts("angry", "mad"), texts("ready", "tall"))
MARKED = Contrast(
    "marked", texts("ready", "tall", start="so "), texts("ready", "tall", start="but "), paired=True
)


def shuffled():
    """Texts about nothing in particular with labels that mean nothing."""
    words = ("happy", "sad", "ready", "angry", "tall", "glad")
    pool = texts(*words)
    random.Random(1).shuffle(pool)
    return Contrast("null", pool[:36], pool[36:])


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture(scope="module", autouse=True)
def few_neutral_texts():
    with pytest.MonkeyPatch.context() as patch:
        for place in ("trimtab.recipes.neutral", background.__name__, readers.__name__, writers.__name__):
            patch.setattr(f"{place}.neutral_texts", lambda: neutral_texts()[:3])
        yield


@pytest.fixture(scope="module")
def full(engine):
    return extract_full(engine, [JOY, GLEE, ANGER, MARKED, shuffled()], needs=NEEDS, beside=BESIDE)


@pytest.fixture(scope="module")
def report(full, engine):
    return assess(full, engine, permutations=20)


def verdict(report, concept):
    return next(v for v in report.verdicts if v.concept == concept)


def test_verdicts_in_words(report):
    assert verdict(report, "anger").words == "use"
    assert (
        verdict(report, "joy").words == "merge with glee"
        and verdict(report, "glee").words == "merge with joy"
    )
    assert verdict(report, "marked").words == "suspect template"
    assert any("'so' stands in 100%" in r for r in verdict(report, "marked").reasons)
    null = verdict(report, "null")
    assert null.words == "rewrite the data" and null.advice == ()


def test_random_labels_are_near_one_half_at_every_site(report):
    """One draw; that the average over draws is one half is tested with the held-out figures."""
    found = [r.held_out.auc for r in report.of("null")]
    assert all(i.low < 0.5 < i.high for i in found) and all(0.3 < i.value < 0.7 for i in found)


def test_what_the_model_has_planted_is_seen(report, engine):
    row = report.at("anger", Site(3))
    assert row.auc == 1 and row.split_half.cosine > 0.99
    assert row.neuron.index == 2 and row.neuron.single  # the third neuron writes anger
    assert row.read_by is None and "behind the last one" in row.missing["read_by"]
    read = report.at("anger", Site(2)).read_by
    assert (read.layer, read.gate.index, read.gate.single) == (3, 2, True)  # and its gate reads it
    assert read.up.index != 2 and not read.up.single
    assert set(np.argsort(row.heads.share)[-2:]) == {0, 1}  # the heads that share the planted value head
    assert sum(row.heads.share) == pytest.approx(1)
    assert max(row.background.cosines) < 0.6


def test_every_part_is_there_or_has_a_reason(report):
    for row in report.rows:
        for part in (
            "spectrum",
            "held_out",
            "split_half",
            "redundancy",
            "neuron",
            "read_by",
            "heads",
            "background",
            "influence",
        ):
            assert (getattr(row, part) is None) == (part in row.missing), (part, row.missing)


def test_only_judged_rows_compute_the_auc_without_examples(report):
    judged = report.judged("null").influence
    assert any(e.auc_without is not None for e in judged.examples)
    other = next(r for r in report.of("null") if r.site != verdict(report, "null").site)
    assert all(e.auc_without is None for e in other.influence.examples)


def test_evidence_without_head_outputs_is_said(full, engine):
    bare = [{s: e for s, e in one.items() if s != Site(2, "head_out")} for one in full.evidence]
    found = assess(dataclasses.replace(full, evidence=tuple(bare)), engine, permutations=2)
    assert "holds no layer_2.head_out" in found.at("joy", Site(2)).missing["heads"]
    assert found.at("joy", Site(1)).heads is not None


@pytest.mark.engine
def test_a_layer_without_attention_is_unsupported_and_said(monkeypatch):
    """Qwen3.5: three layers of gated delta nets, then one of attention."""
    pytest.importorskip("torch")
    from engines.tiny import FAMILIES, Words
    from trimtab.engines.transformers import TransformersEngine

    words = ["w3 w17 w50 w9", "w77 w31 w64 w12", "w40 w41 w5 w6"]
    for place in ("trimtab.recipes.neutral", background.__name__, readers.__name__, writers.__name__):
        monkeypatch.setattr(f"{place}.neutral_texts", lambda: words)
    engine = TransformersEngine(FAMILIES["qwen3.5"](), Words(), id="hybrid")
    rng = np.random.default_rng(0)
    sides = [[" ".join(f"w{i}" for i in rng.integers(low, low + 50, 6)) for _ in range(8)] for low in (5, 60)]
    full = extract_full(engine, Contrast("late", *sides), layers="2-3", needs=NEEDS, beside=BESIDE)
    found = assess(full, engine, permutations=2)
    assert "unsupported: layer 2 has no attention heads" in found.at("late", Site(2)).missing["heads"]
    heads = found.at("late", Site(3)).heads
    assert len(heads.raw_norm) == 4 and sum(heads.share) == pytest.approx(1)


def test_the_record_is_finite_json(report):
    text = json.dumps(report.record(), allow_nan=False)
    row = next(r for r in json.loads(text)["rows"] if r["concept"] == "joy" and r["site"] == "layer_3")
    assert row["held_out"]["auc"]["value"] == 1 and row["spectrum"]["centred"] is False


def test_the_page_stands_alone_and_says_the_verdicts(report):
    text = page(report)
    tags = Tags(text)
    assert (
        tags.open == [] and tags.wrong == [] and tags.addresses == [] and len(tags.ids) == len(set(tags.ids))
    )
    assert "http" not in text.replace("http-equiv", "") and "nan" not in text.lower().replace("tangent", "")
    for words in ("merge with glee", "suspect template", "rewrite the data", "✓ use", "joy:"):
        assert words in text


def test_text_from_outside_is_escaped(engine):
    nasty = [f"{t}<script>alert(1)</script>" for t in texts("happy")]
    full = extract_full(
        engine, Contrast("<b>joy</b>", nasty, texts("sad"), paired=True), layers=3, needs=NEEDS, beside=BESIDE
    )
    text = page(assess(full, engine, permutations=2))
    assert "<script>alert" not in text and "<b>joy</b>" not in text and "&lt;b&gt;joy" in text


def test_the_terminal_says_it_too(report):
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(report))
    text = console.export_text()
    assert "⇄ merge with glee" in text and "✎ rewrite the data" in text and "⚠ suspect template" in text


def test_the_readout_folder(report, full, tmp_path):
    write_readout(full.vectors, report, tmp_path / "set")
    loaded = ConceptVectors.load(tmp_path / "set" / "readout.safetensors")
    manifest = json.loads((tmp_path / "set" / "readout.json").read_text())
    assert loaded.hash == full.vectors.hash and manifest["concepts"] == list(report.concepts)
    found = json.loads((tmp_path / "set" / "quality.json").read_text())
    figures = found["joy"]["layer_3"]
    assert set(figures) == {
        "per_head", "head_concentration", "subspace_eigvals", "first_pc_ratio", "k_signal_at_90pct", "missing",
    }  # fmt: skip
    assert len(figures["per_head"]) == 4 and figures["head_concentration"] == pytest.approx(1)
    assert figures["subspace_eigvals"][0] == pytest.approx(report.at("joy", Site(3)).spectrum.eigenvalues[0])
    assert readout_quality(report)["null"]["layer_0"]["missing"] == {}


def test_where_a_report_goes(report, tmp_path):
    for given, names in (
        ("a.html", {"a.html", "a.quality.json"}),
        ("b.json", {"b.json"}),
        ("c", {"report.html", "quality.json"}),
    ):
        target = Target.of(str(tmp_path / given))
        write(report, target)
        assert {p.name for p in target.paths} == names and all(p.stat().st_size for p in target.paths)
    with pytest.raises(InputError, match=r"FILE\.html"):
        Target.of("report.pdf")


# --- a file that somebody hands over


def test_a_file_alone_supports_what_it_holds(full):
    found = review(full.vectors)
    row = found.at("joy", Site(3))
    assert row.redundancy.r2 > 0.9 and row.norms.ratio > 0
    assert "--model and --data" in row.missing["held_out"] and "give --model" in row.missing["neuron"]
    assert {v.words for v in found.verdicts} == {"not judged"}
    page(found)


def test_on_its_own_corpus_the_method_is_refitted(full, engine, report):
    found = review(full.vectors, engine, Corpus(full.contrasts))
    assert found.at("joy", Site(2)).held_out == report.at("joy", Site(2)).held_out
    assert any("those that the file was made from" in n for n in found.notes)


def test_on_other_texts_the_finished_vector_is_read(full, engine):
    other = Contrast("anger", texts("grumpy", "furious"), texts("calm", "tall"))
    found = review(full.vectors.only(["anger"]), engine, Corpus((other,)))
    row = found.at("anger", Site(3))
    assert row.held_out.refitted is False and row.split_half is not None
    assert any("not the corpus" in n for n in found.notes)


def test_a_foreign_file_says_that_its_making_is_unknown(full, engine):
    foreign = dataclasses.replace(full.vectors.only(["anger"]), origin=Origin())
    found = review(foreign, engine, Corpus((ANGER,)))
    row = found.at("anger", Site(3))
    assert (
        row.auc == 1
        and "not known" in row.missing["split_half"]
        and any("flattered" in n for n in found.notes)
    )
    page(found)


def test_centred_pca_is_compared_with_uncentred_on_these_data(engine):
    with pytest.warns(UserWarning, match="centres the differences"):
        full = extract_full(engine, JOY, "pca_diff", layers="1-2", needs=NEEDS, beside=BESIDE)
    found = assess(full, engine, permutations=2)
    area = found.judged("joy").auc
    assert area < 1 and any("centring hurts" in n and f"{area:.2f} by pca_diff" in n for n in found.notes)


def test_a_baseline_is_not_judged(engine):
    full = extract_full(engine, JOY, "random", layers=3, needs=NEEDS, beside=BESIDE)
    found = assess(full, engine, permutations=2)
    assert found.verdicts[0].words == "not judged" and "baseline" in found.verdicts[0].reasons[0]


# --- a real model


@pytest.mark.engine
def test_on_a_real_model(shared_models, shared_data):
    from trimtab import data

    engine = load_engine(shared_models / "stories260K" / "hf")
    (given,) = data.load(shared_data / "repe" / "emotions" / "happiness.json")
    few = Contrast(given.concept, given.positive[:40], given.negative[:40])
    pool = [*few.positive, *few.negative]
    random.Random(0).shuffle(pool)
    null = Contrast("null", pool[:40], pool[40:])
    full = extract_full(engine, [few, null], layers="1,3", needs=NEEDS, beside=(*BESIDE, "attn_out"))
    found = assess(full, engine, permutations=20)
    assert verdict(found, "null").words == "rewrite the data"
    assert found.at("happiness", Site(1)).auc > found.at("null", Site(1)).auc
    for row, evidence in zip(found.of("happiness"), [full.evidence[0]] * 2):
        added = evidence[Site(row.site.layer, "attn_out")].mean
        along = (added["positive"] - added["negative"]) @ full.vectors.direction("happiness", row.site).unit
        assert sum(row.heads.share) == pytest.approx(1)
        assert sum(row.heads.written) == pytest.approx(along, rel=1e-3)
