"""From flags to a plan and back: references to vector files, the plan, what was applied."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import formats
from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import Positions, check_positions
from trimtab.sites import ModelInfo

from . import library
from .frame import Desk
from .models import Glance, layer_words

if TYPE_CHECKING:
    from trimtab.engines.base import Engine
    from trimtab.engines.requests import Receipt

#: Streams as wide as the model, which a configuration is enough to check.
_RESIDUAL = ("resid_pre", "resid_post", "attn_out", "mlp_out", "o", "down")


def load_reference(reference: str, folder: Path | None = None, **options: Any) -> ConceptVectors:
    """FILE or FILE:concept; a relative path is sought in `folder` first, then where the command runs, and a plain name
    in the library. `options` are those of `formats.load`.
    """
    found = library.locate(reference, folder)
    if found is not None:
        return formats.load(found, **options)
    file, colon, concept = reference.rpartition(":")
    found = library.locate(file, folder) if colon else None
    if found is not None:
        return formats.load(found, **options).only([concept])
    raise library.absent(file or reference)


def one_concept(reference: str, vectors: ConceptVectors) -> ConceptVectors:
    """A file to steer by must name one concept."""
    if len(vectors.concepts) > 1:
        raise InputError(
            f"{reference} holds {len(vectors.concepts)} concepts; write {reference}:CONCEPT with one of: "
            f"{', '.join(vectors.concepts)}"
        )
    return vectors


def parse_positions(text: str) -> Positions:
    """A name, `after=12`, `role=assistant`, or the JSON form."""
    key, equals, value = text.partition("=")
    if text.lstrip().startswith("{"):
        try:
            return check_positions(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"--positions {text!r} is not JSON: {error.msg}") from error
    if equals:
        return check_positions({key: int(value) if value.isdigit() else value})
    return check_positions(text)


def read_plan(path: str) -> SteeringPlan:
    """A plan in JSON or YAML; `vector` names files, as FILE or FILE:concept."""
    from trimtab.data.reading import mapping_of

    file = Path(path)
    if not file.is_file():
        raise FormatError(f"no such plan: {path}")
    return SteeringPlan.from_json(mapping_of(file))


def build(
    steer: Sequence[str],
    dose: float | None,
    scale: float | None,
    plan: str | None,
    library: dict[str, ConceptVectors],
    **placement: Any,
) -> SteeringPlan:
    """The plan of all flags: the file's placements first, then one `Add` per --steer. Fills `library`."""
    whole = SteeringPlan()
    if plan is not None:
        whole = read_plan(plan)
        for reference in _names(whole):
            library[reference] = one_concept(reference, load_reference(reference, Path(plan).parent))
    if not steer:
        if dose is not None or scale is not None:
            raise InputError("--dose and --scale need a vector: give --steer FILE")
        return whole
    if (dose is None) == (scale is None):
        raise InputError(
            "--steer needs exactly one of --dose (fraction of the typical residual norm, e.g. 0.5) and "
            "--scale "
            "(multiples of the vector's own norm)"
        )
    for reference in steer:
        library[reference] = one_concept(reference, load_reference(reference))
        whole |= SteeringPlan((Placement(Add(dose=dose, scale=scale), reference, **placement),))
    return whole


def _names(plan: SteeringPlan) -> list[str]:
    found = [v for p in plan.placements for v in (p.vector, p.gate.vector if p.gate else None)]
    return list(dict.fromkeys(v for v in found if isinstance(v, str)))


def chosen_layers(plan: SteeringPlan, library: Mapping[str, ConceptVectors], seen: Glance) -> list[str]:
    """What each placement will do and where; layers that a file or the model lacks are refused."""
    said = []
    for p in plan.placements:
        vectors = library.get(p.vector) if isinstance(p.vector, str) else None
        if vectors is not None:
            depth = seen.n_layers or vectors.origin.n_layers or max(s.layer for s in vectors.sites) + 1
            layers = vectors.choose_layers(p.layers, depth, p.stream)
            where = ", ".join(layer_words(n, depth) for n in layers)
            said.append(f"{p.op.op} {vectors.concepts[0]} at {where}")
    return said


