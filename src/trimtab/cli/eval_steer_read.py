"""`trimtab eval steer-read`: what else moves when one concept is steered?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.records import finite

from . import run_reports, steering
from .evaluating import continue_option, load_vectors, settings_of, with_norms
from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.items import Item
    from trimtab.evaluation.readout.cross import Cross
    from trimtab.evaluation.readout.cross_page import About
    from trimtab.sites import ModelInfo, Site

    from .runs import Run


@verb("eval steer-read", runs=True)
@click.argument("model")
@click.argument("vectors")
@click.option(
    "--prompts", type=click.Path(path_type=Path), required=True, help="Questions: .txt lines or JSON lines."
)
@click.option("--dose", type=float, default=0.5, help="Strength as a fraction of the typical residual norm.")
@click.option(
    "--steer-layer", default=None, help="Where to steer [default: the file's layer, else near 60 %]."
)
@click.option(
    "--read-layer", default=None, help="Where to read [default: where the file reads best, if later]."
)
@click.option("--concepts", default=None, help="Concepts, separated by commas [default: all].")
@click.option("--max-tokens", type=click.IntRange(1), default=24, help="Tokens of a reply.")
@continue_option
@click.option("--temperature", type=float, default=0.0, help="0 is greedy.")
@click.option("--random", type=click.IntRange(0), default=5, help="Random directions of the same dose.")
@click.option("--prefix", multiple=True, metavar="CONCEPT=WORDS", help="Words of the prompt baseline.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Use only the first N prompts.")
@library_option
@model_options
def steer_read(desk: Desk, model: str, vectors: str, engine: str, **flags: Any) -> None:
    """Steer each concept, read all of them in the same pass."""
    seen = glance(model, engine)
    path, loaded = load_vectors(vectors, seen, model)
    whole = loaded.hash
    if flags["concepts"]:
        loaded = loaded.only([c.strip() for c in flags["concepts"].split(",")])
    done = crossed(desk, model, engine, seen.name, path.stem, {vectors: loaded}, whole, flags)
    desk.print(table_of(done.found))
    for note in done.notes:
        desk.warn(note)
    desk.result({**done.record, "warnings": done.said})


@dataclass(frozen=True, eq=False)
class Crossed:
    """What a matrix was measured with and what it left: its run folder, and the record for machines."""

    found: Cross
    run: Run
    record: dict[str, Any]
    notes: tuple[str, ...]
    said: list[str]


def crossed(
    desk: Desk,
    model: str,
    engine: str,
    name: str,
    slug: str,
    files: Mapping[str, ConceptVectors],
    whole: str,
    flags: Mapping[str, Any],
    plain_loss: bool = False,
) -> Crossed:
    """Run the matrix in a run folder and write its report. Several `files` (reference → vectors) become one; `name` is
    what the model is called where it lies, `whole` the content hash that the report names; `plain_loss` keeps how
    likely the plain model finds each reply."""
    from trimtab.engines.requests import Sampling
    from trimtab.evaluation.fluency import PlainLoss
    from trimtab.evaluation.readout.cross import cross
    from trimtab.evaluation.readout.cross_page import notes, report
    from trimtab.evaluation.rollouts.questions import load_questions
    from trimtab.evaluation.scorers.projection import Projection

    from .sweep_bench import fluency, prompt_words

    if flags["dose"] == 0:
        raise InputError("--dose 0 steers nothing; give another one")
    given = settings_of(flags["prefix"], "--prefix")
    questions = load_questions(flags["prompts"])[: flags["limit"]]
    options = {k: flags[k] for k in ("dtype", "device")}
    sampling = Sampling(flags["max_tokens"], flags["temperature"], seed=desk.seed)
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        info = runner.info
        for reference, vectors in files.items():
            vectors.check_model(info)
            steering.check_source(desk, reference, vectors, info)
        steer, read = _sites(next(iter(files.values())), flags, info.n_layers)
        sites = list(dict.fromkeys((steer, read)))
        loaded = with_norms(runner, together({r: v.only(sites=sites) for r, v in files.items()}), desk.note)
        words = prompt_words(name, loaded.concepts, given)
        items = _items(questions, info)
        identity = {"vectors": loaded.hash, "items": [i.id for i in items], "sites": [s.key for s in sites],
                    "norms": [*loaded.typical_norms.values()], "model": info.id}  # fmt: skip
        with desk.run(slug, identity=identity, model=info) as run:
            total = len(items) * (1 + 2 * len(loaded.concepts) + 2 * flags["random"])
            with desk.progress("steer-read (replies)", total) as bar:
                found = cross(
                    runner, loaded, items, dose=flags["dose"], steer=steer, read=read,
                    fluency=PlainLoss() if plain_loss else fluency(runner, name, Projection(), run),
                    sampling=sampling, random=flags["random"], words=words, seed=desk.seed, ledger=run,
                    continue_to=flags["continue_to"], advance=bar.advance,
                )  # fmt: skip
            about = _about(desk, name, info, loaded, whole, found)
            told = notes(found, about)
            figures = _figures(found, told)
            page = run_reports.keep(desk, run, figures, report(found, about))
    record = {"model": model, "engine": engine, "run": str(run.folder), "report": page, **figures}
    return Crossed(found, run, record, told, list(said))


def together(files: Mapping[str, ConceptVectors]) -> ConceptVectors:
    """One file of all concepts; those of one name in several files are called FILE.concept."""
    from trimtab.algebra.merging import merge

    if len(files) == 1:
        return next(iter(files.values()))
    names = [c for v in files.values() for c in v.concepts]
    stems = {r: Path(r.split(":")[0]).stem for r in files}
    short = len(set(stems.values())) == len(files)
    return merge({stems[r] if short else r: v for r, v in files.items()}, prefix=len(set(names)) < len(names))


def _sites(vectors: ConceptVectors, flags: Mapping[str, Any], depth: int) -> tuple[Site, Site]:
    """Where to steer, and where to read: where the file reads best, if steering reaches that."""
    from trimtab.sites import Site

    steer = Site(vectors.choose_layers(flags["steer_layer"], depth)[0])
    if flags["read_layer"]:
        return steer, Site(vectors.choose_layers(flags["read_layer"], depth)[0])
    return steer, max(vectors.read_site(depth), steer)


def _items(questions: list[Any], info: ModelInfo) -> list[Item]:
    """Chats where the model has a template, else the bare texts."""
    from trimtab.evaluation.items import Item

    chat = info.template_hash is not None
    return [Item.of(list(q.messages) if chat else q.text, q.id) for q in questions]


def _about(
    desk: Desk, model: str, info: ModelInfo, vectors: ConceptVectors, whole: str, found: Cross
) -> About:
    """What the report says of the run; `whole` is the content hash of the file that was named."""
    from trimtab.evaluation.readout.cross_page import About
    from trimtab.evaluation.reporting.card import vector_words
    from trimtab.evaluation.reporting.ship import ship_of

    steer, read = found.steer_site, found.read_site
    ships = {c: s for c in vectors.concepts if (s := ship_of(vectors, c, [steer])) is not None}
    return About(
        model, info.revision, desk.command, run_reports.made_by(vectors),
        run_reports.where([steer.layer], info.n_layers, steer.stream),
        run_reports.where([read.layer], info.n_layers, read.stream),
        {c: vector_words(c, whole) for c in vectors.concepts}, ships, (("seed", str(desk.seed)),),
    )  # fmt: skip


def _figures(found: Cross, notes: tuple[str, ...]) -> dict[str, Any]:
    """Everything, for machines."""
    return finite({
        "steered": found.steered, "read": found.read, "change": found.change, "p": found.p, "null": found.null,
        "told": found.told,
        "unit": "z" if found.z else "coordinate", "steer": found.steer_site.key, "read_at": found.read_site.key,
        "dose": found.dose, "prompts": found.n, "own_is_strongest": found.strongest, "same_site": found.same_site,
        "fluency": found.fluency, "replies": found.replies, "examples": found.examples, "notes": notes,
    })  # fmt: skip


def table_of(found: Cross) -> Table:
    """The means; intervals stand in the report."""
    from rich.table import Table

    unit = "z" if found.z else "coordinate"
    where = f"steered at {found.steer_site} by dose {found.dose:g}, read at {found.read_site} ({unit})"
    table = Table("steered", *found.read, "tokens", "cut", box=None, pad_edge=False,
                  title=f"{where}, {found.n} prompts", title_justify="left")  # fmt: skip
    wrote = {r.name: r for r in found.replies}
    for name, row in zip(found.steered, found.change, strict=True):
        table.add_row(
            name, *(f"{e.mean:+.2f}" for e in row), f"{wrote[name].length:.1f}", f"{wrote[name].cut:.0%}"
        )
    for name, row in zip(found.steered, found.told):
        table.add_row(f"told {name}", *(f"{e.mean:+.2f}" for e in row))
    if found.null is not None:
        table.add_row("random ±", *(f"{a:+.2f}…{b:+.2f}" for a, b in found.null))
    return table
