"""What a verification found: every name on the engine's list exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, ERROR = "pass", "fail", "error"


@dataclass(frozen=True)
class Entry:
    """One check that ran: `status` is pass, fail (the promise is broken) or error (it could not be tried)."""

    name: str
    status: str
    detail: str
    seconds: float = 0.0


@dataclass
class Report:
    """`checks` that ran and `not_run` (name, reason); `about` says on what."""

    about: Mapping[str, Any] = field(default_factory=dict)
    checks: list[Entry] = field(default_factory=list)
    not_run: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many checks ended how."""
        found = {s: sum(e.status == s for e in self.checks) for s in (PASS, FAIL, ERROR)}
        return {**found, "not_run": len(self.not_run)}

    @property
    def passed(self) -> bool:
        """Whether nothing failed and everything could be tried; what was not run is no failure."""
        return bool(self.checks) and all(e.status == PASS for e in self.checks)

    @property
    def verdict(self) -> str:
        """One sentence."""
        n = self.counts
        parts = [f"{n[PASS]} of {len(self.checks)} checks pass"]
        parts += [f"{n[s]} {word}" for s, word in ((FAIL, "fail"), (ERROR, "end in an error")) if n[s]]
        if self.not_run:
            parts.append(f"{n['not_run']} not run")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The record: `checks`, `not_run`, `summary`."""
        return {
            "checks": [{"name": e.name, "status": e.status, "detail": e.detail} for e in self.checks],
            "not_run": [{"name": name, "reason": reason} for name, reason in self.not_run],
            "summary": {
                **self.about,
                **self.counts,
                "verdict": self.verdict,
                "seconds": round(self.seconds, 1),
            },
        }
