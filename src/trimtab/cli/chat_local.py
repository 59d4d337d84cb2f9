"""The local side of `trimtab chat`: an engine in this process, and vector files by reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.errors import InputError
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan

from . import steering
from .frame import Desk
from .models import layer_words

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.engines.requests import Message, Sampling
    from trimtab.readouts import Readout


@dataclass(frozen=True)
class Piece:
    """A piece of a reply with its readings by concept; the last one has `applied` and its `receipt` in words. `z` says
    whether readings are in standard deviations."""

    text: str
    reading: dict[str, float] = field(default_factory=dict)
    z: bool = True
    applied: dict[str, Any] | None = None
    receipt: tuple[str, ...] = ()
    finish: str | None = None


class Side(Protocol):
    """What a chat talks to."""

    name: str

    def placement(self, reference: str, dose: float, layers: str | None) -> Placement:
        """An addition by name; what is unknown is refused."""
        ...

    def load(self, path: str) -> SteeringPlan:
        """A plan from a file."""
        ...

    def check(self, plan: SteeringPlan) -> list[str]:
        """What a plan will do, in words; one that cannot be done is refused."""
        ...

    def read(self, names: Sequence[str]) -> str:
        """Read these from now on (nothing without names); what that is, in words."""
        ...

    def reply(self, messages: Sequence[Message], plan: SteeringPlan, sampling: Sampling) -> Iterator[Piece]:
        """The next turn, piece by piece. Closing the iterator ends it."""
        ...


class Local:
    """A chat with an engine. Vectors are FILE:concept, or names of the library."""

    def __init__(self, desk: Desk, engine: Engine, model: str) -> None:
        self.desk, self.engine, self.name = desk, engine, model
        self._reader: ConceptVectors | None = None
        self._readout: Readout | None = None

    def _load(self, reference: str) -> ConceptVectors:
        found = steering.load_reference(reference)
        found.check_model(self.engine.info)
        steering.check_source(self.desk, reference, found, self.engine.info)
        return found

    def placement(self, reference: str, dose: float, layers: str | None) -> Placement:
        """An addition of one concept, checked against the model; its file goes into the engine's library."""
        vectors = steering.one_concept(reference, self._load(reference))
        found = Placement(Add(dose=dose), reference, layers=layers)
        plan = SteeringPlan((found,))
        filled, measured = steering.fill_norms(self.engine, plan, {reference: vectors})
        if measured:
            self.desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
        before = self.engine.library.get(reference)
        self.engine.library.update(filled)
        try:
            self.check(plan)
        except Exception:
            self.engine.library.pop(reference)
            if before is not None:
                self.engine.library[reference] = before
            raise
        return found

    def load(self, path: str) -> SteeringPlan:
        """A plan whose vectors are files, as `trimtab generate --plan` takes it."""
        library: dict[str, ConceptVectors] = {}
        plan = steering.build((), None, None, path, library)
        filled, _ = steering.fill_norms(self.engine, plan, library)
        self.engine.library.update(filled)
        self.check(plan)
        return plan

    def check(self, plan: SteeringPlan) -> list[str]:
        """One line for every placement."""
        from trimtab.prompts import Prompt, Span

        # Roles are known once there are messages; any will do to find what else is wrong.
        spans = tuple(Span(r, 0, 1) for r in ("system", "user", "assistant"))
        resolved = plan.resolve(Prompt((0,), spans), self.engine.library, self.engine.info)
        return plan_lines(resolved.to_json()["placements"], self.engine.info.n_layers)

    def read(self, names: Sequence[str]) -> str:
        """FILE, FILE:concept, or concepts of the file that is read already."""
        from trimtab.readouts import Readout

        if not names:
            self._readout = None
            return "reading nothing"
        reader, concepts = self._reader, list(names)
        if reader is None or names[0] not in reader.concepts:
            reader = self._load(names[0])
            file, colon, _ = names[0].rpartition(":")
            first = list(reader.concepts)
            if colon and len(first) == 1:
                reader = self._load(file)
            concepts = [*first, *names[1:]] if colon and len(first) == 1 else list(names[1:]) or first
        site = reader.read_site(self.engine.info.n_layers)
        z = reader.table(site).has_z
        self._readout = Readout.from_vectors(reader, [site], concepts, z=z)
        self._reader = reader
        where = layer_words(site.layer, self.engine.info.n_layers)
        return f"reading {', '.join(self._readout.concepts)} at {where}, {unit_words(z)}"

    def reply(self, messages: Sequence[Message], plan: SteeringPlan, sampling: Sampling) -> Iterator[Piece]:
        """Tokens as they come."""
        from trimtab.engines.requests import Request

        readout = self._readout
        request = Request(self.engine.encode(messages), plan, sampling, readout=readout)
        stream: Any = self.engine.stream(request)
        with closing(stream):
            for event in stream:
                values = {}
                if readout is not None and event.reading is not None:
                    values = {c: float(v) for c, v in zip(readout.concepts, event.reading[0], strict=True)}
                if event.sample is None:
                    yield Piece(event.text, values, readout is None or readout.z)
                    continue
                done = event.sample
                lines = steering.receipt_lines(done.applied, self.engine.info.n_layers)
                yield Piece(
                    event.text,
                    applied=steering.applied(done.applied),
                    receipt=tuple(lines),
                    finish=done.finish,
                )


def unit_words(z: bool) -> str:
    """What a reading is measured in."""
    return "in standard deviations" if z else "raw: without a tint, since the file stores no mean and std"


def plan_lines(placements: Sequence[Any], depth: int | None) -> list[str]:
    """One line for every concept of a resolved plan's placements."""
    found: dict[tuple[str, str], tuple[list[int], Any]] = {}
    for p in placements:
        source = p.get("source", {})
        key = (str(source.get("op", "edit")), str(source.get("concept", "inline")))
        layers, _ = found.setdefault(key, ([], source.get("dose")))
        layers.append(int(str(p["site"]).split(".")[0].removeprefix("layer_")))
    return [
        f"{op} {concept}{'' if dose is None else f', dose {dose:+.3g}'} at "
        + ", ".join(layer_words(n, depth) for n in sorted(set(layers)))
        for (op, concept), (layers, dose) in found.items()
    ] or ["not steered"]


def number(text: str, what: str) -> float:
    """A finite number that somebody typed."""
    import math

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} is a number, got {text!r}")
    return value
