"""`trimtab generate`: text from a model, steered and read by concept vectors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError, UnknownName

from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings
from .rollouts import rollout_options, rollouts

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.requests import PromptLike, Sample, Sampling
    from trimtab.plans import SteeringPlan
    from trimtab.readouts import Readings, Readout
    from trimtab.sites import ModelInfo


@verb("generate", output="With --dataset: file of all replies, .jsonl or .parquet.", runs=True)
@click.argument("model")
@click.option("--prompt", default=None, help="Text to continue, or the user's turn with --chat or --system.")
@click.option("--messages", default=None, help="Chat messages: JSON, or a .json file with a list of them.")
@click.option("--system", default=None, help="System message; implies --chat.")
@click.option("--chat", is_flag=True, help="Put the prompt into the model's chat template.")
@click.option(
    "--steer",
    multiple=True,
    metavar="FILE[:concept]",
    help="File, or name in the library, to add; may be repeated.",
)
@click.option("--dose", type=float, default=None, help="Strength as a fraction of the typical residual norm.")
@click.option("--scale", type=float, default=None, help="Strength in multiples of the vector's own norm.")
@click.option(
    "--layers", default=None, help="Where to steer [default: the file's layer, else near 60 % depth]."
)
@click.option("--stream", default="resid_post", help="Stream to steer.")
@click.option(
    "--positions", default="all", help="all, prompt, generated, last_prompt, after=N, role=NAME or JSON."
)
@click.option("--per-layer", is_flag=True, help="Give every layer the whole strength instead of its share.")
@click.option("--plan", default=None, metavar="FILE", help="A plan in YAML or JSON, applied before --steer.")
@click.option("--read", default=None, metavar="FILE[:concept]", help="Vectors to read each token with.")
@click.option("--max-tokens", type=int, default=64, help="Most tokens to generate.")
@click.option("--temperature", type=float, default=0.0, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, help="Nucleus to sample from.")
@click.option("--top-k", type=int, default=0, help="Most likely tokens to sample from; 0 is all.")
@click.option("-n", "--samples", type=int, default=1, help="How many samples.")
@click.option("--stop", multiple=True, help="End at this text; may be repeated.")
@rollout_options
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@library_option
@model_options
def generate(desk: Desk, model: str, engine: str, output: Path | None, dry_run: bool, **flags: Any) -> None:
    """Generate text, steered and read by concept vectors.

    MODEL is a folder, a hub id or "embedded". With --dataset: every question under every vector and scale.
    """
    if flags["dataset"] is not None:
        rollouts(desk, model, engine, output, dry_run, flags)
        return
    given = (output, flags["scales"], flags["limit"], flags["continue_to"])
    if any(given) or flags["match_norm"] != "learned":
        raise InputError(
            "-o, --scales, --match-norm, --limit and --continue-to belong to --dataset; give it, or leave them out"
        )
    from trimtab.engines.requests import Request

    from . import steering

    prompt, sampling = _prompt(flags), _sampling(flags, desk.seed)
    library: dict[str, ConceptVectors] = {}
    plan = _plan(flags, library)
    reader = None if flags["read"] is None else steering.load_reference(flags["read"])
    files = library if reader is None else {**library, flags["read"]: reader}
    seen = glance(model, engine)
    for reference, vectors in files.items():
        steering.check_fit(reference, vectors, seen, model)
    chosen = steering.chosen_layers(plan, library, seen)
    if dry_run:
        tokens = seen.count_tokens([prompt]) if isinstance(prompt, str) else None
        record = {"dry_run": True, "model": model, "prompt": prompt, "prompt_tokens": tokens,
                  "plan": plan.to_json(), "placements": chosen, "settings": desk.settings}  # fmt: skip
        lines = [f"prompt of {'?' if tokens is None else tokens} tokens", *(chosen or ["not steered"])]
        desk.result(record, text="\n".join(lines))
        return
    started = time.monotonic()
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        library, measured = steering.fill_norms(runner, plan, library)
        for reference in measured:
            desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
        runner.library.update(library)
        info = runner.info
        for reference, vectors in files.items():
            steering.check_source(desk, reference, vectors, info)
        readout = _readout(reader, info)
        if isinstance(prompt, str) and info.template_hash:
            desk.warn(f"{model} has a chat template and gets bare text; use --chat to put the prompt into it")
        encoded = runner.encode(prompt, bare=True)
        (done,) = runner.generate(Request(encoded, plan, sampling, readout=readout))
    samples = [_sample(s) for s in done.samples]
    record = {
        "model": model, "engine": engine, "prompt": prompt, "prompt_tokens": len(done.prompt), "seed": desk.seed,
        **samples[0], "texts": [s["text"] for s in samples], "warnings": list(said),
        "wall_s": time.monotonic() - started,
    }  # fmt: skip
    if len(samples) > 1:
        record["samples"] = samples
    for sample in done.samples:
        _show(desk, sample)
    desk.result(record)
    for line in steering.receipt_lines(done.applied, info.n_layers):
        desk.note(line)


def _sampling(flags: dict[str, Any], seed: int) -> Sampling:
    from trimtab.engines.requests import Sampling

    return Sampling(
        flags["max_tokens"], flags["temperature"], flags["top_p"], flags["top_k"], seed, flags["samples"],
        flags["stop"],
    )  # fmt: skip


def _plan(flags: dict[str, Any], library: dict[str, ConceptVectors]) -> SteeringPlan:
    """The plan of --plan and --steer; the files that it names are loaded into `library`."""
    from trimtab.sites import STREAMS

    from . import steering

    if flags["stream"] not in STREAMS:
        raise UnknownName.of("stream", flags["stream"], STREAMS)
    return steering.build(
        flags["steer"], flags["dose"], flags["scale"], flags["plan"], library,
        layers=flags["layers"], stream=flags["stream"], per_layer=flags["per_layer"],
        positions=steering.parse_positions(flags["positions"]),
    )  # fmt: skip


def _prompt(flags: dict[str, Any]) -> PromptLike:
    """Text, or messages where any chat flag is given."""
    prompt, messages, system = flags["prompt"], flags["messages"], flags["system"]
    if (prompt is None) == (messages is None):
        raise InputError("give exactly one of --prompt and --messages")
    if prompt is not None:
        if not prompt.strip():
            raise InputError("the prompt is empty")
        if not flags["chat"] and system is None:
            return prompt
        turns = [{"role": "user", "content": prompt}]
    else:
        turns = _messages(messages)
    if system is None:
        return turns
    if turns[0]["role"] == "system":
        raise InputError("the messages already begin with a system message; leave --system out")
    return [{"role": "system", "content": system}, *turns]


def _messages(text: str) -> list[dict[str, str]]:
    from trimtab.data.contrast import check_messages
    from trimtab.data.reading import json_of

    if text.lstrip().startswith(("[", "{")):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"--messages is not JSON: {error}") from error
    else:
        found = json_of(Path(text))
    if isinstance(found, dict):
        found = found.get("messages", [found])
    if not isinstance(found, list):
        raise InputError('--messages is a list of {"role": …, "content": …}')
    check_messages(found, "--messages")
    return found


def _readout(vectors: ConceptVectors | None, info: ModelInfo) -> Readout | None:
    """The file's rows where it reads best; z-scores where it stores mean and std, else raw coordinates."""
    from trimtab.readouts import Readout

    if vectors is None:
        return None
    vectors.check_model(info)
    site = vectors.read_site(info.n_layers)
    return Readout.from_vectors(vectors, [site], z=vectors.table(site).has_z)


