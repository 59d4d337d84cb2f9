"""What is shipped: the wheel holds the model and the texts; the docs show what the commands print."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import trimtab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements):
    return {re.match(r"[\w-]+", r).group().lower() for r in requirements}


def test_one_version():
    assert PROJECT["version"] == trimtab.__version__


def test_the_core_is_torch_free():
    assert not names(PROJECT["dependencies"]) & {"torch", "transformers", "scipy", "scikit-learn"}


def test_constraints_pin_every_direct_dependency_exactly():
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", x) for x in lines)
    extras = PROJECT["optional-dependencies"]
    wanted = names(PROJECT["dependencies"]) | names(extras["hf"] + extras["eval"] + extras["dev"])
    assert wanted - {"trimtab"} <= names(lines)


def test_nothing_that_is_shipped_is_ignored():
    """hatchling leaves out what git ignores, and the package would then install without its model."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    package = ROOT / "src" / "trimtab"
    data = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".pyo")]
    listed = "\n".join(str(p.relative_to(ROOT)) for p in data)
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        input=listed,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == ""


def test_docs_show_what_the_commands_print():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "regenerate.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}Run: make docs"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("trimtab/")}
    package = ROOT / "src"
    shipped = {
        str(p.relative_to(package))
        for p in (package / "trimtab").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert inside == shipped
    data = {"data/neutral.txt", "data/neutral_questions.txt", "pages/page.css", "strips/strips.js"}
    assert {"trimtab/py.typed", *(f"trimtab/{name}" for name in data)} <= inside


def test_no_two_test_files_have_one_name():
    """pytest imports them by their bare names."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
