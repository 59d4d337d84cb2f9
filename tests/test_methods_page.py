"""docs/methods.md shows the registry as it is."""

import importlib.util
from pathlib import Path

import pytest

from trimtab import extraction

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def refreshed():
    spec = importlib.util.spec_from_file_location("regenerate", DOCS / "regenerate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.refreshed


@pytest.fixture
def page():
    return (DOCS / "methods.md").read_text(encoding="utf-8")


def test_the_table_is_up_to_date(refreshed, page):
    assert refreshed(page) == page, "Run: make docs"
    for method in extraction.METHODS:
        assert f"| `{method}` | " in page


def test_a_stale_table_is_seen(refreshed, page, monkeypatch):
    assert refreshed(page.replace("`trim=0.0`", "`trim=0.2`")) == page
    fewer = {k: v for k, v in extraction.METHODS.items() if k != "ridge"}
    monkeypatch.setattr("trimtab.extraction.METHODS", fewer)
    assert refreshed(page) != page


def test_every_cell_stays_in_its_column(page):
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == len(extraction.METHODS) + 2
    for row in rows:
        assert row.replace("\\|", "").count("|") == 7, row


def test_an_unknown_table_is_refused(refreshed):
    with pytest.raises(SystemExit, match="no table 'engines'"):
        refreshed("<!-- table: engines -->\n<!-- end -->")
