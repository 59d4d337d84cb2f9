"""One HTML file without external assets: the frame, the shared style sheet, and tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page; `style` follows the shared style sheet, `script` stands at the end of the body."""
    css = files("trimtab.pages").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{css}{style}</style>\n</head>\n<body>\n"
        f"{body}\n{script}</body>\n</html>\n"
    )


def table(
    head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], caption: str, kind: str = ""
) -> str:
    """A scrolling table; each row is (css class, cells), the first cell its header."""
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(
        f'<tr class="{mark}"><th scope="row">{cells[0]}</th>{"".join(f"<td>{c}</td>" for c in cells[1:])}</tr>'
        for mark, cells in rows
    )
    return (
        f'<div class="scroll {kind}"><table><caption>{caption}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
