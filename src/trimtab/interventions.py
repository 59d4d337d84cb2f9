"""The interventions, and the numpy definition that is the truth for every engine.

With `u` a unit direction and `p = h . u` the coordinate of a hidden state along it, every operator is one row

    change = strength * clamp((gain - 1) * p + shift, low - p, high - p)        h' = h + change * u

so an identity row, and a cap inside its bounds, return `h` bit for bit.

    operator      gain  low, high     shift   also called
    Add           1     none          a       ActAdd (arXiv 2308.10248), CAA (2312.06681), control vector
    Ablate(keep)  keep  none          0       directional ablation (2406.11717) at keep 0, reflection at keep
    -1 Cap           1     low, high     0       activation capping (2601.10387)
    Pin           1     value, value  0       clamp, mean-ablation

`Deltas` adds row t of a [T, width] table to the state at absolute position start + t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError

FloatArray = np.ndarray


@dataclass(frozen=True)
class Coefficients:
    """One row of the kernel's table, in absolute units of the site (see the module's formula)."""

    gain: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    shift: float = 0.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("gain", "low", "high", "shift", "strength"):
            value = float(getattr(self, name))
            if math.isnan(value) or (math.isinf(value) and name not in ("low", "high")):
                raise InputError(f"{name} must be a finite number, got {value}")
            object.__setattr__(self, name, value + 0.0)  # -0.0 becomes 0.0, so that equal rows hash equal
        if self.low > self.high:
            raise InputError(f"low {self.low} is above high {self.high}")

    @property
    def adds(self) -> bool:
        """True for the rows of `Add`: a displacement that does not depend on the state."""
        return self.gain == 1.0 and math.isinf(self.low) and math.isinf(self.high)

    @property
    def identity(self) -> bool:
        """True for a row that can change nothing."""
        return self.strength == 0.0 or (self.adds and self.shift == 0.0)

    def scaled(self, factor: float) -> Coefficients:
        """The row at `factor`: multiplies the shift of an `Add`, and the finished change of anything else."""
        if not math.isfinite(factor):
            raise InputError(f"a factor is a finite number, got {factor}")
        if self.adds:
            return Coefficients(shift=self.shift * factor)
        if not 0.0 <= factor <= 1.0:
            raise InputError(f"a factor lies in [0, 1] for every operator but add, got {factor}")
        return Coefficients(self.gain, self.low, self.high, self.shift, self.strength * factor)


@dataclass(frozen=True)
class Strength:
    """What turns a person's units into coordinates at one site: the raw norm, the typical residual norm, the
    coordinate's mean and std, and among how many layers a total is divided. None where the file has none."""

    raw_norm: float = 1.0
    typical_norm: float | None = None
    mean: float | None = None
    std: float | None = None
    share: int = 1


def _z_to_coordinate(value: float | None, z: bool, unit: Strength, what: str) -> float | None:
    if value is None or not z:
        return value
    if unit.std is None or unit.mean is None:
        raise InputError(
            f"{what} in z units needs a file with stored mean and std; give absolute coordinates instead"
        )
    return unit.mean + value * unit.std


def _flag(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} is true or false, got {value!r}")


def _finite(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.floating, np.integer))
        or not math.isfinite(value)
    ):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def finite(name: str, value: float | None) -> float:
    """A finite number, or an error that names it."""
    number = _finite(name, value)
    if number is None:
        raise InputError(f"{name} must be a finite number, got None")
    return number


@dataclass(frozen=True)
class Add:
    """Displace the state along the direction. Exactly one unit: `dose` (displacement / typical residual
    norm), `scale` (multiples of the file's raw norm), both totals that are shared by the placement's layers,
    or `amount` (absolute displacement at each layer). With `relative` the displacement is a multiple of the
    row's own norm.
    """

    op: ClassVar[str] = "add"
    dose: float | None = None
    scale: float | None = None
    amount: float | None = None

    def __post_init__(self) -> None:
        given = {n: _finite(n, getattr(self, n)) for n in ("dose", "scale", "amount")}
        if sum(v is not None for v in given.values()) != 1:
            raise InputError(f"add takes exactly one of dose, scale and amount, got {given}")
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def row(self, unit: Strength) -> Coefficients:
        """Coefficients at one site."""
        if self.amount is not None:
            return Coefficients(shift=self.amount)
        if self.scale is not None:
            return Coefficients(shift=self.scale * unit.raw_norm / unit.share)
        if unit.typical_norm is None:
            raise InputError(
                "dose needs the typical residual norm of this layer, and the file does not store it; "
                "use scale or amount, or measure it: trimtab.recipes.typical_norms(engine, sites)"
            )
        assert self.dose is not None
        return Coefficients(shift=self.dose * unit.typical_norm / unit.share)


@dataclass(frozen=True)
class Ablate:
    """Multiply the coordinate by `keep`: 0 removes the direction, -1 reflects it, 1 leaves it."""

    op: ClassVar[str] = "ablate"
    keep: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", finite("keep", self.keep))

    def row(self, unit: Strength) -> Coefficients:
        """Coefficients at one site."""
        return Coefficients(gain=self.keep)

    @classmethod
    def from_scale(cls, scale: float) -> Ablate:
        """From the convention h + scale * (h.u) u, where -1 removes (keep = 1 + scale)."""
        return cls(keep=1.0 + scale)

    @classmethod
    def from_strength(cls, strength: float) -> Ablate:
        """From the convention h - strength * (h.u) u, where 1 removes (keep = 1 - strength)."""
        return cls(keep=1.0 - strength)


