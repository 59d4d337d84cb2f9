"""`trimtab extract`: contrasting texts in, one vector file out."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.data import LAYOUTS
from trimtab.engines import DEFAULT as DEFAULT_ENGINE
from trimtab.errors import InputError
from trimtab.extraction import DEFAULT, METHODS, known_names
from trimtab.extraction.names import resolve

from .corpora import corpus_options
from .frame import Desk, verb
from .models import Glance, glance, layer_words, model_options, open_engine, spoken_warnings
from .places import check_manifest, check_writable
from .progress import counter
from .reports import Wanted, excluded

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.data.exclusion import Kept
    from trimtab.directions import ConceptVectors
    from trimtab.extraction.method import Method


class MethodName(click.Choice):
    """Our method names, shown as choices; the field's names are taken without being shown."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name as it was given: what it stands for is looked up where the knobs are."""
        if resolve(str(value))[0] in METHODS:
            return value
        near = difflib.get_close_matches(str(value), known_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return self.fail(f"{value!r} is not one of {', '.join(self.choices)}.{hint}", param, ctx)


@verb("extract", output="Vector file to write [default: <data>.safetensors].")
@click.argument("model")
@click.option("--data", required=True, help="Corpus, a file or a folder: see docs/corpora.md.")
@click.option("--negatives", default=None, help="Second file, for layouts of one concept per file.")
@click.option(
    "--concept",
    multiple=True,
    help="Concepts to extract [default: all], or a name for the only one; may be repeated.",
)
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default=None, help="Layout of the corpus [default: seen]."
)
@corpus_options
@click.option("--chat/--bare", default=None, help="Write messages or bare text [default: the model's].")
@click.option("--method", type=MethodName(sorted(METHODS)), default=DEFAULT, help="How a direction is found.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KNOB=VALUE",
    help="Set a knob of the method; may be repeated.",
)
@click.option("--layers", default="all", help="Layers to read: 12-16,18,-4,50%,40-60% or all.")
@click.option("--stream", multiple=True, default=("resid_post",), help="Stream to read; may be repeated.")
@click.option(
    "--modules",
    default=None,
    metavar="REGEX",
    help="Modules to read instead, e.g. 'layers\\.3\\.mlp\\.down_proj'.",
)
@click.option("--head", type=int, default=None, help="Keep one attention head; needs --stream head_out.")
@click.option(
    "--pooling", default=None, help="Tokens to read, e.g. last, last_content, mean_all [default: the data's]."
)
@click.option(
    "--exclude", default=None, help="Examples to leave out: ids as a report prints them, or a file of ids."
)
@click.option("--report", default=None, help="Also write a quality report: FILE.html, FILE.json or a folder.")
@click.option(
    "--as-readout", default=None, help="Folder for readout.safetensors, readout.json, quality.json."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@model_options
def extract(desk: Desk, model: str, engine: str, output: Path | None, dry_run: bool, **flags: Any) -> None:
    """Extract concept vectors from contrasting texts.

    MODEL is a folder, a hub id or "embedded".
    """
    from trimtab import recipes

    ask = _Ask.of(desk, model, engine, output, flags)
    if dry_run:
        desk.result(*ask.planned(desk))
        return
    started = time.monotonic()
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        with desk.progress("extract", ask.texts) as bar:
            full = recipes.extract_full(
                runner, ask.contrasts, ask.method, flags["layers"], flags["stream"], flags["pooling"], desk.seed,
                counter(bar), modules=flags["modules"], head=flags["head"], **ask.wanted.collect,
            )  # fmt: skip
        depth, found = runner.info.n_layers, full.vectors
        quality = ask.wanted.assess(desk, full, runner, ask.kept) if ask.wanted.any else None
    found.save(ask.target)
    said = [*ask.said, *said]
    record = _record(found, ask.target, model, engine, ask.contrasts, said)
    record |= {"wall_s": time.monotonic() - started}
    desk.result(*ask.wanted.said(found, quality, record, _summary(found, ask.target, depth)))
    _say_next(desk, found, ask.target, depth, model, engine)


@dataclass(frozen=True, eq=False)
class _Ask:
    """What was asked for, checked before a model loads; `kept` is what `--exclude` left, `said` what the data warned
    of."""

    model: str
    flags: dict[str, Any]
    seen: Glance
    contrasts: list[Contrast]
    kept: Kept | None
    method: Method
    target: Path
    wanted: Wanted
    said: list[str]

    @classmethod
    def of(cls, desk: Desk, model: str, engine: str, output: Path | None, flags: dict[str, Any]) -> _Ask:
        """Everything that can be refused early; what the data and the method's name say is said."""
        from trimtab import recipes
        from trimtab.sites import resolve_layers

        seen = glance(model, engine)
        with spoken_warnings(desk) as said:
            contrasts = _corpus(flags, seen)
        if seen.chat_template is False:
            _check_messages(contrasts, model)
        contrasts, kept = excluded(contrasts, flags["exclude"])
        method = recipes.choose_method(flags["method"], desk.seed, flags["settings"])
        recipes.check(contrasts, method, flags["stream"], flags["pooling"], desk.seed)
        seen.check_lengths(contrasts)
        _check_sites(flags["stream"], flags["modules"], flags["head"])
        folder = flags["as_readout"]
        target = _target(output or (Path(folder) / "readout.safetensors" if folder else None), flags["data"])
        wanted = Wanted.of(flags["report"], folder, target)
        # what is wrong with the wording is wrong at any depth
        resolve_layers(flags["layers"], seen.n_layers or 10_000)
        _say_method(desk, flags["method"], method)
        for note in dict.fromkeys(n for c in contrasts for n in c.notes):
            desk.note(note)
        return cls(model, flags, seen, contrasts, kept, method, target, wanted, said)

    @property
    def texts(self) -> int:
        """How many texts are read."""
        return sum(n for c in self.contrasts for n in c.counts.values())

    def planned(self, desk: Desk) -> tuple[dict[str, Any], str]:
        """What a dry run says."""
        from trimtab.sites import resolve_layers

        units = {i for c in self.contrasts for i in (*c.positive, *c.negative) if isinstance(i, str)}
        bare = not any(c.messages for c in self.contrasts)
        layers, depth, pooling = self.flags["layers"], self.seen.n_layers, self.flags["pooling"]
        record = {
            "dry_run": True,
            "model": self.model,
            "file": str(self.target),
            "method": self.method.name,
            "knobs": self.method.parameters,
            "concepts": {c.concept: {**c.counts, "paired": c.paired} for c in self.contrasts},
            "pooling": {c.concept: pooling or c.read_pooling for c in self.contrasts},
            "layers": list(resolve_layers(layers, depth)) if depth else layers,
            "streams": self.streams,
            "texts": self.texts,
            "tokens": self.seen.count_tokens(sorted(units)) if bare else None,
            "settings": desk.settings,
        }
        lines = [f"{k:9} {v}" for k, v in record.items() if k not in ("settings", "dry_run")]
        return record, "\n".join(lines)

    @property
    def streams(self) -> list[str]:
        """What is read, in words."""
        streams, modules, head = (self.flags[k] for k in ("stream", "modules", "head"))
        if head is not None:
            return [f"head {head} of {streams[0]}"]
        return list(streams) if modules is None else [f"modules {modules}"]


def _corpus(flags: dict[str, Any], seen: Glance) -> list[Contrast]:
    """The contrasts, written as messages where neither flag nor layout says otherwise and the model has a template."""
    from trimtab import data as sources

    chat = flags["chat"]
    if chat is None and sources.chat_follows_model(flags["data"], flags["layout"]):
        chat = seen.chat_template
    given = ("negatives", "concept", "layout", "questions", "strict", "min_positives", "against")
    return sources.load(
        flags["data"], chat=chat, prefixes=seen.token_prefixes(), **{k: flags[k] for k in given}
    )


def _say_method(desk: Desk, asked: str, chosen: Method) -> None:
    """What a name of the field stands for here."""
    if chosen.name != asked:
        brought = ", ".join(f"{k}={v}" for k, v in resolve(asked)[1].items())
        desk.note(f"{asked} is what {chosen.name} does{' with ' + brought if brought else ''}")


def _say_next(desk: Desk, found: ConceptVectors, target: Path, depth: int, model: str, engine: str) -> None:
    """Where the file reads best, and the command that steers with it."""
    if "read_reason" in found.calibration:
        site = found.read_site(depth)
        desk.note(f"reads best at {layer_words(site.layer, depth)}: {found.calibration['read_reason']}")
    first = found.sites[0].stream
    layer = found.choose_layers(None, depth, first)[0]
    desk.note(
        f"next: trimtab generate {model}{'' if engine == DEFAULT_ENGINE else f' --engine {engine}'} --prompt '…'"
        f" --steer {target}"
        f"{'' if len(found.concepts) == 1 else ':' + found.concepts[0]} --dose 0.5"
        f"{'' if first == 'resid_post' else f' --stream {first}'}   "
        f"(steers {layer_words(layer, depth)})"
    )


def _check_sites(streams: tuple[str, ...], modules: str | None, head: int | None) -> None:
    """Refuse flags that name sites in two ways."""
    from trimtab.recipes.modules import compile_modules

    if head is not None and (head < 0 or modules is not None or set(streams) != {"head_out"}):
        raise InputError(
            f"--head {head} keeps one head of --stream head_out, counted from 0; give that stream alone"
        )
    if modules is not None:
        compile_modules(modules)
        if streams != ("resid_post",):
            raise InputError("--modules and --stream both choose what is read; give one of them")


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