def _sample(sample: Sample) -> dict[str, Any]:
    from .steering import applied

    return {
        "text": sample.text,
        "tokens": list(sample.tokens),
        "finish": sample.finish,
        "steering_applied": applied(sample.applied),
        "readings": None if sample.readings is None else _readings(sample.readings),
    }


def _readings(readings: Readings) -> dict[str, Any]:
    """`values` [tokens][layers][concepts] of the state that emitted each token; `start` is the first token's
    position.
    """
    return {
        "concepts": list(readings.concepts),
        "layers": [s.layer for s in readings.sites],
        "stream": readings.sites[0].stream,
        "unit": "z" if readings.z else "coordinate",
        "start": int(readings.positions[0]) + 1,
        "values": readings.values.tolist(),
    }


def _show(desk: Desk, sample: Sample) -> None:
    """The text as it is (a table's renderer would fold it), and a table of its readings."""
    from rich.table import Table
    from rich.text import Text

    desk.print(sample.text)
    read = sample.readings
    if read is None:
        return
    unit = "z" if read.z else "coordinate"
    table = Table("reading", "layer", f"mean {unit}", "lowest", "highest", box=None, pad_edge=False)
    for j, site in enumerate(read.sites):
        for i, concept in enumerate(read.concepts):
            values = read.values[:, j, i]
            numbers = (f"{x:+.2f}" for x in (values.mean(), values.min(), values.max()))
            table.add_row(Text(concept), str(site.layer), *numbers)
    desk.print(table)
