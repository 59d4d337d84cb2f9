"""`trimtab inspect`: what a vector file holds, how strong it is, and which model it fits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.data import LAYOUTS
from trimtab.errors import InputError, UnknownName
from trimtab.safe_range import safe_ranges

from .frame import Desk, verb
from .library import library_option
from .models import glance, layer_words, model_options, open_engine, spoken_warnings
from .reports import Wanted, excluded

if TYPE_CHECKING:
    from trimtab.analysis.quality import Corpus, QualityReport
    from trimtab.directions import ConceptVectors
    from trimtab.sites import Site


@verb("inspect")
@click.argument("file")
@click.option(
    "--layers", default=None, help="Layers whose similarities are shown [default: near 60 % depth]."
)
@click.option("--model", default=None, help="Also check that the file fits this model (a folder).")
@click.option("--report", default=None, help="Write a quality report: FILE.html, FILE.json or a folder.")
@click.option(
    "--data", default=None, help="With --report: the corpus to judge the vectors on; needs --model."
)
@click.option(
    "--negatives", default=None, help="With --data: second file, for layouts of one concept per file."
)
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default=None, help="Layout of the corpus [default: seen]."
)
@click.option(
    "--exclude", default=None, help="With --data: examples to leave out, by id or as a file of ids."
)
@library_option
@model_options
def inspect(
    desk: Desk,
    file: str,
    layers: str | None,
    model: str | None,
    report: str | None,
    data: str | None,
    negatives: str | None,
    layout: str | None,
    exclude: str | None,
    engine: str,
    **options: Any,
) -> None:
    """Show what a vector file holds and which model it fits; with --report, whether to trust it."""
    from trimtab.sites import Site

    from .steering import check_fit, load_reference

    vectors = load_reference(file)
    if model is not None:
        check_fit(file, vectors, glance(model, engine), model)
    corpus = _corpus(vectors, report, model, data, negatives, layout, exclude)
    wanted = Wanted.of(report, None, Path(file))
    depth = vectors.origin.n_layers or max(s.layer for s in vectors.sites) + 1
    stream = "resid_post" if vectors.layers() else vectors.sites[0].stream
    shown = [Site(n, stream) for n in vectors.choose_layers(layers, depth, stream)]
    record = {"file": file, **describe(vectors), "similarity": {s.key: vectors.similarity(s) for s in shown}}
    if model is not None:
        record["fits"] = model
    quality = _quality(desk, vectors, corpus, model, engine, options) if wanted.any else None
    desk.result(*wanted.said(vectors, quality, record, _render(record, vectors, shown, depth)))


def _corpus(
    vectors: ConceptVectors,
    report: str | None,
    model: str | None,
    data: str | None,
    negatives: str | None,
    layout: str | None,
    exclude: str | None,
) -> Corpus | None:
    """The texts to judge on, checked before anything is loaded."""
    given = {"--data": data, "--negatives": negatives, "--layout": layout, "--exclude": exclude}
    for flag, value in given.items():
        if value is not None and report is None:
            raise InputError(f"{flag} is for a quality report; give --report FILE.html too")
        if value is not None and data is None:
            raise InputError(f"{flag} says something about a corpus; give it with --data")
    if data is None:
        return None
    if model is None:
        raise InputError("--data holds texts that a model must read; give --model too")
    from trimtab import data as sources
    from trimtab.analysis.quality import Corpus

    only = vectors.concepts[0] if len(vectors.concepts) == 1 else None
    whole = sources.load(data, negatives=negatives, concept=only, layout=layout)
    contrasts, kept = excluded(whole, exclude)
    shared = [c for c in contrasts if c.concept in vectors.concepts]
    if not shared:
        names = [c.concept for c in contrasts]
        raise UnknownName.of(
            "concept in this file", ", ".join(names), vectors.concepts, f"They stand in {data}."
        )
    return Corpus(tuple(shared), tuple(whole), kept)


def _quality(
    desk: Desk,
    vectors: ConceptVectors,
    corpus: Corpus | None,
    model: str | None,
    engine: str,
    options: dict[str, Any],
) -> QualityReport:
    from trimtab.analysis.quality import review

    if model is None:
        return review(vectors, seed=desk.seed)
    loaded = open_engine(desk, model, engine, **options)
    with spoken_warnings(desk), loaded as runner, desk.progress("assess") as bar:
        return review(vectors, runner, corpus, seed=desk.seed, progress=lambda *_: bar.advance(1))


def describe(vectors: ConceptVectors) -> dict[str, Any]:
    """Everything but the rows themselves."""
    return {
        "concepts": list(vectors.concepts),
        "hash": vectors.hash,
        "sites": [_site(vectors, s) for s in vectors.sites],
        "origin": asdict(vectors.origin),
        "calibration": dict(vectors.calibration),
        "safe_ranges": safe_ranges(vectors.calibration),
    }


def _site(vectors: ConceptVectors, site: Site) -> dict[str, Any]:
    table, typical = vectors.table(site), vectors.typical_norms.get(site)
    norms = [table.value("norms", i) for i in range(len(vectors.concepts))]
    return {
        "site": site.key,
        "layer": site.layer,
        "stream": site.stream,
        "width": table.vectors.shape[1],
        "fields": [name for name, _ in table.fields()],
        "typical_norm": typical,
        "norms": dict(zip(vectors.concepts, norms)),
        "norms_over_typical": {
            c: None if typical is None or n is None else n / typical for c, n in zip(vectors.concepts, norms)
        },
        **{
            name: {c: table.value(name, i) for i, c in enumerate(vectors.concepts)}
            for name in ("mean", "std")
        },
    }


def _render(record: dict[str, Any], vectors: ConceptVectors, shown: list[Site], depth: int) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from trimtab.formats.foreign import layer_names

    origin = {k: v for k, v in record["origin"].items() if v not in (None, {}, [])}
    title = [f"{record['file']}: {', '.join(vectors.concepts)}", f"content hash {vectors.hash}"]
    about = Table("", "", box=None, show_header=False, pad_edge=False)
    for key, value in origin.items():
        if isinstance(value, dict):  # what each site reads, and where, stands in the table of sites
            left_out = ("read_separation", "source")
            value = ", ".join(f"{k} {v}" for k, v in value.items() if k not in left_out)
        about.add_row(key, Text(str(value)))
    tabled = ("safe", "sign", "sweep")  # the ranges have a table; the rest is for machines, under --json
    calibration = ", ".join(f"{k} {v}" for k, v in vectors.calibration.items() if k not in tabled)
    steering = "" if "layer" in vectors.calibration else "no layer to steer at; run trimtab sweep"
    about.add_row("calibration", Text("\n".join(filter(None, (calibration, steering)))))
    theirs = {s.key: name for s, name in layer_names(vectors).items()}
    separation = vectors.origin.parameters.get("read_separation", {})
    head = ["site", "width", "typical norm", *(["separation"] if separation else []), "raw norm ÷ typical"]
    sites = Table(*head, *(["read as"] if theirs else []), box=None, pad_edge=False)
    for row in record["sites"]:
        ratios = row["norms_over_typical"].items()
        ratio = "  ".join(f"{c} {'?' if r is None else format(r, '.3f')}" for c, r in ratios)
        typical = "?" if row["typical_norm"] is None else f"{row['typical_norm']:.4g}"
        apart = separation.get(row["site"])
        told = [] if not separation else ["?" if apart is None else f"{apart:+.2f}"]
        named = [Text(theirs.get(row["site"], ""))] if theirs else []
        sites.add_row(row["site"], str(row["width"]), typical, *told, Text(ratio), *named)
    parts: list[Any] = [Text("\n".join(title)), Text(), about, Text(), sites]
    parts += [Text(), _safe(record["safe_ranges"], depth)]
    if len(vectors.concepts) > 1:
        for site in shown:
            parts += [Text(), _similarities(vectors, site, depth)]
    return Group(*parts)


def _safe(ranges: list[dict[str, Any]], depth: int) -> Any:
    """The calibrated safe ranges, with the limit that was kept and what it was measured on."""
    from rich.table import Table
    from rich.text import Text

    from trimtab.sites import Site

    if not ranges:
        return Text("safe range: not calibrated; trimtab calibrate measures it")
    columns = (
        "safe range of",
        "where",
        "operator",
        "from",
        "to",
        "limit",
        "positions",
        "prompts",
        "on model",
        "",
    )
    table = Table(*columns, box=None, pad_edge=False)
    for r in ranges:
        site = Site.from_key(r["site"])
        stream = "" if site.stream == "resid_post" else f" {site.stream}"
        limit = f"{r['limit']} ≤ {r['value']:g}" if "limit" in r else "?"
        marks = [
            word
            for key, word in (("reached", "not reached"), ("monotone", "not monotone"))
            if not r.get(key, True)
        ]
        model = str(r.get("model", "?")) + (f" at {str(r['revision'])[:8]}" if r.get("revision") else "")
        table.add_row(
            Text(r["concept"]), layer_words(site.layer, depth) + stream, r["operator"], f"{r['low']:.3g}",
            f"{r['high']:+.3g}", limit, str(r.get("positions", "?")), str(r.get("prompts", "?")), Text(model),
            ", ".join(marks),
        )  # fmt: skip
    return table


def _similarities(vectors: ConceptVectors, site: Site, depth: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in (f"cosine, {layer_words(site.layer, depth)}", *vectors.concepts):
        table.add_column(Text(head))
    for concept, row in zip(vectors.concepts, vectors.similarity(site)):
        table.add_row(Text(concept), *(f"{x:+.2f}" for x in row))
    return table
