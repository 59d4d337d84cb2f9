"""`trimtab convert`: any vector file in, one file out, both names of every layer said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError

from . import library
from .frame import Desk, verb
from .places import check_manifest, check_writable

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors

#: Flags that say what a foreign file does not (`formats.load`).
READING = ("layer", "convention", "key", "baseline", "baseline_key")
#: What a layer is called in each format that is written.
_WRITTEN = {
    "native": "{key}.vectors",
    "gguf": "direction.{layer}",
    "peft": "model.layers.{layer}.mlp.down_proj.lora_B.bias",
}


@verb("convert", output="File to write: NAME.safetensors (native) or NAME.gguf (control vector).")
@click.argument("files", nargs=-1, required=True, metavar="IN... [OUT]")
@click.option("--to-library", default=None, metavar="NAME", help="Write it into the library under this name.")
@click.option("--replace", is_flag=True, help="Write over a file that is there.")
@click.option("--layers", default="all", help="Layers to keep, by our numbers: 12-16,18,50%.")
@click.option("--concept", multiple=True, help="Concept to keep; may be repeated.")
@click.option("--rename", multiple=True, metavar="[OLD=]NEW", help="New name of a concept; may be repeated.")
@click.option("--prefix", is_flag=True, help="Call concepts FILE.concept where several files are merged.")
@click.option("--orthogonal-to", multiple=True, metavar="FILE[:concept]", help="Take this direction out.")
@click.option("--expr", multiple=True, metavar="TEXT", help="Sum to write instead: 'mood = happy - 0.5*sad'.")
@click.option("--layer", type=int, default=None, help="Layer of a file of one vector, as its makers count.")
@click.option(
    "--convention",
    type=click.Choice(["output", "input"]),
    default=None,
    help="What its makers count: output or input of a block.",
)
@click.option("--key", default=None, help="Which entry of a .pt dictionary, e.g. pos_neg_50.")
@click.option("--baseline", default=None, metavar="FILE", help="Mean activations to take away from a mean.")
@click.option("--baseline-key", default=None, help="Which entry of the baseline [default: default_1].")
@click.option("--model-hint", default=None, help="Model name inside a GGUF, which repeng asks for.")
@click.option(
    "--peft", default=None, metavar="MODEL", help="Write a PEFT adapter (a folder) for this model folder."
)
@click.option("--scale", type=float, default=None, help="Strength inside a PEFT adapter [default: 1].")
@library.library_option
def convert(
    desk: Desk, files: tuple[str, ...], output: Path | None, to_library: str | None, **flags: Any
) -> None:
    """Convert vector files, and do sums with them.

    Several files are merged. Order: keep layers, merge, take directions out, sum, keep concepts, rename.
    """
    from trimtab import formats
    from trimtab.formats.foreign import layer_names

    inputs, target = _target(files, output, to_library)
    kind, writing = _format(target, flags)
    _check_target(target, kind, flags["replace"])
    options = {k: flags[k] for k in READING}
    loaded = {reference: _read(reference, options, flags["layers"]) for reference in inputs}
    found = _computed(loaded, flags)
    formats.save(found, target, kind, **writing)
    theirs = [layer_names(v) for v in loaded.values()]
    layers = [
        {
            "site": s.key,
            "written_as": _WRITTEN[kind].format(key=s.key, layer=s.layer),
            "read_as": list(dict.fromkeys(names[s] for names in theirs if s in names)),
        }
        for s in found.sites
    ]
    record = {
        "file": str(target),
        "format": kind,
        "from": list(inputs),
        "concepts": list(found.concepts),
        "layers": layers,
        "method": found.origin.method,
        "hash": found.hash,
    }
    desk.result(record, text=_summary(record))


def _target(files: tuple[str, ...], output: Path | None, name: str | None) -> tuple[tuple[str, ...], Path]:
    """The inputs, and where to write: -o, the library, or the last of the files."""
    if output is not None and name is not None:
        raise InputError("give either -o or --to-library, not both")
    if name is not None:
        return files, library.target(name)
    if output is not None:
        return files, output
    if len(files) < 2:
        raise InputError("name the file to write: trimtab convert IN OUT, or -o OUT, or --to-library NAME")
    return files[:-1], Path(files[-1])


def _format(target: Path, flags: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The format to write, and the flags that its writer takes; a flag of another one is refused."""
    from trimtab.formats import SUFFIXES

    kind = "peft" if flags["peft"] is not None else SUFFIXES.get(target.suffix)
    if kind is None:
        raise InputError(
            f"vectors are written to NAME.safetensors (native) or NAME.gguf (control vector), got {target}"
        )
    if kind == "peft" and target.suffix in SUFFIXES:
        raise InputError(f"a PEFT adapter is a folder; {target} is named like a file")
    for flag, home in (("model_hint", "gguf"), ("scale", "peft")):
        if flags[flag] is not None and kind != home:
            raise InputError(
                f"--{flag.replace('_', '-')} is for {home} only, and {target} is {kind}; leave it out"
            )
    writing = {"model_hint": flags["model_hint"], "model": flags["peft"], "scale": flags["scale"]}
    return kind, {k: v for k, v in writing.items() if v is not None}


