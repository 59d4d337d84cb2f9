"""A small evaluation in a run folder, on the reference model: what the resume tests run whole, kill and continue."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from trimtab.cli.runs import Run
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.evaluation.conditions import PLAIN, prefix, randoms, steered
from trimtab.evaluation.items import Item
from trimtab.evaluation.samples import measure
from trimtab.evaluation.scorers.projection import Projection
from trimtab.readouts import Readout
from trimtab.sites import Site

PART = 8


def joy(engine) -> ConceptVectors:
    """The planted direction at two layers; a typical norm of 4 makes dose 1 a push of 4."""
    return ConceptVectors.from_directions(
        [Direction.from_raw("joy", Site(n), engine.planted["joy"], typical_norm=4.0) for n in (1, 2)]
    )


def evaluate(folder: Path, part: int = PART, fresh: bool = False):
    """Six items, seven conditions, two samples each: 84 rows."""
    engine = load_engine("tiny", "reference")
    vectors = joy(engine)
    items = [Item.of(f"{s} feel really", id=s) for s in ("I", "you", "we", "they")]
    items += [Item.of([{"role": "user", "content": w}], id=w) for w in ("now", "today")]
    conditions = [
        PLAIN,
        *(steered(vectors, "joy", d, [1]) for d in (-0.5, 0.5)),
        steered(vectors, "joy", 0.5, [2], positions="generated"),
        *randoms(vectors, 2, [0.5], [1]),
        prefix("joy"),
    ]
    with Run.open(folder, "sweep", "joy", settings={}, identity={}, fresh=fresh) as run:
        rows = measure(
            engine,
            items,
            conditions,
            ["joy"],
            [Projection()],
            sampling=Sampling(max_tokens=3, temperature=1.0, n=2),
            readout=Readout.from_vectors(vectors, [Site(2)]),
            seed=5,
            ledger=run,
            part=part,
        )
    return run.folder, rows


def slowly(seconds: float) -> None:
    """Let every row take so long, so that whoever kills the process finds it in the middle."""
    finish = Run.finish

    def slower(*args, **kwargs):
        finish(*args, **kwargs)
        time.sleep(seconds)

    Run.finish = slower


if __name__ == "__main__":
    slowly(float(sys.argv[2]))
    evaluate(Path(sys.argv[1]))
