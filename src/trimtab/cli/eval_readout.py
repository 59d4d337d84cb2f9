"""`trimtab eval readout`: does a direction read corpora it was not made from?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.extraction import known_names
from trimtab.records import finite

from . import run_reports
from .frame import Desk, verb
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.evaluation.readout.matrix import Matrix

    from .runs import Run


@verb("eval readout", runs=True)
@click.argument("model")
@click.argument("corpora", nargs=-1, required=True, metavar="NAME=PATH[:concept]...")
@click.option(
    "--also", multiple=True, metavar="MODEL", help="Another model to do the same on; may be repeated."
)
@click.option("--method", default="mean_diff", help="Extraction method that makes each direction.")
@click.option("--layers", default="all", help="Layers to read at, e.g. 30-80%.")
@click.option("--stream", default="resid_post", help="Stream to read.")
@click.option("--pooling", default=None, help="Read position [default: what each layout asks for].")
@model_options
def readout(desk: Desk, model: str, corpora: tuple[str, ...], engine: str, **flags: Any) -> None:
    """Does a direction read corpora it was not made from?

    Every corpus trains a direction that is read on all others, at every layer of every model. Beside the AUC stand
    what random directions reach, and controls: length, sentiment words, topic words.
    """
    from trimtab.evaluation.readout.matrix import matrix, states
    from trimtab.evaluation.readout.page import About, report
    from trimtab.recipes.vectors import choose_method, choose_sites
    from trimtab.sites import Site

    if flags["method"] not in known_names():
        raise InputError(f"--method {flags['method']!r} is none of {', '.join(known_names())}")
    method = choose_method(flags["method"], desk.seed)
    method.check_installed()
    named = dict(_corpus(c) for c in corpora)
    if len(named) < 2:
        raise InputError("give at least two corpora under different names: NAME=PATH NAME=PATH")
    models = list(dict.fromkeys([model, *flags["also"]]))
    called = {each: glance(each, engine).name for each in models}
    options = {k: flags[k] for k in ("dtype", "device")}
    hashes = {n: _texts_hash(c) for n, c in named.items()}
    entries: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    kept: dict[str, dict[str, str]] = {}
    with spoken_warnings(desk) as said:
        for each in models:
            with open_engine(desk, each, engine, **options) as runner:
                info = runner.info
                sites = choose_sites(info, flags["layers"], [flags["stream"]])
                # two models may share an id: the name that was asked for tells their runs apart
                identity = {"corpora": hashes, "model": info.id, "asked": each}
                with desk.run(f"{info.id}-readout", identity=identity, model=info) as run:
                    found = _kept(run)
                    if found is None:
                        found = matrix(states(runner, named, sites, flags["pooling"]), method, desk.seed)
                        run.finish(UNIT, {"entries": _entries(found), "verdicts": _verdicts(found)})
                    figures = {
                        "entries": [
                            {"model": each, **e, "depth": Site.from_key(e["site"]).layer / info.n_layers}
                            for e in _entries(found)
                        ],
                        "verdicts": [{"model": each, **v} for v in _verdicts(found)],
                    }
                    made = report(found, About(called[each], info.revision, method.name, desk.command))
                    page = run_reports.keep(desk, run, figures, made)
            entries += figures["entries"]
            verdicts += figures["verdicts"]
            kept[each] = {"run": str(run.folder), "report": page}
            _show_matrix(desk, found, each if len(models) > 1 else None)
    desk.result({
        "model": model, "models": models, "engine": engine, **kept[model], "runs": kept, "method": method.name,
        "corpora": {n: c.counts for n, c in named.items()},
        "entries": entries, "verdicts": verdicts, "warnings": list(said),
    })  # fmt: skip


def _show_matrix(desk: Desk, found: Matrix, model: str | None) -> None:
    """Per training corpus, every corpus at the layer that was chosen on it."""
    from rich.table import Table

    for v in found.verdicts:
        word = "a readout" if v.readout else f"no readout: does not hold on {', '.join(v.fails_on)}"
        where = f"trained on {v.train}, {v.site} (chosen on it)"
        title = f"{where}: {word}" if model is None else f"{model}, {where}: {word}"
        table = Table("read on", "AUC", "95 %", "random", "length", "sentiment", "topic", "", box=None, pad_edge=False,
                      title=title, title_justify="left")  # fmt: skip
        for e in (e for e in found.entries if e.train == v.train and e.site == v.site):
            mark = "own, by halves" if e.own else "holds" if e.holds else "does not hold"
            numbers = (e.random_high, *e.controls.values())
            table.add_row(
                e.unseen, f"{e.auc:.2f}", f"{e.low:.2f}–{e.high:.2f}", *(f"{x:.2f}" for x in numbers), mark
            )
        desk.print(table)


#: The whole matrix is one unit of a run: its states are read in one pass.
UNIT = {"readout": "matrix"}


def _texts_hash(contrast: Contrast) -> str:
    from trimtab.evaluation.scorers.corpus import text_of
    from trimtab.records import unit_key

    return unit_key([[text_of(t) for t in side] for side in (contrast.positive, contrast.negative)])


def _entries(found: Matrix) -> list[dict[str, Any]]:
    return [{**finite(e), "site": e.site.key, "holds": e.holds} for e in found.entries]


def _verdicts(found: Matrix) -> list[dict[str, Any]]:
    return [{**finite(v), "site": v.site.key} for v in found.verdicts]


def _kept(run: Run) -> Matrix | None:
    """The matrix of an earlier, equal run."""
    from trimtab.evaluation.readout.matrix import Entry, Matrix, Verdict
    from trimtab.records import unit_key
    from trimtab.sites import Site

    kept = run.done.get(unit_key(UNIT))
    if kept is None:
        return None
    rows = [{**e, "site": Site.from_key(e["site"])} for e in kept["entries"]]
    entries = tuple(Entry(**{k: v for k, v in e.items() if k != "holds"}) for e in rows)
    verdicts = tuple(
        Verdict(v["train"], Site.from_key(v["site"]), v["readout"], tuple(v["fails_on"]))
        for v in kept["verdicts"]
    )
    return Matrix(entries, verdicts)


def _corpus(text: str) -> tuple[str, Contrast]:
    """NAME=PATH or NAME=PATH:concept."""
    from trimtab.data import load

    name, equals, where = text.partition("=")
    if not equals or not name or not where:
        raise InputError(f"a corpus is NAME=PATH or NAME=PATH:concept, got {text!r}")
    concept = None
    if not Path(where).exists():
        where, _, concept = where.rpartition(":")
    found = load(where, concept=concept or None)
    if len(found) != 1:
        names = ", ".join(c.concept for c in found)
        raise InputError(
            f"{where} holds {len(found)} concepts; write {name}={where}:CONCEPT with one of: {names}"
        )
    return name, found[0]