def _check_target(target: Path, kind: str, replace: bool) -> None:
    check_writable(target / "adapter_config.json" if kind == "peft" else target)
    if target.exists() and not replace:
        raise InputError(f"{target} is there already; add --replace to write over it")
    if kind == "native":
        check_manifest(target)


def _read(reference: str, options: dict[str, Any], layers: str) -> ConceptVectors:
    """One input, of which only `layers` are kept."""
    from .steering import load_reference

    return _layers(load_reference(reference, **options), layers, reference)


def _layers(vectors: ConceptVectors, spec: str, reference: str) -> ConceptVectors:
    from trimtab.sites import resolve_layers

    if spec == "all":
        return vectors
    depth = vectors.origin.n_layers
    if depth is None:
        if "%" in spec or any(p.strip().startswith("-") for p in spec.split(",")):
            raise InputError(
                f"{reference} does not say how many blocks its model has, so --layers {spec} has no meaning: give "
                "numbers"
            )
        depth = max(10_000, *(s.layer + 1 for s in vectors.sites))
    wanted = set(resolve_layers(spec, depth, auto=vectors.calibration.get("layer")))
    have = {s.layer for s in vectors.sites}
    if wanted - have:
        raise InputError(f"{reference} has no layers {sorted(wanted - have)}; it has {sorted(have)}")
    return vectors.only(sites=[s for s in vectors.sites if s.layer in wanted])


def _computed(loaded: dict[str, ConceptVectors], flags: dict[str, Any]) -> ConceptVectors:
    """Merge, Gram–Schmidt, sums, selection and names, in that order."""
    from trimtab import algebra

    from .steering import load_reference

    stems: dict[str, ConceptVectors] = {}
    for reference, vectors in loaded.items():
        stem = Path(reference.partition(":")[0]).stem
        stems[stem if stem not in stems else reference] = vectors
    found = algebra.merge(stems, prefix=flags["prefix"])
    if flags["orthogonal_to"]:
        found = found.orthogonalised([_at(found, load_reference(r), r) for r in flags["orthogonal_to"]])
    if flags["expr"]:
        sums = [algebra.evaluate(text, found) for text in flags["expr"]]
        found = algebra.merge({f"sum {i}": s for i, s in enumerate(sums)}) if len(sums) > 1 else sums[0]
    if flags["concept"]:
        found = found.only(list(flags["concept"]))
    for text in flags["rename"]:
        old, equals, new = text.partition("=")
        found = found.renamed({old: new} if equals else text)
    return found


def _at(vectors: ConceptVectors, other: ConceptVectors, reference: str) -> ConceptVectors:
    """`other` at the sites of `vectors`, all of which it must have."""
    missing = [s.key for s in vectors.sites if s not in other.tables]
    if missing:
        raise InputError(f"{reference} has no rows at {', '.join(missing)}: keep other --layers")
    return other.only(sites=vectors.sites)


def _summary(record: dict[str, Any]) -> str:
    lines = [f"wrote {record['file']}: {', '.join(record['concepts'])}", f"content hash {record['hash']}"]
    for row in record["layers"]:
        read = "; ".join(row["read_as"])
        lines.append(f"{row['site']:12} written as {row['written_as']}{f', read as {read}' if read else ''}")
    return "\n".join(lines)
