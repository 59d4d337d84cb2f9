"""Where results go: checked before anything expensive begins."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from trimtab.errors import InputError


def check_writable(path: Path) -> Path:
    """Refuse a target that could not be written: a folder of that name, a read-only folder, a file in the
    way.

    Asks the file system rather than the permission bits, which say nothing to root or on a read-only mount.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file with -o")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is not a folder; choose another place with -o")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {folder} is read-only ({error.strerror}); choose another place with -o"
        ) from error
    return path


def check_manifest(path: Path) -> None:
    """Refuse to put a manifest (NAME.json) over a file that is none: the corpus itself may be called
    NAME.json.
    """
    beside = path.with_suffix(".json")
    if not beside.exists():
        return
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != "trimtab":
        raise InputError(
            f"writing {path} would replace {beside}, which is not its manifest; choose another name with -o"
        )
