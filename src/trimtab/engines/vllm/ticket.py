"""What a request carries into vLLM: its plan without the arrays, and what to capture and to read.

It travels as one JSON string in `SamplingParams.extra_args`: strings pass every transport of vLLM, and the scheduler,
which keys the prefix cache, reads the same words as the worker, which steers. Arrays go ahead of it, by content hash.
"""

from __future__ import annotations

import functools
import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.errors import InputError
from trimtab.prompts import Range
from trimtab.resolved import ResolvedPlan

#: The key of `extra_args`.
KEY = "trimtab"
VERSION = 1


def new_keys() -> Callable[[], str]:
    """A function, for any thread, that gives names for requests: none is given twice, by whomever."""
    run, count = uuid.uuid4().hex[:12], itertools.count()
    return lambda: f"trimtab-{run}-{next(count)}"


@dataclass(frozen=True)
class Ticket:
    """`key` names the request to whoever waits for its captures; layers are those of `resid_post`.

    `plan` is `ResolvedPlan.to_json` without its arrays, None for a plain request. `capture` are the layers whose states
    are returned, at the absolute positions `ranges`; `readout` names a readout that the worker holds, read from
    position `reads_from` on. `rules` are clauses (`judge.Clause`) that the worker judges on that readout from position
    `judged_from` on. `epoch` separates the cached keys and values of before and after a request was lost.
    """

    key: str
    epoch: int = 0
    plan: Mapping[str, Any] | None = None
    first: int | None = None
    capture: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()
    at: str = "after"
    readout: str | None = None
    reads_at: str = "after"
    reads_from: int = 0
    rules: tuple[Mapping[str, Any], ...] = ()
    judged_from: int = 0

    @property
    def switches_from(self) -> int | None:
        """The first position that a rule may steer, depending on what the model says; None where none can."""
        return self.judged_from + 1 if any(r["plan"] is not None for r in self.rules) else None

    @property
    def acts_from(self) -> int | None:
        """The first position that may be steered at all."""
        return min((p for p in (self.first, self.switches_from) if p is not None), default=None)

    @property
    def fingerprint(self) -> str:
        """The plan's fingerprint; "plain" without one."""
        return "plain" if self.plan is None else str(self.plan["fingerprint"])

    def to_text(self) -> str:
        """One JSON string."""
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: Any) -> Ticket:
        """Read `to_text` back."""
        try:
            data = json.loads(text)
            if data.pop("version") != VERSION:
                raise InputError(f"the request speaks another version of trimtab than the worker, {VERSION}")
            data["capture"] = tuple(data["capture"])
            data["ranges"] = tuple((a, b) for a, b in data["ranges"])
            data["rules"] = tuple(data["rules"])
            return cls(**data)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"extra_args[{KEY!r}] is no request of trimtab: {error!r}") from error


def ticket_of(extra_args: Mapping[str, Any] | None) -> Ticket | None:
    """The ticket among a request's extra arguments; None for a request that has nothing to do with trimtab."""
    text = (extra_args or {}).get(KEY)
    return None if text is None else _parsed(text)


def first_steered(extra_args: Mapping[str, Any] | None) -> int | None:
    """The first token that a request's plan or rules may act on; None for a plain one, 0 where the ticket cannot be
    read."""
    try:
        ticket = ticket_of(extra_args)
    except InputError:
        return 0
    return None if ticket is None else ticket.acts_from


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> Ticket:
    return Ticket.from_text(text)


def plan_json(plan: ResolvedPlan) -> Mapping[str, Any] | None:
    """A plan's JSON without arrays; None where it does nothing."""
    if not plan.effective:
        return None
    data = plan.to_json()
    del data["vectors"]
    return data
