"""One direction: a unit row at a site, and what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError, Mismatch
from trimtab.sites import Site


def content_hash(array: np.ndarray) -> str:
    """Hash of an array's float32 content and shape; what fingerprints, banks and cache keys are built on."""
    data = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(data.shape).encode() + data.tobytes()).hexdigest()[:32]


def frozen(array: Any, dtype: str = "float32") -> np.ndarray:
    """A read-only contiguous copy, of the same shape."""
    out = np.array(array, dtype=dtype, order="C", copy=True)
    out.flags.writeable = False
    return out


@dataclass(frozen=True, eq=False)
class Direction:
    """One concept at one site: `unit` [width] float32 with norm 1, and `norm`, the raw length before
    normalising.

    `mean, std` describe the coordinate h.unit on the data and h.unit + `bias` is a classifier's decision value
    (None where unknown); `basis` [k, width], orthonormal rows, is the subspace that `unit` was taken from;
    `typical_norm` is the median residual norm at the site on neutral text; `sign_source` is pairs, grad,
    behaviour or none.
    """

    name: str
    site: Site
    unit: np.ndarray
    norm: float = 1.0
    mean: float | None = None
    std: float | None = None
    bias: float | None = None
    typical_norm: float | None = None
    sign_source: str = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    basis: np.ndarray | None = None

    def __post_init__(self) -> None:
        unit = np.asarray(self.unit, dtype=np.float64)
        if unit.ndim != 1:
            raise InputError(f"a direction is one row [width], got shape {unit.shape}")
        length = float(np.linalg.norm(unit))
        if not np.isfinite(length) or length == 0:
            raise InputError(
                f"direction {self.name!r} at {self.site} is {'zero' if length == 0 else 'not finite'}"
            )
        if abs(length - 1) > 1e-3:
            raise InputError(f"direction {self.name!r} has norm {length:.4g}, not 1; use Direction.from_raw")
        if (
            abs(length - 1) > 1e-6
        ):  # a row already unit to float32 keeps its bits, so that files keep their hash
            unit = unit / length
        object.__setattr__(self, "unit", frozen(unit))
        if self.basis is not None:
            object.__setattr__(self, "basis", self._checked_basis(self.basis))

    def _checked_basis(self, basis: np.ndarray) -> np.ndarray:
        rows = np.asarray(basis, dtype=np.float64)
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != len(self.unit):
            raise InputError(
                f"the basis of {self.name!r} at {self.site} has shape {rows.shape}, expected [k, {len(self.unit)}]"
            )
        if not np.abs(rows @ rows.T - np.eye(len(rows))).max() <= 1e-3:  # so that NaN is refused too
            raise InputError(f"the basis of {self.name!r} at {self.site} does not have orthonormal rows")
        return frozen(rows)

    @classmethod
    def from_raw(cls, name: str, site: Site, raw: np.ndarray, **kwargs: Any) -> Direction:
        """From a vector of any length; the length becomes `norm`."""
        raw = np.asarray(raw, dtype=np.float64)
        norm = float(np.linalg.norm(raw))
        if not np.isfinite(norm) or norm == 0:
            raise InputError(
                f"vector {name!r} at {site} is {'zero' if norm == 0 else 'not finite'}: it has no direction"
            )
        return cls(name, site, raw / norm, norm=norm, **kwargs)

    @property
    def raw(self) -> np.ndarray:
        """The vector before normalising, [width] float32."""
        return (self.unit.astype(np.float64) * self.norm).astype(np.float32)

    @property
    def hash(self) -> str:
        """Content hash of the unit row."""
        return content_hash(self.unit)

    def cosine(self, other: Direction) -> float:
        """Cosine between two directions of one site."""
        self._same_site(other)
        return float(self.unit.astype(np.float64) @ other.unit.astype(np.float64))

    def _same_site(self, other: Direction) -> None:
        if self.site != other.site or self.unit.shape != other.unit.shape:
            raise Mismatch(
                f"{self.name!r} lives at {self.site} and {other.name!r} at {other.site}: not comparable"
            )

    def _combine(self, name: str, raw: np.ndarray) -> Direction:
        return Direction.from_raw(
            name, self.site, raw, typical_norm=self.typical_norm, provenance={"arithmetic": name}
        )

    def __add__(self, other: Direction) -> Direction:
        self._same_site(other)
        return self._combine(f"{self.name}+{other.name}", self.raw + other.raw)

    def __sub__(self, other: Direction) -> Direction:
        self._same_site(other)
        return self._combine(f"{self.name}-{other.name}", self.raw - other.raw)

    def __neg__(self) -> Direction:
        flip = None if self.mean is None else -self.mean
        return replace(self, name=f"-{self.name}", unit=-self.unit, mean=flip, bias=None)

    def __mul__(self, factor: float) -> Direction:
        if factor == 0:
            raise InputError("a direction times 0 has no direction; use a plan of dose 0")
        scaled = replace(self, norm=self.norm * abs(factor))
        return scaled if factor > 0 else -scaled

    __rmul__ = __mul__

    def interpolate(self, other: Direction, t: float) -> Direction:
        """(1 - t) * self + t * other, on raw vectors."""
        self._same_site(other)
        name = f"{self.name}~{other.name}@{t:g}"
        return self._combine(name, (1 - t) * self.raw.astype(np.float64) + t * other.raw.astype(np.float64))