def check_fit(reference: str, vectors: ConceptVectors, seen: Glance, model: str) -> None:
    """`ConceptVectors.check_model` on what the configuration alone tells."""
    depth, width = seen.n_layers, seen.hidden_size
    if depth is None or width is None:
        return
    widths = {s: width if s.stream in _RESIDUAL else t.vectors.shape[1] for s, t in vectors.tables.items()}
    try:
        vectors.check_model(ModelInfo(model, depth, width, widths))
    except InputError as error:
        raise type(error)(f"{reference} does not fit {model}: {error}") from None


def check_source(desk: Desk, reference: str, vectors: ConceptVectors, info: ModelInfo) -> None:
    """Warn where a file fits a model's size but was extracted from another one."""
    origin = vectors.origin.model
    if origin is None or origin == info.id:
        return
    if Path(origin).exists() and Path(info.id).exists() and Path(origin).samefile(info.id):
        return
    desk.warn(
        f"{reference} was extracted from {origin}, and this is {info.id}: the sizes fit, but its directions "
        "may "
        "mean nothing here"
    )


def fill_norms(
    engine: Engine, plan: SteeringPlan, library: Mapping[str, ConceptVectors]
) -> tuple[dict[str, ConceptVectors], list[str]]:
    """Measure the typical norms that a dose needs and a (foreign) file lacks; names the files it was done
    for.
    """
    from trimtab.recipes import typical_norms

    filled, done = dict(library), []
    for p in plan.placements:
        vectors = library.get(p.vector) if isinstance(p.vector, str) else None
        if vectors is None or not isinstance(p.op, Add) or p.op.dose is None:
            continue
        sites = [s for s in vectors.sites if s not in vectors.typical_norms]
        if sites and isinstance(p.vector, str):
            norms = {**vectors.typical_norms, **typical_norms(engine, sites)}
            filled[p.vector] = replace(vectors, typical_norms=norms)
            done.append(p.vector)
    return filled, done


# --- what was applied ------------------------------------------------------------------------------------------


def applied(receipt: Receipt) -> dict[str, Any]:
    """`steering_applied`: fingerprint, vectors, layers, total dose and scale (a list where there are several
    vectors), tokens steered, and the placements they are the totals of."""
    totals = _totals(receipt.sources)
    dose, scale = ([t[k] for t in totals.values()] for k in ("dose", "scale"))
    return {
        "fingerprint": receipt.fingerprint,
        "vectors": list(totals),
        "layers": sorted({s.layer for s in receipt.sites}),
        "dose": _single(dose),
        "scale": _single(scale),
        "tokens_steered": receipt.tokens_steered,
        "placements": [dict(s) for s in receipt.sources],
    }


def _single(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else values


def _totals(sources: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Per concept, the sum over its placements; None where a unit is unknown or the operator has none."""
    totals: dict[str, dict[str, float | None]] = {}
    for source in sources:
        here = totals.setdefault(str(source.get("concept", source["op"])), {"dose": None, "scale": None})
        for unit in here:
            value = source.get(f"{unit}_here")
            if value is None and source.get(unit) is not None:
                value = source[unit] * source.get("factor", 1.0) / source.get("layers", 1)
            if value is not None:
                here[unit] = (here[unit] or 0.0) + value
    return totals


def receipt_lines(receipt: Receipt, depth: int) -> list[str]:
    """The receipt for a reader: concepts, layers, dose and scale both, tokens, fingerprint."""
    if not receipt.sources:
        return ["not steered"]
    lines = []
    for concept, total in _totals(receipt.sources).items():
        mine = [s for s in receipt.sources if str(s.get("concept", s["op"])) == concept]
        layers = sorted({int(str(s["site"]).split(".")[0].removeprefix("layer_")) for s in mine})
        units = [f"{u} {total[u]:+.3g}" for u in ("dose", "scale") if total[u] is not None]
        where = ", ".join(layer_words(n, depth) for n in layers)
        lines.append(f"{mine[0]['op']} {concept} {' = '.join(units)} at {where}")
    lines.append(f"{receipt.tokens_steered} tokens steered, fingerprint {receipt.fingerprint}")
    return lines
