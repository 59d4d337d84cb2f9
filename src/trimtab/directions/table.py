"""All concepts at one site, and where a file's numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.directions.direction import frozen
from trimtab.errors import InputError

#: The optional per-concept columns of a table: name -> trailing shape ("C" is the number of concepts).
COLUMNS = ("norms", "mean", "std", "bias")


@dataclass(frozen=True, eq=False)
class Table:
    """All concepts at one site: `vectors` [C, width] unit rows; `norms, mean, std, bias` [C]; `cap` [C, 2]
    bounds (NaN = open); `basis` [C, k, width] orthonormal rows. None where a file does not have a field."""

    vectors: np.ndarray
    norms: np.ndarray | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    bias: np.ndarray | None = None
    cap: np.ndarray | None = None
    basis: np.ndarray | None = None

    def __post_init__(self) -> None:
        vectors = frozen(self.vectors)
        if vectors.ndim != 2:
            raise InputError(f"a table's vectors are [concepts, width], got shape {vectors.shape}")
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not np.isfinite(lengths).all() or np.any(np.abs(lengths - 1) > 1e-3):
            raise InputError(
                f"a table's vectors are finite unit rows; their norms are {np.round(lengths, 4).tolist()[:8]}"
            )
        object.__setattr__(self, "vectors", vectors)
        count, width = vectors.shape
        expected = dict.fromkeys(COLUMNS, (count,)) | {"cap": (count, 2)}
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None:
                value = frozen(value)
                if value.shape != shape:
                    raise InputError(f"a table's {name} has shape {value.shape}, expected {shape}")
                object.__setattr__(self, name, value)
        if self.basis is not None:
            basis = frozen(self.basis)
            if basis.ndim != 3 or basis.shape[0] != count or basis.shape[2] != width:
                raise InputError(f"a table's basis has shape {basis.shape}, expected [{count}, k, {width}]")
            object.__setattr__(self, "basis", basis)

    @property
    def has_z(self) -> bool:
        """Whether mean and std of every row are known, so that readings can be z-scores."""
        known = self.mean is not None and not np.isnan(self.mean).any()
        return known and self.std is not None and bool((self.std > 0).all())

    def fields(self) -> Iterator[tuple[str, np.ndarray]]:
        """The fields that are present, in file order."""
        for name in ("vectors", *COLUMNS, "cap", "basis"):
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def value(self, name: str, row: int) -> float | None:
        """One entry of a column; None where the column is absent or NaN."""
        column = getattr(self, name)
        return None if column is None or np.isnan(column[row]) else float(column[row])


@dataclass(frozen=True)
class Origin:
    """Where a file's numbers come from. Everything is optional, since foreign files know little."""

    model: str | None = None
    revision: str | None = None
    n_layers: int | None = None
    method: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    template_hash: str | None = None
    data_hash: str | None = None
    neutral_hash: str | None = None
    sign_source: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    dtype: str = "float32"
    read_position: str | None = None  # tokens on which mean and std were measured
    read_alignment: str | None = None  # which state is read for a token: the one that emits it, or follows it
