"""What a finished run leaves for readers: report.html, table.md, table.csv (and one CSV per further table), card.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.evaluation.reporting.paper import Paper


@dataclass(frozen=True)
class Report:
    """A page, its tables (the first is the main one) and the block for a model card."""

    page: str
    tables: tuple[Paper, ...]
    card: str = ""

    def files(self) -> dict[str, str]:
        """Name and content of every file."""
        found = {"report.html": self.page, "table.md": tables_markdown(self.tables)}
        for i, table in enumerate(self.tables):
            found[f"table-{table.name}.csv" if i else "table.csv"] = table.csv()
        return found | ({"card.md": self.card} if self.card else {})

    def write(self, folder: Path) -> list[str]:
        """Write all of them; the paths, the page first."""
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, content in self.files().items():
            temporary = folder / f"{name}.part"
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, folder / name)
            written.append(str(folder / name))
        return written


def tables_markdown(tables: Sequence[Paper]) -> str:
    """All tables of a run in one file."""
    return "\n".join(t.markdown() for t in tables)
