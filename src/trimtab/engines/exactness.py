"""Exactly what was asked for: captures and readings with every row that was asked, and no other, or an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.engines.requests import Event, Request
from trimtab.prompts import Prompt, Range, in_ranges, resolve_positions
from trimtab.sites import ModelInfo, Site


def rows_of(ranges: Sequence[Range], length: int) -> np.ndarray:
    """Absolute positions [n], int64, below `length` that the ranges address, ascending."""
    return np.array([i for i in range(length) if in_ranges(i, ranges)], dtype=np.int64)


def exact(states: np.ndarray, rows: int, width: int, site: Site) -> np.ndarray:
    """The states, if they are exactly the [rows, width] asked for; an engine that lost some must not return
    the rest.
    """
    _agree(states.shape, (rows, width), site)
    return states


def _agree(got: tuple[int, ...], wanted: tuple[int, int], site: Site) -> None:
    if got != wanted:
        raise RuntimeError(f"the engine returned states {got} at {site}, asked for {wanted}")


def complete(event: Event, request: Request, info: ModelInfo) -> Event:
    """The event, if its sample captured and read exactly what was asked for; the same rule as `exact`."""
    sample = event.sample
    if sample is None:
        return event
    if request.capture is not None:
        assert isinstance(request.prompt, Prompt)
        ranges = resolve_positions(request.capture.positions, request.prompt)
        rows = rows_of(ranges, len(request.prompt) + len(sample.tokens) - 1)
        got = sample.capture
        shapes = {} if got is None else got.shapes
        if got is None or set(shapes) != set(request.capture.sites) or list(got.positions) != list(rows):
            raise RuntimeError(f"the engine did not capture {request.capture} of a generation")
        for site, shape in shapes.items():
            _agree(shape, (len(rows), info.width(site)), site)
    if request.readout is not None and (
        sample.readings is None or len(sample.readings.positions) != len(sample.tokens)
    ):
        raise RuntimeError(f"the engine did not read every one of {len(sample.tokens)} tokens")
    return event