@dataclass(frozen=True)
class Cap:
    """Hold the coordinate inside [low, high]; None leaves a side open. `z`: bounds in stored stds."""

    op: ClassVar[str] = "cap"
    low: float | None = None
    high: float | None = None
    z: bool = False

    def __post_init__(self) -> None:
        low, high = _finite("low", self.low), _finite("high", self.high)
        _flag("z", self.z)
        if low is None and high is None:
            raise InputError("cap needs low, high or both")
        if low is not None and high is not None and low > high:
            raise InputError(f"cap's low {low} is above its high {high}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def row(self, unit: Strength) -> Coefficients:
        """Coefficients at one site."""
        low = _z_to_coordinate(self.low, self.z, unit, "cap")
        high = _z_to_coordinate(self.high, self.z, unit, "cap")
        return Coefficients(low=-math.inf if low is None else low, high=math.inf if high is None else high)


@dataclass(frozen=True)
class Pin:
    """Set the coordinate to `value`; `z` gives it in stored stds."""

    op: ClassVar[str] = "pin"
    value: float = 0.0
    z: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite("value", self.value))
        _flag("z", self.z)

    def row(self, unit: Strength) -> Coefficients:
        """Coefficients at one site."""
        value = _z_to_coordinate(self.value, self.z, unit, "pin")
        assert value is not None
        return Coefficients(low=value, high=value)


@dataclass(frozen=True, eq=False)
class Deltas:
    """Add row t of `table` [T, width] to the state at absolute position `start + t`."""

    op: ClassVar[str] = "deltas"
    table: FloatArray
    start: int = 0

    def __post_init__(self) -> None:
        table = np.ascontiguousarray(self.table, dtype=np.float32)
        if table.ndim != 2 or not table.size:
            raise InputError(f"deltas are a [T, width] table, got shape {table.shape}")
        if not np.isfinite(table).all():
            raise InputError("deltas hold NaN or infinite numbers")
        if isinstance(self.start, bool) or not isinstance(self.start, int) or self.start < 0:
            raise InputError(f"deltas start at an absolute position >= 0, got {self.start!r}")
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Deltas)
            and self.start == other.start
            and np.array_equal(self.table, other.table)
        )

    def __hash__(self) -> int:
        return hash((self.start, self.table.tobytes()))


Operator = Add | Ablate | Cap | Pin | Deltas
OPERATORS: Mapping[str, type[Any]] = {cls.op: cls for cls in (Add, Ablate, Cap, Pin, Deltas)}


@dataclass(frozen=True)
class Gate:
    """Act only on tokens whose own coordinate along another direction is above (or below) a threshold.

    The gate reads the same token at `layer`/`stream` (None: the placement's own site), which must not be
    later than the edit; `at` before (default) or after that site's edits ("after" needs an earlier site than
    the edit's).
    """

    vector: Any
    above: float | None = None
    below: float | None = None
    layer: int | str | None = None
    stream: str | None = None
    at: str = "before"
    z: bool = False

    def __post_init__(self) -> None:
        above, below = _finite("above", self.above), _finite("below", self.below)
        if (above is None) == (below is None):
            raise InputError("a gate takes exactly one of above and below")
        if self.at not in ("before", "after"):
            raise InputError(f"a gate reads at 'before' or 'after' the edits of its site, got {self.at!r}")
        _flag("z", self.z)
        object.__setattr__(self, "above", above)
        object.__setattr__(self, "below", below)

    def threshold(self, unit: Strength) -> float:
        """The bound as an absolute coordinate."""
        value = self.above if self.above is not None else self.below
        coordinate = _z_to_coordinate(value, self.z, unit, "gate")
        assert coordinate is not None
        return coordinate


def edit(
    h: FloatArray,
    u: FloatArray,
    row: Coefficients,
    *,
    relative: bool = False,
    renormalise: bool = False,
    active: FloatArray | None = None,
    factor: float | FloatArray = 1.0,
) -> FloatArray:
    """Apply one row to states `h` [..., width] along unit `u` [width]; the definition every engine is tested
    against.

    `active` [...] selects tokens; `factor` (scalar or [...]) is `scaled` per token. Computed in float64 and
    returned in h's dtype; a token whose change is 0 keeps its bits.
    """
    wide = h.astype(np.float64)
    p = wide @ u.astype(np.float64)
    norm = np.linalg.norm(wide, axis=-1)
    factor = np.asarray(factor, dtype=np.float64)
    shift = row.shift * (norm if relative else 1.0) * (factor if row.adds else 1.0)
    strength = row.strength * (1.0 if row.adds else factor)
    change = strength * np.clip((row.gain - 1.0) * p + shift, row.low - p, row.high - p)
    return displace(h, change[..., None] * u.astype(np.float64), renormalise=renormalise, active=active)


def displace(
    h: FloatArray, change: FloatArray, *, renormalise: bool = False, active: FloatArray | None = None
) -> FloatArray:
    """`h + change`, on `active` tokens and only where the change is not 0; `renormalise` keeps each token's
    norm.
    """
    wide = h.astype(np.float64)
    moved = wide + change
    if renormalise:
        norm = np.linalg.norm(moved, axis=-1, keepdims=True)
        moved = moved * np.divide(
            np.linalg.norm(wide, axis=-1, keepdims=True), norm, out=np.ones_like(norm), where=norm > 0
        )
    touched = np.any(change != 0, axis=-1)
    if active is not None:
        touched = touched & active
    return np.where(touched[..., None], moved.astype(h.dtype), h)
