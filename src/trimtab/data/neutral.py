"""The neutral pool: short everyday texts, shipped with the package, on which typical norms and means are
measured.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources


@functools.cache
def neutral_texts() -> tuple[str, ...]:
    """Facts and instructions without strong feeling, 20 to 60 words each, one per line of `neutral.txt`."""
    text = resources.files("trimtab.data").joinpath("neutral.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


@functools.cache
def neutral_hash() -> str:
    """Hash of the texts; it goes into every manifest, because norms measured on other texts differ."""
    return hashlib.sha256("\n".join(neutral_texts()).encode()).hexdigest()[:32]
