"""Run the checks of an engine on a model: start it, compare, report every name exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from trimtab.conformance.registry import CHECKS, Failed, NotRun, TooWeak, names_of
from trimtab.conformance.report import ERROR, FAIL, PASS, Entry, Report
from trimtab.conformance.stands import stand_of
from trimtab.conformance.subject import Subject
from trimtab.conformance.truth import Truth, unavailable
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.errors import InputError, UnknownName, Unsupported

Tell = Callable[[Entry], None]
#: How a comparison is chosen: where possible, always (an error where it is not), never.
COMPARE = ("auto", "transformers", "itself")


def verify(
    model: str,
    engine: str,
    *,
    vectors: ConceptVectors | None = None,
    only: Collection[str] = (),
    compare: str = "auto",
    seed: int = 0,
    tell: Tell | None = None,
    **options: Any,
) -> Report:
    """Start `engine` on a local model folder (or "embedded") and run its checks, or those named in `only`.

    `options` go to the engine's `load`. `compare` "transformers" insists on the comparison in float32, "itself" leaves
    it out; `tell(entry)` hears of every check as it ends.
    """
    check_names(engine, only)
    if compare not in COMPARE:
        raise UnknownName.of("comparison", compare, COMPARE)
    folder, stand, started = _folder(model, engine), stand_of(engine), time.monotonic()
    missing = unavailable(folder) if folder is not None else _elsewhere(engine)
    if compare == "transformers" and missing:
        raise InputError(f"cannot compare with Transformers: {missing}; use --compare itself")
    runner = load_engine(_name(model, engine), engine, **{**stand.options(*_size(folder)), **options})
    try:
        truth = Truth(folder) if folder is not None and not missing and compare != "itself" else None
        report = run_checks(
            Subject(runner, stand, truth, vectors, seed), only=only, tell=tell, partial=engine == "remote"
        )
    finally:
        runner.close()
    why = missing or "asked for"
    report.about = {
        "engine": engine,
        "model": model,
        "compared_with": "transformers float32" if truth is not None else f"itself ({why})",
        **report.about,
    }
    report.seconds = time.monotonic() - started
    return report


def run_checks(
    subject: Subject, *, only: Collection[str] = (), tell: Tell | None = None, partial: bool = False
) -> Report:
    """The checks of the subject's engine on a subject that is ready. `partial` is for engines that are not trimtab's,
    and for whatever a server runs: a check that asks for what they do not offer (`Unsupported`) is then not run,
    instead of an error."""
    names = names_of(subject.stand.engine)
    info, bounds = subject.engine.info, subject.bounds
    report = Report(
        {
            "dtype": info.dtype,
            "layers": list(subject.layers),
            "bounds": {"state": bounds.state, "logprob": bounds.logprob, "distribution": bounds.table},
            "plain_error": dict(zip(("state", "logprob", "distribution"), subject.noise, strict=True)),
        }
    )
    for name in names:
        if only and name not in only:
            report.not_run.append((name, "not chosen"))
            continue
        entry = _run(name, subject, report, partial)
        if entry is not None and tell is not None:
            tell(entry)
    told = [e.name for e in report.checks] + [n for n, _ in report.not_run]
    if sorted(told) != sorted(names):
        raise RuntimeError(f"the report does not name every check once: {sorted(set(names) ^ set(told))}")
    return report


def _run(name: str, subject: Subject, report: Report, partial: bool = False) -> Entry | None:
    started = time.monotonic()
    try:
        status, detail = PASS, CHECKS[name].run(subject)
    except NotRun as reason:
        report.not_run.append((name, str(reason)))
        return None
    except Failed as failure:
        status, detail = FAIL, str(failure)
    except Unsupported as lack:
        if partial:
            report.not_run.append((name, str(lack)))
            return None
        status, detail = ERROR, f"Unsupported: {lack}"
    except TooWeak as weak:
        status, detail = ERROR, str(weak)
    except Exception as error:  # whatever an engine throws is a finding
        status, detail = ERROR, f"{type(error).__name__}: {error}"
    entry = Entry(name, status, detail, time.monotonic() - started)
    report.checks.append(entry)
    return entry


def check_names(engine: str, only: Collection[str]) -> None:
    """Refuse names that are not on the engine's list."""
    known = names_of(engine)
    for name in only:
        if name not in known:
            raise UnknownName.of(f"check of the {engine} engine", name, known)


def _elsewhere(engine: str) -> str:
    return "the weights are the server's" if engine == "remote" else "the model is built in, and numpy"


def _name(model: str, engine: str) -> str:
    return "tiny" if engine == "reference" else model


def _folder(model: str, engine: str) -> Path | None:
    """The checkpoint's folder; None for the reference engine, which has a model of its own, and for a server's."""
    if engine == "remote":
        return None
    if engine == "reference":
        if model not in ("tiny", "embedded"):
            raise InputError(f"the reference engine runs its built-in model only, not {model}: name it tiny")
        return None
    if model == "embedded":
        from trimtab import embedded

        return embedded.MODEL
    folder = Path(model).expanduser()
    if not (folder / "config.json").exists():
        raise InputError(
            f"{model} is no model folder: verify takes a local folder with config.json, or embedded"
        )
    return folder


def _size(folder: Path | None) -> tuple[int | None, int | None]:
    """(context, layers) that the configuration states."""
    import json

    if folder is None:
        return None, None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**config, **(config.get("text_config") or {})}
    return config.get("max_position_embeddings"), config.get("num_hidden_layers")
