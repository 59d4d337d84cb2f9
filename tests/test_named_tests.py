"""A page that says which test holds a promise names a test that is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGES = sorted((TESTS.parent / "docs").glob("*.md"))


def named(page: str) -> set[str]:
    """What stands in code marks and begins like a test, or like its material."""
    return set(re.findall(r"`((?:test|vllm)_\w+)`", page))


def known() -> set[str]:
    """Every test function, and every file of the tests."""
    files = list(TESTS.rglob("*.py"))
    functions = re.findall(r"^def (test_\w+)", "\n".join(f.read_text(encoding="utf-8") for f in files), re.M)
    return {*functions, *(f.stem for f in files)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_tests_that_a_page_names_exist(page):
    fields = {"vllm_xargs"}  # of a request
    assert named(page.read_text(encoding="utf-8")) - fields - known() == set()


def test_the_page_of_vllm_names_some_and_a_misspelt_one_is_seen():
    page = (TESTS.parent / "docs" / "vllm.md").read_text(encoding="utf-8")
    assert len(named(page)) > 15
    assert named(page.replace("`test_vllm_pipeline`", "`test_vllm_pipelines`")) - known() == {
        "test_vllm_pipelines"
    }
