"""`trimtab read`: what concept vectors say of existing texts, token by token."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError

from .frame import Desk, verb
from .models import glance, model_options, open_engine, spoken_warnings
from .places import check_writable
from .progress import counter

if TYPE_CHECKING:
    from trimtab.data.passages import Passage
    from trimtab.directions import ConceptVectors
    from trimtab.readouts import Readout
    from trimtab.recipes.transcripts import TokenReadings

    from .readings import Spans


@verb("read", output="JSONL file: one record for every token.")
@click.argument("vectors", metavar="VECTORS[:concept]")
@click.argument("texts", nargs=-1, metavar="[TEXTS]...")
@click.option("--text", "given", multiple=True, help="A text given here; may be repeated.")
@click.option("--model", default=None, help="Model that reads [default: the one the vectors came from].")
@click.option("--concepts", default=None, help="Concepts to read, separated by commas [default: all].")
@click.option("--layers", default=None, help="Layers to read at [default: where the file reads best].")
@click.option("--stream", default=None, help="Stream to read [default: resid_post, else the file's].")
@click.option("--z/--raw", "z", default=None, help="z-scores, or coordinates [default: z where stored].")
@click.option(
    "--align", type=click.Choice(["emit", "own"]), default="emit",
    help="State that stands for a token: the one that emitted it, or its own.",
)  # fmt: skip
@click.option("--top-spans", type=click.IntRange(0), default=5, help="Spans of highest mean, per concept.")
@click.option("--span-tokens", type=click.IntRange(1), default=5, help="Fewest tokens of a span.")
@click.option("--blocks", is_flag=True, help="Blank lines divide a .txt file or stdin into texts.")
@click.option(
    "--window", type=int, default=None, help="Read longer texts in overlapping windows of N tokens."
)
@click.option("--html", "page", type=click.Path(path_type=Path), default=None, help="Page to write.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@model_options
def read(
    desk: Desk,
    vectors: str,
    texts: tuple[str, ...],
    given: tuple[str, ...],
    model: str | None,
    align: str,
    window: int | None,
    blocks: bool,
    page: Path | None,
    output: Path | None,
    dry_run: bool,
    engine: str,
    **flags: Any,
) -> None:
    """Read existing texts with concept vectors, token by token.

    TEXTS are .txt, .jsonl or .json files (texts, {"messages"} or {"conversation"} records), folders, or - for stdin.
    """
    from . import readings, steering

    passages = _passages(texts, given, blocks)
    loaded = steering.load_reference(vectors)
    name = _model(loaded, vectors, model)
    seen = glance(name, engine)
    steering.check_fit(vectors, loaded, seen, name)
    readout = _readout(loaded, seen.n_layers, flags)
    for target in filter(None, (page, output)):
        check_writable(target)
    about = _about(vectors, loaded, name, align, readout)
    if dry_run:
        record = {"dry_run": True, **about, "texts": [p.name for p in passages], "settings": desk.settings}
        desk.result(record, text="\n".join(f"{k:9} {v}" for k, v in record.items() if k != "settings"))
        return
    started = time.monotonic()
    _check_alignment(desk, loaded, readout, vectors, align)
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, name, engine, **options) as runner:
        steering.check_source(desk, vectors, loaded, runner.info)
        found = _read(desk, runner, readout, passages, align, window)
        depth = runner.info.n_layers
    spans = _spans(found, flags["top_spans"], flags["span_tokens"])
    if output is not None:
        readings.write_tokens(desk, found, about, output)
    if page is not None:
        readings.write_page(desk, found, spans, about, page)
    record = {
        **about, "texts": [readings.text_record(r) for r in found],
        "top_spans": [{"concept": c, "site": s.key, "spans": list(t)} for (c, s), t in spans.items()],
        "files": [str(p) for p in (output, page) if p is not None], "warnings": list(said),
        "wall_s": time.monotonic() - started,
    }  # fmt: skip
    readings.show(desk, found, spans, depth)
    desk.result(record)


def _about(
    reference: str, vectors: ConceptVectors, model: str, align: str, readout: Readout
) -> dict[str, Any]:
    return {
        "vectors": reference,
        "hash": vectors.hash,
        "model": model,
        "align": align,
        "unit": "z" if readout.z else "coordinate",
        "sites": [s.key for s in readout.sites],
        "concepts": list(readout.concepts),
    }


def _passages(texts: Sequence[str], given: Sequence[str], blocks: bool) -> list[Passage]:
    """Every text that was named, from files, folders, stdin and flags; two of one name are told apart."""
    from trimtab.data.passages import Passage, load_passages, split_passages

    found = [Passage(f"--text {i + 1}" if len(given) > 1 else "--text", t) for i, t in enumerate(given)]
    for source in texts:
        if source == "-":
            found += split_passages(sys.stdin.read(), "stdin", blocks)
        else:
            found += load_passages(Path(source), blocks)
    if not found:
        raise InputError("nothing to read: name a file or folder of texts, - for stdin, or give --text '…'")
    names: dict[str, int] = {}
    for i, passage in enumerate(found):
        names[passage.name] = names.get(passage.name, 0) + 1
        if names[passage.name] > 1:
            found[i] = Passage(f"{passage.name} ({names[passage.name]})", passage.content)
    return found


def _model(vectors: ConceptVectors, reference: str, model: str | None) -> str:
    if model is not None:
        return model
    if vectors.origin.model is None:
        raise InputError(f"{reference} does not say which model it came from: name one with --model")
    return vectors.origin.model


def _readout(vectors: ConceptVectors, depth: int | None, flags: dict[str, Any]) -> Readout:
    """Rows at the sites that the flags name; what the file lacks is refused here, before a model loads."""
    from trimtab.readouts import Readout
    from trimtab.sites import Site

    names = flags["concepts"]
    concepts = None if names is None else [c.strip() for c in names.split(",") if c.strip()]
    if concepts == []:
        raise InputError("--concepts names none; write them separated by commas, or leave the flag out")
    deep = depth or vectors.origin.n_layers or max(s.layer for s in vectors.sites) + 1
    if flags["layers"] is None and flags["stream"] is None:
        sites = [vectors.read_site(deep)]
    else:
        stream = flags["stream"] or ("resid_post" if vectors.layers() else vectors.sites[0].stream)
        sites = [Site(n, stream) for n in vectors.choose_layers(flags["layers"], deep, stream)]
    z = flags["z"]
    if z is None:
        z = all(vectors.table(s).has_z for s in sites)
    return Readout.from_vectors(vectors, sites, concepts, z=z)


def _check_alignment(
    desk: Desk, vectors: ConceptVectors, readout: Readout, reference: str, align: str
) -> None:
    stored = vectors.origin.read_alignment
    if readout.z and stored != align:
        at = f"at the states that {stored}" if stored else "at an alignment that the file does not name"
        desk.warn(
            f"the mean and std of {reference} were measured {at}; with --align {align} z is off by a little"
        )


def _read(
    desk: Desk, runner: Any, readout: Readout, passages: list[Passage], align: str, window: int | None
) -> list[TokenReadings]:
    from trimtab.recipes.transcripts import read_texts

    with desk.progress("read") as bar:
        return read_texts(
            runner, readout, [p.content for p in passages],
            align=align, names=[p.name for p in passages], window=window, progress=counter(bar),
        )  # fmt: skip


def _spans(found: list[TokenReadings], count: int, least: int) -> Spans:
    from trimtab.recipes.spans import top_spans

    first = found[0]
    return {(c, s): top_spans(found, c, s, count, least) for s in first.sites for c in first.concepts}
