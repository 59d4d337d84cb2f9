"""Captures that are read when somebody asks: a handle knows what it holds, and where, and copies nothing before that.

It is a `Capture` in every other way, so that code which looks at the states of an answer works with all engines alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from trimtab.engines.requests import Capture
from trimtab.errors import InputError
from trimtab.sites import Site


class Held(Protocol):
    """States of one site, wherever they lie."""

    width: int

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Those [n, width] at absolute positions."""
        ...


class CaptureHandle(Capture):
    """The states at `positions` of each site in `held`. They stay where they are until `fetch`, or a look at `values`;
    neighbouring positions are then shown without a copy. `close`, or letting go of the handle, frees what nobody has
    fetched; arrays that were fetched live on."""

    def __init__(self, held: Mapping[Site, Held], positions: np.ndarray, at: str = "after") -> None:
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "at", at)
        self._held: dict[Site, Held] | None = dict(held)

    def _open(self) -> dict[Site, Held]:
        if self._held is None:
            raise InputError("this capture was closed; fetch it before that")
        return self._held

    @property
    def values(self) -> Mapping[Site, np.ndarray]:  # type: ignore[override]
        """The states [n, width] of every site."""
        return {site: held.at(self.positions) for site, held in self._open().items()}

    def __getitem__(self, site: Site | int) -> np.ndarray:
        return self._open()[Site(site) if isinstance(site, int) else site].at(self.positions)

    @property
    def shapes(self) -> dict[Site, tuple[int, ...]]:
        """The shape of each site's states, without reading them."""
        return {site: (len(self.positions), held.width) for site, held in self._open().items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return sum(4 * n * width for n, width in self.shapes.values())

    def fetch(self) -> Capture:
        """A capture with its arrays; `await handle.fetch()` gives the same. Raises `InputError` after `close`."""
        return Capture(self.values, self.positions, self.at)

    def close(self) -> None:
        """Let go; more than once does no harm."""
        self._held = None

    def __enter__(self) -> CaptureHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Capture], tuple[Any, ...]]:
        return Capture, (self.values, self.positions, self.at)

    def __repr__(self) -> str:
        if self._held is None:
            return "CaptureHandle(closed)"
        sites = ", ".join(s.key for s in self._held)
        return f"CaptureHandle({len(self.positions)} rows at {sites}, {self.nbytes} bytes)"


def fetch_all(captures: Iterable[Capture]) -> list[Capture]:
    """All of them, in their order. The states of finished requests are on this side already: nothing travels."""
    return [capture.fetch() for capture in captures]
