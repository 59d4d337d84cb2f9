"""Where results go: checked before anything expensive begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trimtab.errors import InputError


def check_writable(path: Path) -> Path:
    """Refuse a target that could not be written: a folder of that name, a read-only folder, a file in the way.

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
