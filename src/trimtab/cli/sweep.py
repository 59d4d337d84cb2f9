"""`trimtab sweep`: which layer (stream, method, positions), what dose, and does it work?"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.extraction import DEFAULT

from . import run_reports
from . import sweep_output as said_of
from .evaluating import (
    choose_score,
    continue_option,
    item_options,
    load_vectors,
    read_given_items,
    score_options,
    settings_of,
    with_norms,
)
from .frame import Desk, verb
from .library import library_option
from .models import Glance, glance, model_options, open_engine, spoken_warnings
from .places import check_writable
from .sweep_bench import extracted, fluency, prompt_words, read_corpus, readout

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.cells import Cell
    from trimtab.evaluation.items import Item
    from trimtab.evaluation.sweep import Sweep

#: More layers than this are first tried in steps; the sweep then refines around the best.
COARSE = 12


@verb("sweep", output="Vector file to write with the chosen layer [default: FILE itself].", runs=True)
@click.argument("model")
@click.argument("file", required=False)
@click.option(
    "--data",
    default=None,
    help="Corpus to extract from instead of FILE (one pass for all methods), or of a baseline beside FILE.",
)
@click.option("--method", multiple=True, default=(DEFAULT,), help="Method, with --data; may be repeated.")
@click.option("--pooling", default=None, help="Tokens to read, with --data.")
@click.option("--concept", multiple=True, help="Concepts to sweep [default: all]; may be repeated.")
@click.option("--layers", default="all", help="Layers to try.")
@click.option("--step", type=int, default=None, help="Try every n-th layer first [default: about 12 layers].")
@click.option(
    "--window", multiple=True, type=int, default=(1,), help="Neighbouring layers that share a dose."
)
@click.option("--stream", multiple=True, default=("resid_post",), help="Stream to steer; may be repeated.")
@click.option("--modules", default=None, metavar="REGEX", help="Modules to steer instead, with --data.")
@click.option(
    "--union", is_flag=True, help="Try the streams or modules of a layer together, too, sharing the dose."
)
@click.option("--positions", multiple=True, default=("all",), help="Tokens to steer; may be repeated.")
@click.option("--doses", default="-0.4,0,0.2,0.4,0.6,0.8", help="Total doses, 0 is always among them.")
@click.option("--randoms", type=int, default=5, help="Random directions of the null band, at least 5.")
@click.option("--prefix", multiple=True, metavar="CONCEPT=WORDS", help="Words of the prompt baseline.")
@click.option("--no-refine", is_flag=True, help="Leave out the second look around the best cell.")
@click.option("--no-write", is_flag=True, help="Leave the vector file as it is.")
@click.option("--max-tokens", type=int, default=48, help="Most tokens of a reply.")
@continue_option
@click.option("--temperature", type=float, default=0.7, help="0 is greedy.")
@click.option("--top-p", type=float, default=0.9, help="Nucleus to sample from.")
@click.option("-n", "--samples", type=int, default=1, help="Replies per prompt and condition.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@item_options
@score_options
@library_option
@model_options
def sweep(
    desk: Desk, model: str, file: str | None, engine: str, output: Path | None, dry_run: bool, **flags: Any
) -> None:
    """Try every layer at fixed doses, choose one, and report on prompts that chose nothing.

    Give a vector FILE (or a name in the library), or --data CORPUS.
    """
    seen = glance(model, engine)
    ask = _Ask.of(desk, model, file, output, flags, seen)
    if dry_run:
        desk.result(*ask.planned())
        return
    started = time.monotonic()
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        files, baseline, excluded = ask.vectors_on(runner)
        choosing, reporting = ask.items_on(runner)
        identity = {"vectors": {m: v.hash for m, v in files.items()}, "items": [i.id for i in choosing + reporting],
                    "norms": {m: [*v.typical_norms.values()] for m, v in files.items()},
                    "baseline": None if baseline is None else baseline.hash}  # fmt: skip
        with desk.run(ask.slug, identity=identity, model=runner.info) as run:
            found, names = ask.swept(runner, files, baseline, choosing, reporting, run)
            figures = said_of.figures(found, files, excluded, names)
            facts = [("model", ask.name), ("items that chose", str(len(choosing))),
                     ("items reported on", str(len(reporting))),
                     *((f"left out {k}", v) for k, v in excluded.items())]  # fmt: skip
            made = said_of.report(found, desk, runner.info, ask.name, files, names, facts)
            report = run_reports.keep(desk, run, figures, made)
            target = ask.write(files, found, run.folder)
    record = {
        "model": model, "engine": engine, "run": str(run.folder), "report": report,
        "file": None if target is None else str(target), **said_of.short(figures), "warnings": list(said),
        "wall_s": time.monotonic() - started,
    }  # fmt: skip
    desk.result(record, text=said_of.table_of(found, files))
    desk.note(found.choice.reason)
    for where, why in excluded.items():
        desk.warn(f"left out {where}: {why}")
    for warning in said_of.warnings_of(found):
        desk.warn(warning)
    if found.final and baseline is None and DEFAULT not in files:
        desk.note("no mean difference stands beside: name the corpus with --data to have it as a baseline")
    desk.note(f"{found.tried} cells × concepts × doses tried; report: {report}")
    if target is not None:
        desk.note(f"wrote the chosen layer into {target}")


@dataclass(frozen=True, eq=False)
class _Ask:
    """What was asked for, checked before a model loads."""

    desk: Desk
    model: str
    name: str
    flags: dict[str, Any]
    doses: tuple[float, ...]
    positions: tuple[str, ...]
    words: dict[str, str]
    given: list[Item] | None
    target: Path | None
    slug: str
    file: ConceptVectors | None
    contrasts: list[Contrast]

    @classmethod
    def of(
        cls,
        desk: Desk,
        model: str,
        file: str | None,
        output: Path | None,
        flags: dict[str, Any],
        seen: Glance,
    ) -> _Ask:
        """Everything that can be refused early."""
        from trimtab import recipes

        from . import steering

        if file is None and flags["data"] is None:
            raise InputError("give a vector FILE, --data CORPUS, or both: the corpus then makes a baseline")
        if flags["randoms"] < 5:
            raise InputError(
                f"a null band needs 5 random directions or more, got --randoms {flags['randoms']}"
            )
        if any(w < 1 for w in flags["window"]) or (flags["step"] is not None and flags["step"] < 1):
            raise InputError("--window and --step are at least 1")
        doses = _doses(flags["doses"])
        positions = tuple(_canonical(steering.parse_positions(p)) for p in flags["positions"])
        given = read_given_items(flags["items"], flags["split"], flags["limit_items"])
        vectors, target = None, output
        concepts = flags["concept"]
        if file is not None:
            if flags["modules"] is not None:
                raise InputError("--modules chooses what is extracted; it needs --data CORPUS")
            path, vectors = load_vectors(file, seen, model)
            if concepts:
                vectors = vectors.only(concepts)
            target = None if flags["no_write"] else _target(output or path)
            slug = path.stem
        else:
            slug = Path(flags["data"]).stem
            target = None if output is None else _target(output)
        contrasts = []
        if flags["data"] is not None:
            wanted = concepts or (vectors.concepts if vectors else ())
            contrasts = read_corpus(desk, flags["data"], wanted, seen, every=vectors is None)
            for method in {DEFAULT, *(() if vectors else flags["method"])}:
                chosen = recipes.choose_method(method, desk.seed)
                recipes.check(contrasts, chosen, flags["stream"], flags["pooling"])
        names = vectors.concepts if vectors is not None else [c.concept for c in contrasts]
        words = prompt_words(seen.name, names, settings_of(flags["prefix"], "--prefix"))
        return cls(
            desk, model, seen.name, flags, doses, positions, words, given, target, slug, vectors, contrasts
        )

    @property
    def concepts(self) -> list[str]:
        """What is swept."""
        return list(self.file.concepts) if self.file is not None else [c.concept for c in self.contrasts]

    def planned(self) -> tuple[dict[str, Any], str]:
        """What a dry run says."""
        methods = [self.file.origin.method or "file"] if self.file is not None else list(self.flags["method"])
        record = {
            "dry_run": True, "model": self.model, "concepts": self.concepts, "methods": methods,
            "doses": list(self.doses), "positions": list(self.positions), "windows": list(self.flags["window"]),
            "items": None if self.given is None else len(self.given), "settings": self.desk.settings,
            "file": None if self.target is None else str(self.target),
        }  # fmt: skip
        return record, "\n".join(f"{k:10} {v}" for k, v in record.items() if k not in ("settings", "dry_run"))

    def vectors_on(
        self, runner: Engine
    ) -> tuple[dict[str, ConceptVectors], ConceptVectors | None, dict[str, str]]:
        """The files to sweep, with typical norms, the mean differences, and the sites that were left out and why."""
        from trimtab.recipes.modules import sites_of_modules
        from trimtab.recipes.several import finite_sites
        from trimtab.recipes.vectors import choose_sites
        from trimtab.sites import resolve_layers

        layers, info = self.flags["layers"], runner.info
        if self.file is not None:
            self.file.check_model(info)
            chosen = set(resolve_layers(layers, info.n_layers, auto=self.file.calibration.get("layer")))
            sites = [s for s in self.file.sites if s.layer in chosen and s.stream in self.flags["stream"]]
            if not sites:
                raise InputError(
                    f"the file has no rows at layers {layers} of {', '.join(self.flags['stream'])}; it has "
                    f"{', '.join(s.key for s in self.file.sites)}"
                )
        elif self.flags["modules"] is not None:
            sites = list(sites_of_modules(runner, self.flags["modules"], layers))
        else:
            sites = choose_sites(info, layers, self.flags["stream"])
        norms, bad = finite_sites(runner, sites)
        good = [s for s in sites if s in norms]
        if not good:
            raise InputError(f"no site is left: {next(iter(bad.values()))}")
        excluded = {s.key: why for s, why in bad.items()}
        made = partial(
            extracted, self.desk, runner, self.contrasts, sites=good, pooling=self.flags["pooling"]
        )
        if self.file is None:
            return *made(self.flags["method"]), excluded
        kept = with_norms(runner, self.file.only(sites=good), self.desk.note)
        baseline = made(())[1] if self.contrasts else None
        return {self.file.origin.method or "file": kept}, baseline, excluded

    def items_on(self, runner: Engine) -> tuple[list[Item], list[Item]]:
        """Items that choose and items that report."""
        from trimtab.evaluation.materials import PURPOSES, default_items

        if self.given is None:
            limit = self.flags["limit_items"] or 16
            choosing, reporting = (default_items(runner, self.name, p, limit) for p in PURPOSES)
            return choosing, reporting
        if len(self.given) < 8:
            self.desk.warn(f"only {len(self.given)} items: all of them choose, and none is left to report on")
            return self.given, []
        return self.given[::2], self.given[1::2]

    def swept(
        self,
        runner: Engine,
        files: dict[str, ConceptVectors],
        baseline: ConceptVectors | None,
        choosing: list[Item],
        reporting: list[Item],
        run: Any,
    ) -> tuple[Sweep, dict[str, str]]:
        """The sweep, and the names of its score and fluency."""
        from trimtab.engines.requests import Sampling
        from trimtab.evaluation.sweep import Bench, sweep

        f = self.flags
        score = choose_score(f["score"], f["score_set"], self.name, self.concepts, self.given, self.desk.seed)
        with self.desk.progress("sweep (samples)", None) as bar:
            bench = Bench(
                runner, files, tuple(self.concepts), score, fluency(runner, self.name, score, run),
                sampling=Sampling(f["max_tokens"], f["temperature"], f["top_p"], n=f["samples"]),
                readout=readout(files) if score.needs == "readings" else None,
                randoms=f["randoms"], continue_to=f["continue_to"], baseline=baseline, seed=self.desk.seed, ledger=run,
                advance=bar.advance,
            )  # fmt: skip
            cells, candidates = self.cells(files, runner.info.n_layers)
            found = sweep(
                bench,
                cells,
                candidates,
                choosing,
                reporting,
                self.doses,
                self.words,
                refine=not f["no_refine"],
            )
        return found, {"score": score.name, "fluency": bench.fluency.name}

    def cells(self, files: dict[str, ConceptVectors], n_layers: int) -> tuple[list[Cell], list[Cell]]:
        """The cells to try first, and all that there are."""
        from trimtab.evaluation.cells import grid

        have = sorted({s.layer for v in files.values() for s in v.sites})
        step = self.flags["step"] or max(1, math.ceil(len(have) / COARSE))
        start = (len(have) - 1) % step if step > 1 else 0  # the last layers are tried too
        windows, positions = self.flags["window"], self.positions
        everything = grid(files, have, windows, positions, self.flags["union"])
        first = set(have[start::step])
        return [c for c in everything if c.middle in first], everything

    def write(self, files: dict[str, ConceptVectors], found: Sweep, folder: Path) -> Path | None:
        """Save extracted vectors beside the run, and the choice into the file that was swept or asked for."""
        cell = found.choice.cell
        marks = {"sweep": found.choice.to_json()}
        if cell.stream == "resid_post":
            marks |= {"layer": cell.middle, "layers": list(cell.layers)}
        if self.file is None:
            (folder / "vectors").mkdir(exist_ok=True)
            for name, vectors in files.items():
                extra = marks if name == cell.method else {}
                saved = replace(vectors, calibration={**vectors.calibration, **extra})
                saved.save(folder / "vectors" / f"{name}.safetensors")
        if self.target is None:
            return None
        whole = files[cell.method] if self.file is None else _again(self.target, self.file)
        replace(whole, calibration={**whole.calibration, **marks}).save(self.target)
        return self.target


def _again(target: Path, file: ConceptVectors) -> ConceptVectors:
    """The whole file where the target is the one that was swept: other concepts and sites stay in it."""
    import warnings

    from trimtab import formats

    if not target.exists():
        return file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was loaded before, and said what it had to say
        whole = formats.load(target)
    same = set(file.concepts) <= set(whole.concepts) and set(file.sites) <= set(whole.sites)
    return whole if same else file


def _target(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise InputError(f"{path} cannot hold the choice; use -o NAME.safetensors, or --no-write")
    return check_writable(path)


def _doses(text: str) -> tuple[float, ...]:
    try:
        found = sorted({float(x) for x in text.split(",")})
    except ValueError:
        raise InputError(f"--doses is a list such as -0.4,0,0.2,0.4; got {text!r}") from None
    if not any(d > 0 for d in found) or not all(math.isfinite(d) for d in found):
        raise InputError(f"--doses needs at least one finite dose above 0, got {text!r}")
    return tuple(found)


def _canonical(positions: Any) -> str:
    return positions if isinstance(positions, str) else json.dumps(positions, sort_keys=True)
