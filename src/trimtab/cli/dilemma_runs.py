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
    from trimtab.evaluation.transfer.effects import Items
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
    return desk.run(engine.info.id, identity=identity, model=engine.info)


def measure(
    run: Run, bench: Bench, cells: Sequence[Cell], items: Items, target: str, limit: int | None, bar: Any
) -> list[Measured]:
    """Every cell on one model; the plain one first, which may refuse the rest. `limit` is that to which free answers go
    on."""
    from trimtab.evaluation.transfer.cells import PLAIN
    from trimtab.evaluation.transfer.rows import measured_of
    from trimtab.evaluation.transfer.study import check_plain

    measured: list[Measured] = []
    for cell in cells:
        here = measured_of(bench, cell, run.done)
        if here is None:
            here = bench.measure(cell)
            _keep(run, bench, cell, here, items, target)
        if limit is not None and bench.goes_on(here, limit):
            here = bench.go_on(cell, here, limit)
            _keep(run, bench, cell, here, items, target)
        if cell.kind == PLAIN:
            check_plain(here)
        measured.append(here)
        bar.advance()
    return measured


def _keep(run: Run, bench: Bench, cell: Cell, here: Measured, items: Items, target: str) -> None:
    """Write the rows of a cell that the run does not have, or has otherwise."""
    from trimtab.evaluation.transfer.rows import keys_of, rows_of

    for key, row in zip(keys_of(bench, cell), rows_of(bench, cell, here, items, target), strict=True):
        if run.done.get(unit_key(key)) != {"key": unit_key(key), **row}:
            run.finish(key, row)


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
