"""Concepts x sites: what one file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.directions.direction import Direction, content_hash
from trimtab.directions.table import Origin, Table
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.sites import LayerSpec, ModelInfo, Site, resolve_layer, resolve_layers

#: Depth nearest to which a layer is taken when a file recommends none.
DEFAULT_DEPTH = "60%"


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
