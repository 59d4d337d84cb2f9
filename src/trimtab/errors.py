"""Every error trimtab raises on purpose.

    TrimtabError                 exit code 1   something trimtab could not do
    ├── InputError               exit code 2   data, a file, a flag or a plan is wrong (also a ValueError)
    │   ├── UnknownName          exit code 2   a name that is not there; lists what is (also a LookupError)
    │   ├── FormatError          exit code 2   a file is missing, truncated or of another kind
    │   └── Mismatch             exit code 2   a vector and a model (or two files) do not fit each other
    ├── Unsupported              exit code 2   this engine cannot do what the plan says; raised before it runs
    ├── MissingDependency        exit code 1   an optional package is absent; names the install line
    └── SteeringLost             exit code 1   a run did not apply what was asked; its output is withheld

A message names the thing, what was expected and the line that mends it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrimtabError(Exception):
    """Base of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(TrimtabError, ValueError):
    """What came in is wrong; nothing was run and nothing was written."""

    exit_code = 2


class UnknownName(InputError, LookupError):
    """A name that is not among the known ones."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[object], mend: str = "") -> UnknownName:
        """Build the message: the kind, the name, the nearest known name and all of them (at most 30)."""
        names = sorted(str(k) for k in known)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names[:30]) + (f", … ({len(names)} in all)" if len(names) > 30 else "")
        return cls(
            f"unknown {kind} {str(name)!r}.{hint} Known: {shown or 'none'}.{' ' + mend if mend else ''}"
        )


class FormatError(InputError):
    """A file that cannot be read as what it should be."""


class Mismatch(InputError):
    """Two things that do not fit: a vector of another model, width or stream."""


class Unsupported(TrimtabError):
    """The engine cannot do this, and says so before it runs anything."""

    exit_code = 2


class MissingDependency(TrimtabError, ImportError):
    """An optional package is needed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependency:
        """Name the package, why it is needed and the line that installs it."""
        return cls(f"{purpose} needs {package}, which is not installed. Run: pip install 'trimtab[{extra}]'")


class SteeringLost(TrimtabError):
    """A request whose steps did not all carry its plan: the output is withheld, never served plain."""
