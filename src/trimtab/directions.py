"""Concept vectors: unit directions at sites with what is needed to steer and to read with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.sites import LayerSpec, ModelInfo, Site, resolve_layer, resolve_layers

#: Depth nearest to which a layer is taken when a file recommends none.
DEFAULT_DEPTH = "60%"


def content_hash(array: np.ndarray) -> str:
    """Hash of an array's float32 content and shape; what fingerprints, banks and cache keys are built on."""
    data = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(data.shape).encode() + data.tobytes()).hexdigest()[:32]


def frozen(array: Any, dtype: str = "float32") -> np.ndarray:
    """A read-only contiguous copy."""
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


def _stacked_basis(rows: Sequence[Direction]) -> dict[str, np.ndarray]:
    """The field of a table that holds the bases; a table has one of equal size for every concept, or none."""
    sizes = {r.name: 0 if r.basis is None else len(r.basis) for r in rows}
    if not any(sizes.values()):
        return {}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"the directions at {rows[0].site} have bases of different sizes, {sizes}; keep them in several files"
        )
    return {"basis": np.stack([r.basis for r in rows if r.basis is not None])}


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


@dataclass(frozen=True, eq=False)
class ConceptVectors:
    """Concepts x sites: one file that steers and reads.

    `tables` maps each site to its `Table`; `typical_norms` to the median residual norm there (where
    measured); `calibration` holds what evaluation later finds (recommended layer, safe range) and is not part
    of the content.
    """

    concepts: tuple[str, ...]
    tables: Mapping[Site, Table]
    typical_norms: Mapping[Site, float] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", tuple(self.concepts))
        if not self.concepts or len(set(self.concepts)) != len(self.concepts):
            raise InputError(f"concepts must be distinct and at least one, got {list(self.concepts)}")
        if not self.tables:
            raise InputError("concept vectors need at least one site")
        object.__setattr__(self, "tables", dict(sorted(self.tables.items())))
        for site, table in self.tables.items():
            if len(table.vectors) != len(self.concepts):
                raise InputError(f"{site} has {len(table.vectors)} rows for {len(self.concepts)} concepts")

    @classmethod
    def from_directions(cls, directions: Iterable[Direction], **kwargs: Any) -> ConceptVectors:
        """Collect directions; every concept must be there at every site."""
        items = list(directions)
        concepts = tuple(dict.fromkeys(d.name for d in items))
        found = {(d.name, d.site): d for d in items}
        sites = sorted({d.site for d in items})
        tables, norms = {}, {}
        for site in sites:
            missing = [c for c in concepts if (c, site) not in found]
            if missing:
                raise InputError(f"concepts {missing} have no direction at {site}")
            rows = [found[c, site] for c in concepts]
            columns: dict[str, Any] = {
                name: [np.nan if v is None else v for v in (getattr(r, attr) for r in rows)]
                for name, attr in (("mean", "mean"), ("std", "std"), ("bias", "bias"))
            }
            kept: dict[str, Any] = {n: c for n, c in columns.items() if not np.all(np.isnan(c))}
            kept |= _stacked_basis(rows)
            tables[site] = Table(
                np.stack([r.unit for r in rows]), norms=np.array([r.norm for r in rows]), **kept
            )
            if rows[0].typical_norm is not None:
                norms[site] = rows[0].typical_norm
        return cls(concepts, tables, typical_norms=kwargs.pop("typical_norms", norms), **kwargs)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site, in forward order."""
        return tuple(self.tables)

    def layers(self, stream: str = "resid_post") -> tuple[int, ...]:
        """Layers at which this file has rows for `stream`."""
        return tuple(s.layer for s in self.tables if s.stream == stream)

    def index(self, concept: str | None) -> int:
        """Row of a concept; None is allowed where there is only one."""
        if concept is None:
            if len(self.concepts) > 1:
                raise InputError(
                    f"the file holds {len(self.concepts)} concepts; name one of: {', '.join(self.concepts)}"
                )
            return 0
        if concept not in self.concepts:
            raise UnknownName.of("concept", concept, self.concepts)
        return self.concepts.index(concept)

    def table(self, site: Site) -> Table:
        """The table at a site, or an error that lists the sites there are."""
        if site not in self.tables:
            raise UnknownName.of("site in this file", site, self.tables)
        return self.tables[site]

    def direction(self, concept: str | None, site: Site) -> Direction:
        """One concept at one site."""
        row, table = self.index(concept), self.table(site)
        norm = table.value("norms", row)
        return Direction(
            self.concepts[row],
            site,
            table.vectors[row],
            norm=1.0 if norm is None else norm,
            mean=table.value("mean", row),
            std=table.value("std", row),
            bias=table.value("bias", row),
            typical_norm=self.typical_norms.get(site),
            sign_source=self.origin.sign_source or "none",
            basis=None if table.basis is None else table.basis[row],
        )

    def only(
        self, concepts: Sequence[str] | None = None, sites: Iterable[Site] | None = None
    ) -> ConceptVectors:
        """A subset; unknown names raise."""
        rows = [self.index(c) for c in (self.concepts if concepts is None else concepts)]
        keep = list(self.tables if sites is None else sites)
        tables = {s: Table(**{n: v[rows] for n, v in self.table(s).fields()}) for s in keep}
        norms = {s: n for s, n in self.typical_norms.items() if s in tables}
        return replace(
            self, concepts=tuple(self.concepts[r] for r in rows), tables=tables, typical_norms=norms
        )

    def renamed(self, names: str | Mapping[str, str]) -> ConceptVectors:
        """Other names for some concepts, {old: new}; one string where there is one concept."""
        mapping = {self.concepts[self.index(None)]: names} if isinstance(names, str) else dict(names)
        for old in mapping:
            self.index(old)
        return replace(self, concepts=tuple(mapping.get(c, c) for c in self.concepts))

    def orthogonalised(self, against: Sequence[ConceptVectors]) -> ConceptVectors:
        """Every concept less its part in the span of all vectors of `against` (`algebra.orthogonalised`)."""
        from trimtab import algebra

        return algebra.orthogonalised(self, against)

    def only_head(self, head: int, n_heads: int) -> ConceptVectors:
        """The part of the directions at `head_out` that one head carries (`trimtab.heads`)."""
        from trimtab.heads import only_head

        return only_head(self, head, n_heads)

    def read_site(self, n_layers: int | None = None) -> Site:
        """Where the file is read by default: where its calibration says that reading separates best, else where
        `choose_layers` would steer.
        """
        layer, stream = self.calibration.get("read_layer"), self.calibration.get("read_stream", "resid_post")
        if layer is not None and Site(int(layer), stream) in self.tables:  # a subset may have left it out
            return Site(int(layer), stream)
        stream = "resid_post" if self.layers() else self.sites[0].stream
        depth = n_layers or self.origin.n_layers or max(s.layer for s in self.sites) + 1
        return Site(self.choose_layers(None, depth, stream)[0], stream)

    def choose_layers(
        self, spec: LayerSpec | None, n_layers: int, stream: str = "resid_post"
    ) -> tuple[int, ...]:
        """Resolve a layer spec against this file; None takes the recommended layer, else the one nearest 60 %
        depth.
        """
        have = self.layers(stream)
        if not have:
            raise UnknownName.of("stream in this file", stream, {s.stream for s in self.tables})
        recommended = self.calibration.get("layer")
        if spec is None:
            if recommended is not None and stream == "resid_post":
                return (int(recommended),)
            depth = resolve_layer(DEFAULT_DEPTH, n_layers)
            return (min(have, key=lambda layer: (abs(layer - depth), layer)),)
        if spec == "all":  # all that the file has: a file of layers 10-20 is not an error on a model of 36
            return have
        layers = resolve_layers(spec, n_layers, auto=recommended)
        missing = sorted(set(layers) - set(have))
        if missing:
            raise InputError(f"the file has no {stream} rows at layers {missing}; it has {list(have)}")
        return layers

    def similarity(self, site: Site) -> np.ndarray:
        """Cosines [C, C] between the concepts at a site."""
        rows = self.table(site).vectors.astype(np.float64)
        return rows @ rows.T

    def check_model(self, model: ModelInfo) -> None:
        """Refuse, in words, a model of another size or with other streams."""
        for site, table in self.tables.items():
            model.check(site, table.vectors.shape[1], f"the file's table at {site}")
        if self.origin.n_layers is not None and self.origin.n_layers != model.n_layers:
            raise Mismatch(
                f"the file was made for a model of {self.origin.n_layers} blocks ({self.origin.model}), "
                f"and {model.id} has {model.n_layers}"
            )

    @property
    def hash(self) -> str:
        """Content hash over tensors and sites; calibration and provenance do not count."""
        digest = hashlib.sha256("\0".join(self.concepts).encode())
        for site, table in self.tables.items():
            for name, value in table.fields():
                digest.update(f"{site.key}.{name}:{content_hash(value)}".encode())
        return digest.hexdigest()[:32]

    def save(self, path: Any) -> None:
        """Write the native file and its manifest (`formats.save`)."""
        from trimtab import formats

        formats.save(self, path)

    @classmethod
    def load(cls, path: Any, model: ModelInfo | None = None, **options: Any) -> ConceptVectors:
        """Read any known format (`formats.load`, which says what `options` are), checked against `model` where
        given.
        """
        from trimtab import formats

        return formats.load(path, model=model, **options)
