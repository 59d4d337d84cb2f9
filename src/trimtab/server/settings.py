"""What the operator allows, from the environment: most people start vLLM themselves, and vLLM has no flags of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import InputError

#: The names under which other tools configure the same thing.
ALIASES = {
    "TRIMTAB_READOUT_VECTORS": "VLLM_READOUT_VECTORS",
    "TRIMTAB_READOUT_MANIFEST": "VLLM_READOUT_MANIFEST",
}


@dataclass(frozen=True)
class Settings:
    """`readout` are vector files that are loaded at the start (the first one is read by default), `manifest` the
    description of the first one where it stands elsewhere than in or beside the file; `folder` is where clients may
    load vectors from (None: from nowhere). `rules` is a file of rules that hold for every request, and `feed` lets
    clients watch the readings of all traffic. `max_rows` is how many samples our own server runs at once, and
    `max_waiting` how many requests may wait before the next one is refused. Sizes are in bytes, `capture_seconds` is
    how long a capture waits to be fetched, `max_requests` how many requests may be under way at once, and
    `max_seconds` how long one may take. `log_prompts` puts the text of requests and answers into the log, which
    otherwise has none.
    """

    readout: tuple[Path, ...] = ()
    manifest: Path | None = None
    folder: Path | None = None
    inline: bool = False
    max_plan_bytes: int = 1 << 20
    max_placements: int = 64
    max_files: int = 64
    max_capture_bytes: int = 256 << 20
    max_held_bytes: int = 1 << 30
    capture_seconds: float = 300.0
    rules: Path | None = None
    feed: bool = False
    max_rows: int = 16
    max_waiting: int = 256
    max_body_bytes: int = 8 << 20
    max_requests: int = 256
    max_seconds: float = 600.0
    log_prompts: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """`TRIMTAB_READOUT_VECTORS` (several files: separated as in PATH), `TRIMTAB_READOUT_MANIFEST`,
        `TRIMTAB_VECTOR_DIR`, `TRIMTAB_ALLOW_INLINE`, `TRIMTAB_RULES`, `TRIMTAB_FEED`, `TRIMTAB_LOG_PROMPTS`, and
        the limits `TRIMTAB_MAX_…` and `TRIMTAB_CAPTURE_SECONDS`."""

        def text(name: str) -> str:
            return environment.get(name) or environment.get(ALIASES.get(name, ""), "")

        def number(name: str, default: int) -> int:
            given = text(name)
            if not given:
                return default
            if not given.isdecimal() or int(given) < 1:
                raise InputError(f"{name} is a whole number from 1 on, got {given!r}")
            return int(given)

        manifest, folder = text("TRIMTAB_READOUT_MANIFEST"), text("TRIMTAB_VECTOR_DIR")
        if folder and not Path(folder).is_dir():
            raise InputError(f"TRIMTAB_VECTOR_DIR names {folder}, which is no folder")
        return cls(
            tuple(Path(p) for p in text("TRIMTAB_READOUT_VECTORS").split(os.pathsep) if p),
            Path(manifest) if manifest else None,
            Path(folder) if folder else None,
            _yes("TRIMTAB_ALLOW_INLINE", text("TRIMTAB_ALLOW_INLINE")),
            number("TRIMTAB_MAX_PLAN_BYTES", cls.max_plan_bytes),
            number("TRIMTAB_MAX_PLACEMENTS", cls.max_placements),
            number("TRIMTAB_MAX_FILES", cls.max_files),
            number("TRIMTAB_MAX_CAPTURE_BYTES", cls.max_capture_bytes),
            number("TRIMTAB_MAX_HELD_BYTES", cls.max_held_bytes),
            float(number("TRIMTAB_CAPTURE_SECONDS", int(cls.capture_seconds))),
            Path(text("TRIMTAB_RULES")) if text("TRIMTAB_RULES") else None,
            _yes("TRIMTAB_FEED", text("TRIMTAB_FEED")),
            max_rows=number("TRIMTAB_MAX_ROWS", cls.max_rows),
            max_waiting=number("TRIMTAB_MAX_WAITING", cls.max_waiting),
            max_body_bytes=number("TRIMTAB_MAX_BODY_BYTES", cls.max_body_bytes),
            max_requests=number("TRIMTAB_MAX_REQUESTS", cls.max_requests),
            max_seconds=float(number("TRIMTAB_MAX_SECONDS", int(cls.max_seconds))),
            log_prompts=_yes("TRIMTAB_LOG_PROMPTS", text("TRIMTAB_LOG_PROMPTS")),
        )


def _yes(name: str, text: str) -> bool:
    if text.lower() in ("", "0", "false", "no"):
        return False
    if text.lower() in ("1", "true", "yes"):
        return True
    raise InputError(f"{name} is 1 or 0, got {text!r}")
