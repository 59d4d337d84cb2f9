"""What `trimtab eval dilemmas` measures: every cell once, from its run folder where it is already there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, Mismatch, Unsupported
from trimtab.records import unit_key

from .frame import Desk
from .models import glance, open_engine
from .runs import Run

if TYPE_CHECKING:
    from trimtab.data.dilemmas import Dilemma
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.transfer.cells import Cell, Placing
    from trimtab.evaluation.transfer.measurement import Bench, Measured


def open_run(
    desk: Desk,
    engine: Engine,
    found: Sequence[Dilemma],
    methods: Mapping[str, ConceptVectors],
    placing: Placing,
    weights: Mapping[str, str],
) -> Run:
    """The run folder of these dilemmas, vectors and trained weights on this model."""
    from trimtab.engines.checkpoint import revision_of

    depth = engine.info.n_layers  # a new recommendation of layers in a file's calibration is another run
    identity = {
        "dilemmas": unit_key(
            [[d.id, d.situation, d.question, [[a.kind, a.text] for a in d.actions]] for d in found]
        ),
        "vectors": {n: [v.hash, list(v.choose_layers(placing.layers, depth))] for n, v in methods.items()},
        "model": engine.info.id,
        "tuned": {name: revision_of(folder) for name, folder in weights.items()},
    }
    return desk.run(engine.info.id, identity=identity, revision=engine.info.revision)


def measure(
    run: Run,
    bench: Bench,
    cells: Sequence[Cell],
    found: Sequence[Dilemma],
    unit: str,
    limit: int | None,
    bar: Any,
) -> list[Measured]:
    """Every cell on one model; the plain one first, which may refuse the rest. `unit` is that of the strengths; `limit`
    is that to which free answers go on."""
    from trimtab.evaluation.transfer.cells import PLAIN
    from trimtab.evaluation.transfer.measurement import Measured
    from trimtab.evaluation.transfer.study import check_plain

    measured: list[Measured] = []
    for cell in cells:
        key = cell.unit()
        if (kept := run.done.get(unit_key(key))) is not None:
            here = Measured.from_json(kept["measured"])
        else:
            here = bench.measure(cell)
            run.finish(key, _kept(key, here, bench, found, unit))
        if limit is not None and bench.goes_on(here, limit):
            here = bench.go_on(cell, here, limit)
            run.finish(key, _kept(key, here, bench, found, unit))
        if cell.kind == PLAIN:
            check_plain(here)
        measured.append(here)
        bar.advance()
    return measured


def _kept(
    key: dict[str, Any], here: Measured, bench: Bench, found: Sequence[Dilemma], unit: str
) -> dict[str, Any]:
    """What a run keeps of a cell: the items in the order of its numbers, and all that says where they come from."""
    info = bench.engine.info
    return {
        "unit": key,
        "items": [{"dilemma": found[r.item].id, "sign": r.sign} for r in bench.rows],
        unit: key["strength"],
        "fingerprint": here.fingerprint,
        "seed": bench.seed,
        "model": info.id,
        "revision": info.revision,
        "measured": here.to_json(),
    }


# --- trained weights beside the vectors


def tuned_folders(given: Mapping[str, str], engine: str, taken: Sequence[str]) -> dict[str, str]:
    """`--tuned NAME=FOLDER`, checked before a model loads: a model's folder or a PEFT adapter's."""
    from trimtab.engines.checkpoint import check_adapter, is_adapter

    for name, folder in given.items():
        if name in taken:
            raise InputError(f"--tuned {name}=… has the name of a vector; give it another one")
        if not Path(folder).is_dir():
            raise InputError(
                f"--tuned {name}: there is no folder {folder}; give that of a model or a PEFT adapter"
            )
        if not is_adapter(folder):
            glance(folder, engine)
        elif engine != "transformers":
            raise Unsupported(
                f"--tuned {name} is a PEFT adapter, which runs on --engine transformers, not on {engine}"
            )
        else:
            check_adapter(folder)
    return dict(given)


@contextmanager
def tuned_bench(
    desk: Desk, model: str, engine: str, cell: Cell, plain: Bench, options: Mapping[str, Any]
) -> Iterator[Bench]:
    """The bench of a trained model: the same questions, which it must tokenise as the plain model does."""
    from trimtab.engines.checkpoint import is_adapter
    from trimtab.evaluation.transfer.measurement import Bench

    assert cell.weights is not None
    name, more = cell.weights, dict(options)
    if is_adapter(cell.weights):
        name, more = model, {**more, "adapter": cell.weights, "id": f"{model}+{cell.arm}"}
    with open_engine(desk, name, engine, **more) as runner:
        mine = Bench.of(runner, plain.rows, plain.asking, free_tokens=plain.free_tokens, seed=plain.seed)
        if not mine.asks_like(plain):
            raise Mismatch(
                f"--tuned {cell.arm} tokenises the questions unlike {model}: its tokenizer or chat template is another "
                "one, and the two cannot stand in one table"
            )
        yield mine
