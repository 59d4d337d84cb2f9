"""Run folders: what was asked, what is finished, and how it ended.

    runs/<time>-<verb>-<slug>/
        config.yaml     the resolved settings; `--config` accepts it
        run.json        status, versions, seed, model revision, counts
        samples.jsonl   append-only, one record per finished unit, keyed by a hash of the unit
        metrics.json    figures, written at the end

The same settings, identity and version find the earlier folder again and skip its finished units. A unit
that failed is recorded with its reason and tried again by the next run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trimtab import __version__
from trimtab.errors import FormatError, InputError
from trimtab.records import unit_key

from .output import finite, json_line


class Run:
    """One run folder, open for writing; a context manager that records how the run ended."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self.done: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self._samples = (folder / "samples.jsonl").open("a+b")
        _claim(self._samples, folder)
        self._recover()
        self._write_about("running")

    @classmethod
    def open(
        cls,
        root: Path,
        verb: str,
        slug: str,
        *,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        seed: int = 0,
        revision: str | None = None,
        fresh: bool = False,
    ) -> Run:
        """Continue the newest run with the same configuration, or begin a new folder."""
        configuration = unit_key([verb, __version__, settings, identity, revision])
        slug = _slug(slug)
        folder = None if fresh else _find(root, verb, slug, configuration)
        if folder is None:
            folder = _create(root, f"{verb}-{slug}")
            _write_yaml(folder / "config.yaml", settings)
        about = {
            "verb": verb,
            "configuration": configuration,
            "identity": finite(identity),
            "seed": seed,
            "model_revision": revision,
            "versions": versions(),
            "started": _now(),
        }
        return cls(folder, about)

    def pending(self, units: Mapping[str, Any] | list[Any]) -> Iterator[Any]:
        """The units that are not finished yet, in order."""
        values = units.values() if isinstance(units, Mapping) else units
        return (unit for unit in values if unit_key(unit) not in self.done)

    def finish(self, unit: Any, record: Mapping[str, Any]) -> None:
        """Keep the record of a finished unit; it is on disk when this returns."""
        key = unit_key(unit)
        self._append({"key": key, **record})
        self.done[key] = {"key": key, **record}
        self.failed.pop(key, None)

    def fail(self, unit: Any, reason: str) -> None:
        """Record that a unit failed; the run goes on and ends as partial."""
        key = unit_key(unit)
        self._append({"key": key, "unit": unit, "error": reason})
        self.failed[key] = reason

    def metrics(self, figures: Mapping[str, Any]) -> None:
        """Write the figures of the run."""
        _write_atomically(self.folder / "metrics.json", json_line(figures) + "\n")

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "partial" if self.failed else "complete"
        if kind is not None:
            status = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._write_about(status, finished=_now(), error=None if error is None else str(error))
        self._samples.close()
        if status == "interrupted":
            kept = f"{len(self.done)} finished units are kept in {self.folder}"
            print(f"{kept}; the same command continues there", file=sys.stderr)

    def _append(self, record: Mapping[str, Any]) -> None:
        self._samples.write((json_line(record) + "\n").encode())
        self._samples.flush()

    def _recover(self) -> None:
        """Read the finished units; a last line torn by a kill is cut off."""
        from trimtab.data.reading import appended  # a start that resumes nothing should not pay for it

        try:
            records, whole = appended(self.folder / "samples.jsonl")
        except FormatError as error:
            raise FormatError(f"{error}. Use --fresh to begin a new run.") from error
        self._samples.truncate(whole)
        for where, record in records:
            if not isinstance(record, dict) or "key" not in record:
                raise FormatError(f"{where} is not a record. Use --fresh to begin a new run.")
            if "error" not in record:
                self.done[record["key"]] = record

    def _write_about(self, status: str, **more: Any) -> None:
        counts = {"done": len(self.done), "failed": len(self.failed)}
        content = finite({"status": status, **self.about, **counts, "failures": self.failed, **more})
        _write_atomically(self.folder / "run.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of what can change a result, read without importing the packages."""
    from importlib import metadata  # 25 ms, which every `--help` would pay

    found = {"trimtab": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("numpy", "safetensors", "torch", "transformers", "scikit-learn", "vllm", "mlx", "mlx-lm"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _find(root: Path, verb: str, slug: str, configuration: str) -> Path | None:
    for about in sorted(root.glob(f"*-{verb}-{slug}*/run.json"), reverse=True):
        try:
            if json.loads(about.read_text())["configuration"] == configuration:
                return about.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a folder of something else, or torn: never a reason to stop
    return None


def _create(root: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
        folder = root / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except NotADirectoryError:
            raise InputError(f"{root} is not a folder; name another with --runs-dir.") from None
        except OSError as error:
            mend = "name a folder you may write with --runs-dir"
            raise InputError(f"cannot make a run folder in {root}: {error.strerror}; {mend}.") from None
    raise InputError(f"no free name for a run in {root}; name another folder with --runs-dir.")


def _claim(samples: Any, folder: Path) -> None:
    """Two processes that append to one file would interleave their records."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: no lock to take
        return
    try:
        fcntl.flock(samples, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"another process is writing {folder}; wait for it, or use --fresh.") from None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "run"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    import yaml

    _write_atomically(path, yaml.safe_dump(finite(content), sort_keys=True, allow_unicode=True))


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
