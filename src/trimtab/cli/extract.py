"""`trimtab extract`: contrasting texts in, one vector file out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.data import LAYOUTS
from trimtab.errors import InputError
from trimtab.extraction import DEFAULT, METHODS

from .corpora import corpus_options
from .frame import Desk, verb
from .models import Glance, glance, layer_words, model_options, open_engine, spoken_warnings
from .places import check_manifest, check_writable

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Progress


@verb("extract", output="Vector file to write [default: <data>.safetensors].")
@click.argument("model")
@click.option("--data", required=True, help="Corpus, a file or a folder: see docs/corpora.md.")
@click.option("--negatives", default=None, help="Second file, for layouts of one concept per file.")
@click.option("--concept", default=None, help="Pick one concept of the corpus, or name its only one.")
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default=None, help="Layout of the corpus [default: seen]."
)
@corpus_options
@click.option("--chat/--bare", default=None, help="Write messages or bare text [default: the model's].")
@click.option(
    "--method", type=click.Choice(sorted(METHODS)), default=DEFAULT, help="How a direction is found."
)
@click.option("--layers", default="all", help="Layers to read: 12-16,18,-4,50%,40-60% or all.")
@click.option("--stream", multiple=True, default=("resid_post",), help="Stream to read; may be repeated.")
@click.option(
    "--pooling", default=None, help="Tokens to read, e.g. last, last_content, mean_all [default: the data's]."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@model_options
def extract(
    desk: Desk,
    model: str,
    data: str,
    negatives: str | None,
    concept: str | None,
    layout: str | None,
    questions: int | None,
    strict: bool,
    min_positives: int,
    chat: bool | None,
    method: str,
    layers: str,
    stream: tuple[str, ...],
    pooling: str | None,
    dry_run: bool,
    engine: str,
    output: Path | None,
    **options: Any,
) -> None:
    """Extract concept vectors from contrasting texts.

    MODEL is a folder, a hub id or "embedded".
    """
    from trimtab import data as sources
    from trimtab import recipes
    from trimtab.sites import resolve_layers

    seen = glance(model, engine)
    if chat is None and sources.chat_follows_model(data, layout):
        chat = seen.chat_template
    with spoken_warnings(desk) as said_of_data:
        contrasts = sources.load(
            data,
            negatives=negatives,
            concept=concept,
            layout=layout,
            chat=chat,
            questions=questions,
            prefixes=seen.token_prefixes(),
            strict=strict,
            min_positives=min_positives,
        )
    if seen.chat_template is False:
        _check_messages(contrasts, model)
    recipes.check(contrasts, method, stream, pooling, desk.seed)
    target = _target(output, data)
    resolve_layers(layers, seen.n_layers or 10_000)  # what is wrong with the wording is wrong at any depth
    for note in dict.fromkeys(n for c in contrasts for n in c.notes):
        desk.note(note)
    if dry_run:
        desk.result(*_plan(desk, model, target, contrasts, method, layers, stream, pooling, seen))
        return
    started = time.monotonic()
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        total = sum(n for c in contrasts for n in c.counts.values())
        with desk.progress("extract", total) as bar:
            found = recipes.extract(
                runner, contrasts, method, layers, stream, pooling, desk.seed, _counter(bar)
            )
        depth = runner.info.n_layers
    found.save(target)
    record = _record(found, target, model, engine, contrasts, [*said_of_data, *said]) | {
        "wall_s": time.monotonic() - started
    }
    desk.result(record, text=_summary(found, target, depth))
    layer = found.choose_layers(None, depth, found.sites[0].stream)[0]
    desk.note(
        f"next: trimtab generate {model} --prompt '…' --steer {target}"
        f"{'' if len(found.concepts) == 1 else ':' + found.concepts[0]} --dose 0.5   "
        f"(steers {layer_words(layer, depth)})"
    )


def _check_messages(contrasts: list[Contrast], model: str) -> None:
    for contrast in (c for c in contrasts if c.messages):
        raise InputError(
            f"the texts of {contrast.concept!r} are messages, and {model} has no chat template: use --bare where "
            "the layout can, or write bare texts"
        )


def _target(output: Path | None, data: str) -> Path:
    target = output or Path(f"{Path(data).resolve().stem}.safetensors")
    if target.suffix != ".safetensors":
        raise InputError(f"a vector file is called NAME.safetensors, got -o {target}")
    check_manifest(target)
    return check_writable(target)


def _counter(bar: Any) -> Progress:
    """Turn "done of total" into steps of a bar; each pass over the data starts at 0 again."""
    last = 0

    def count(done: int, total: int) -> None:
        nonlocal last
        bar.advance(done - last if done >= last else done)
        last = done

    return count


def _plan(
    desk: Desk,
    model: str,
    target: Path,
    contrasts: list[Contrast],
    method: str,
    layers: str,
    streams: tuple[str, ...],
    pooling: str | None,
    seen: Glance,
) -> tuple[dict[str, Any], str]:
    from trimtab.sites import resolve_layers

    units = {i for c in contrasts for i in (*c.positive, *c.negative) if isinstance(i, str)}
    tokens = seen.count_tokens(sorted(units)) if not any(c.messages for c in contrasts) else None
    record = {
        "dry_run": True,
        "model": model,
        "file": str(target),
        "method": method,
        "concepts": {c.concept: {**c.counts, "paired": c.paired} for c in contrasts},
        "pooling": {c.concept: pooling or c.read_pooling for c in contrasts},
        "layers": list(resolve_layers(layers, seen.n_layers)) if seen.n_layers else layers,
        "streams": list(streams),
        "texts": sum(n for c in contrasts for n in c.counts.values()),
        "tokens": tokens,
        "settings": desk.settings,
    }
    lines = [f"{k:9} {v}" for k, v in record.items() if k not in ("settings", "dry_run")]
    return record, "\n".join(lines)


def _record(
    found: ConceptVectors, target: Path, model: str, engine: str, contrasts: list[Contrast], said: list[str]
) -> dict[str, Any]:
    origin = found.origin
    return {
        "file": str(target),
        "manifest": str(target.with_suffix(".json")),
        "hash": found.hash,
        "model": model,
        "engine": engine,
        "method": origin.method,
        "pooling": origin.pooling,
        "concepts": list(found.concepts),
        "sites": [s.key for s in found.sites],
        "counts": dict(origin.counts),
        "norms": {c: {s.key: found.direction(c, s).norm for s in found.sites} for c in found.concepts},
        "typical_norms": {s.key: n for s, n in found.typical_norms.items()},
        "notes": list(dict.fromkeys(n for c in contrasts for n in c.notes)),
        "warnings": list(said),
    }


def _summary(found: ConceptVectors, target: Path, depth: int) -> str:
    origin, sites = found.origin, found.sites
    places = ", ".join(
        f"{stream} at {len(here)} of {depth} layers"
        for stream in dict.fromkeys(s.stream for s in sites)
        for here in [[s for s in sites if s.stream == stream]]
    )
    counted = ", ".join(f"{k} {n}" for k, n in origin.counts.items())
    return (
        f"wrote {target}: {', '.join(found.concepts)} by {origin.method}, read {origin.pooling}\n"
        f"{places}; texts: {counted}\ncontent hash {found.hash}"
    )
