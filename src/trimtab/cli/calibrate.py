"""`trimtab calibrate`: how far a vector may be pushed before the text suffers, written into its file."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError

from . import run_reports
from .evaluating import (
    choose_score,
    item_options,
    load_vectors,
    read_given_items,
    score_options,
    with_norms,
)
from .frame import Desk, verb
from .library import library_option
from .models import glance, layer_words, model_options, open_engine, spoken_warnings
from .places import check_writable

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.calibration import Found, Search
    from trimtab.evaluation.calibration_page import About
    from trimtab.evaluation.items import Item
    from trimtab.evaluation.limits import Limit
    from trimtab.evaluation.scorers.scorer import Scorer
    from trimtab.evaluation.sign_check import SignCheck

#: Share of the prompts that the limit is solved on; the signs are checked on the rest.
SOLVE = 1 / 2


@verb("calibrate", output="Vector file to write [default: the file itself].", runs=True)
@click.argument("model")
@click.argument("file")
@click.option("--layers", default="all", help="Layers to calibrate, among those of the file.")
@click.option("--stream", default="resid_post", help="Stream to calibrate.")
@click.option(
    "--operator",
    multiple=True,
    default=("add",),
    help="add, add-renormalised, ablate, cap or pin; may be repeated.",
)
@click.option(
    "--limit",
    default="kl_p95",
    metavar="NAME[=NUMBER]",
    help="kl_p95, kl_mean, delta_nll, repetition, coherence or invalid, with how much is allowed.",
)
@click.option("--reference", default=None, help="Text file, one text per line, for the limit coherence.")
@click.option("--positions", default="all", help="Tokens that are steered, as in generate.")
@click.option("--no-sign", is_flag=True, help="Leave out the behavioural check of the sign.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@item_options
@score_options
@library_option
@model_options
def calibrate(
    desk: Desk, model: str, file: str, engine: str, output: Path | None, dry_run: bool, **flags: Any
) -> None:
    """Find how far the vectors of FILE may be pushed on MODEL, to both sides, and store it in the file.

    FILE is a vector file or a name in the library, with :concept for one of its concepts.
    """
    from trimtab.evaluation import calibration_page
    from trimtab.evaluation.calibration import Search

    from . import steering

    seen = glance(model, engine)
    path, vectors = load_vectors(file, seen, model)
    target = _target(output, path)
    positions = steering.parse_positions(flags["positions"])
    given = read_given_items(flags["items"], flags["split"], flags["limit_items"])
    limit = _limit(flags["limit"], seen.name, flags["reference"])
    depth = seen.n_layers or vectors.origin.n_layers or max(s.layer for s in vectors.sites) + 1
    layers = vectors.choose_layers(flags["layers"], depth, flags["stream"])
    wanted = _searches(vectors, layers, flags["stream"], flags["operator"], positions)
    if dry_run:
        _dry(desk, model, target, wanted, limit)
        return
    started = time.monotonic()
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        steering.check_source(desk, file, vectors, runner.info)
        vectors = with_norms(runner, vectors, desk.note)
        wanted = [Search(vectors.only([s.concept]), s.site, s.operator, s.sign, s.positions) for s in wanted]
        items = _items(runner, seen.name, given, flags["limit_items"])
        cut = len(items) if flags["no_sign"] else max(1, round(SOLVE * len(items)))
        receipt = _receipt(runner, limit, items[:cut], flags["positions"])
        identity = {"vectors": vectors.hash, "items": [i.id for i in items], "norms": _norms(vectors)}
        with desk.run(path.stem, identity=identity, model=runner.info) as run:
            found = _solve(desk, run, runner, wanted, limit, items[:cut])
            signs: list[SignCheck] = []
            if not flags["no_sign"] and len(items) > cut + 1:
                score = choose_score(
                    flags["score"], flags["score_set"], seen.name, vectors.concepts, given, desk.seed
                )
                signs = _signs(runner, vectors, wanted, found, items[cut:], score, positions, desk.seed)
            figures = _figures(wanted, found, limit, signs, receipt)
            about = _about(desk, seen.name, limit, receipt, vectors, score.name if signs else "")
            report = run_reports.keep(
                desk, run, figures, calibration_page.report(wanted, found, signs, about)
            )
        result = _written(vectors, wanted, found, signs, receipt, target, path)
    record = {
        "file": str(result), "model": model, "engine": engine, "run": str(run.folder), "report": report, **figures,
        "warnings": list(said),
        "wall_s": time.monotonic() - started,
    }  # fmt: skip
    desk.result(record, text=_table(wanted, found, limit, depth))
    for check in signs:
        d = check.difference
        word = {"right": "pushes towards it", "reversed": "pushes AWAY from it", "not told": "not told apart"}
        where = f"dose {check.high:+.2g} less {check.low:+.2g} at {check.site}"
        line = (
            f"sign of {check.concept}: + {word[check.verdict]} ({score.name} {d.mean:+.3f} [{d.low:+.3f}, "
            f"{d.high:+.3f}], n = {d.n}, p = {check.p:.2g}, {where})"
        )
        (desk.warn if check.verdict == "reversed" else desk.note)(line)
    desk.note(f"wrote {result}; limits are warned of when a plan goes beyond them")


def _about(
    desk: Desk, model: str, limit: Limit, receipt: dict[str, Any], vectors: ConceptVectors, score: str
) -> About:
    """What the report says of the run."""
    from trimtab.evaluation.calibration_page import About
    from trimtab.evaluation.reporting.card import vector_words

    named = {c: vector_words(c, vectors.hash) for c in vectors.concepts}
    made_by = run_reports.made_by(vectors)
    return About(model, limit.name, limit.limit, limit.unit, receipt, desk.command, score, named, made_by)


def _target(output: Path | None, path: Path) -> Path:
    """Where the calibrated file goes: back, where it is a native file."""
    if output is None and path.suffix != ".safetensors":
        raise InputError(f"{path} cannot hold a calibration; name a file to write with -o NAME.safetensors")
    if output is not None and output.suffix != ".safetensors":
        raise InputError(f"a vector file is called NAME.safetensors, got -o {output}")
    return check_writable(output or path)


def _limit(text: str, model: str, reference: str | None) -> Limit:
    from trimtab import embedded
    from trimtab.evaluation.coherence import Reference
    from trimtab.evaluation.limits import limit_of

    limit = limit_of(text)
    if limit.name != "coherence":
        if reference is not None:
            raise InputError(f"--reference belongs to --limit coherence, not to {limit.name}")
        return limit
    if reference is not None:
        lines = Path(reference).read_text(encoding="utf-8").splitlines()
        return limit_of(text, reference=Reference.from_texts(lines))
    if model != "embedded":
        raise InputError("--limit coherence needs --reference FILE: text that the model writes well")
    return limit_of(text, reference=Reference.load(embedded.data("trigrams.npz")))


def _searches(
    vectors: ConceptVectors, layers: Sequence[int], stream: str, operators: Sequence[str], positions: Any
) -> list[Search]:
    from trimtab.evaluation.calibration import searches
    from trimtab.sites import Site

    return searches(vectors, [Site(n, stream) for n in layers], operators, positions)


def _dry(desk: Desk, model: str, target: Path, wanted: Sequence[Search], limit: Limit) -> None:
    from trimtab.evaluation.calibration import points_of

    record = {
        "dry_run": True, "model": model, "file": str(target), "searches": [s.name for s in wanted],
        "limit": {"name": limit.name, "value": limit.limit}, "points": points_of(len(wanted)),
        "settings": desk.settings,
    }  # fmt: skip
    text = f"{len(wanted)} searches for {limit.name} = {limit.limit:g} {limit.unit}, at most {record['points']} points"
    desk.result(record, text=f"{text}\nwould write {target}")


def _items(runner: Engine, model: str, given: list[Item] | None, limit: int | None) -> list[Item]:
    from trimtab.evaluation.materials import default_items

    return given if given is not None else default_items(runner, model, "choose", limit or 24)


def _receipt(runner: Engine, limit: Limit, items: Sequence[Item], positions: str) -> dict[str, Any]:
    from trimtab.records import unit_key

    return {
        "limit": limit.name, "value": limit.limit, "positions": positions, "prompts": len(items),
        "prompts_hash": unit_key([i.id for i in items]), "model": runner.info.id, "revision": runner.info.revision,
    }  # fmt: skip


def _norms(vectors: ConceptVectors) -> dict[str, float]:
    return {s.key: n for s, n in vectors.typical_norms.items()}


def _solve(
    desk: Desk, run: Any, runner: Engine, wanted: Sequence[Search], limit: Limit, items: Sequence[Item]
) -> list[Found]:
    """Answers of all searches, in shared batches; points of an earlier, interrupted run come from its folder."""
    from trimtab.evaluation.calibration import points_of, solve

    def unit(search: Search, strength: float) -> dict[str, Any]:
        return {"search": search.name, "limit": [limit.name, limit.limit], "strength": strength}

    def keep(i: int, strength: float, cost: float) -> None:
        point = {"search": wanted[i].name, "strength": strength, "cost": cost}
        run.finish(unit(wanted[i], strength), point)

    with desk.progress("calibrate (points)", points_of(len(wanted))) as bar:
        return solve(
            runner, wanted, limit, [i.encode(runner) for i in items],
            advance=bar.advance, known=_known(run, wanted, unit), keep=keep,
        )  # fmt: skip


def _known(
    run: Any, wanted: Sequence[Search], unit: Callable[[Search, float], dict[str, Any]]
) -> list[dict[float, float]]:
    """Measured points of every search in a run folder, strength → cost; a cost that was not finite is null there."""
    from trimtab.records import unit_key

    known: list[dict[float, float]] = [{} for _ in wanted]
    places = {s.name: i for i, s in enumerate(wanted)}
    for row in run.done.values():
        i, strength = places.get(row.get("search")), row.get("strength")
        if i is not None and strength is not None and row["key"] == unit_key(unit(wanted[i], strength)):
            known[i][strength] = math.inf if row["cost"] is None else row["cost"]
    return known


def _signs(
    runner: Engine,
    vectors: ConceptVectors,
    wanted: Sequence[Search],
    found: Sequence[Found],
    items: Sequence[Item],
    score: Scorer,
    positions: Any,
    seed: int,
) -> list[SignCheck]:
    """Each concept at both ends of its range, at the layer nearest to where it would be steered."""
    from trimtab.engines.requests import Sampling
    from trimtab.evaluation.sign_check import check_signs
    from trimtab.readouts import Readout
    from trimtab.sites import Site

    doses: dict[str, tuple[Site, float, float]] = {}
    steer = vectors.choose_layers(None, runner.info.n_layers, wanted[0].site.stream)[0]
    for concept in vectors.concepts:
        both: dict[Site, dict[int, float]] = {}
        for search, answer in zip(wanted, found, strict=True):
            if search.concept == concept and search.operator == "add":
                both.setdefault(search.site, {})[search.sign] = answer.strength
        usable = {s: v for s, v in both.items() if min(v.values()) > 0}
        if usable:
            site = min(usable, key=lambda s: abs(s.layer - steer))
            doses[concept] = (site, -usable[site][-1], usable[site][1])
    if not doses:
        return []
    readout = None
    if score.needs == "readings":
        deepest = max(s for s in vectors.sites if s.stream == "resid_post")
        readout = Readout.from_vectors(vectors, [deepest])
    sampling = Sampling(max_tokens=32, temperature=0.7, top_p=0.9, n=4)
    return check_signs(
        runner, vectors, doses, items, score,
        sampling=sampling, positions=positions, readout=readout, seed=seed,
    )  # fmt: skip


def _figures(
    wanted: Sequence[Search],
    found: Sequence[Found],
    limit: Limit,
    signs: Sequence[Any],
    receipt: dict[str, Any],
) -> dict[str, Any]:
    ranges = [
        {
            "concept": s.concept, "site": s.site.key, "operator": s.operator, "sign": s.sign,
            "strength": f.strength, "cost": f.cost, "half_cost": f.half_cost, "reached": f.reached,
            "monotone": f.monotone,
        }
        for s, f in zip(wanted, found, strict=True)
    ]  # fmt: skip
    return {
        "of": receipt,
        "unit": limit.unit,
        "ranges": ranges,
        "signs": {c.concept: c.to_json() for c in signs},
    }


def _written(
    vectors: ConceptVectors,
    wanted: Sequence[Search],
    found: Sequence[Found],
    signs: Sequence[Any],
    receipt: dict[str, Any],
    target: Path,
    path: Path,
) -> Path:
    """Save the file; where only some of its concepts were calibrated the others stay in it."""
    from trimtab import formats
    from trimtab.evaluation.calibration import calibrated

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was loaded before, and said what it had to say
        whole = formats.load(path)
    whole = replace(whole, typical_norms={**whole.typical_norms, **vectors.typical_norms})
    result = calibrated(whole, wanted, found, receipt)
    if signs:
        told = {**result.calibration.get("sign", {}), **{c.concept: c.to_json() for c in signs}}
        result = replace(result, calibration={**result.calibration, "sign": told})
    result.save(target)
    return target


def _table(wanted: Sequence[Search], found: Sequence[Found], limit: Limit, depth: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    sides: dict[tuple[str, str, str], dict[int, Found]] = {}
    where: dict[str, str] = {}
    for s, f in zip(wanted, found, strict=True):
        sides.setdefault((s.concept, s.site.key, s.operator), {})[s.sign] = f
        stream = "" if s.site.stream == "resid_post" else f" {s.site.stream}"
        where[s.site.key] = layer_words(s.site.layer, depth) + stream
    columns = ("concept", "where", "operator", "safe from", "to", f"{limit.name} there", "at half", "")
    table = Table(*columns, box=None, pad_edge=False, title=f"{limit.name} ≤ {limit.limit:g} {limit.unit}")
    for (concept, site, operator), both in sides.items():
        up, down = both[1], both.get(-1)
        worst = max(both.values(), key=lambda f: f.cost)
        marks = [w for w, bad in (("not reached", not all(f.reached for f in both.values())),
                                  ("not monotone", not all(f.monotone for f in both.values()))) if bad]  # fmt: skip
        table.add_row(
            Text(concept), where[site], operator, f"{-down.strength:.3g}" if down else "", f"{up.strength:+.3g}",
            f"{worst.cost:.3g}", f"{worst.half_cost:.3g}", ", ".join(marks),
        )  # fmt: skip
    return table
