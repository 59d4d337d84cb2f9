"""The shape of the house: imports go down only, names mean something, and starting is cheap.

docs/architecture.md draws the storeys; this file holds them, by reading the source rather than running it.
"""

import ast
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import trimtab

PACKAGE = Path(trimtab.__file__).parent
SOURCES = sorted(p for p in PACKAGE.rglob("*.py"))

STOREYS = {
    0: {"errors", "sites", "prompts", "activations", "evidence", "directions", "interventions", "objectives", "plans",
        "resolved", "readouts", "rules", "heads", "records", "formats", "algebra", "safe_range"},
    1: {"data", "extraction", "engines"},
    2: {"training", "evaluation", "analysis", "recipes", "pages", "strips", "conformance"},
    3: {"cli", "server", "explorer", "demo", "clients"},
}  # fmt: skip
STOREY = {room: level for level, rooms in STOREYS.items() for room in rooms}
METHODS, ENGINES = {"data", "extraction"}, {"engines"}
RESOURCES = {"embedded"}  # files rather than code: every storey may read them
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc"}

# Files whose readers import a heavy library; each does so inside a function, which is what is tested.
HEAVY = {"gguf", "torch", "transformers", "vllm", "mlx", "scipy", "sklearn", "matplotlib", "pyarrow"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for p in SOURCES}


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports; with `at_load`, only of what is imported when it loads."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    yield from imports_of(path.read_text(encoding="utf-8"), package, at_load=at_load)


def imports_of(source: str, package: str, *, at_load: bool = False) -> Iterator[str]:
    for node in statements(ast.parse(source), at_load):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                stem = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{stem}.{base}" if base else stem
            # `from . import plans` imports the submodule; `from .plans import X` names no module for X.
            submodules = [f"{base}.{a.name}" for a in node.names if f"{base}.{a.name}" in MODULES]
            yield from submodules or [base]


def statements(node: ast.AST, at_load: bool) -> Iterator[ast.AST]:
    """Every node; with `at_load`, without function bodies and `if TYPE_CHECKING:` blocks."""
    for child in ast.iter_child_nodes(node):
        if at_load and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_load and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child, at_load)


def room(module: str) -> str | None:
    """The room of a trimtab module (`plans`, `engines`, ...); None for the front page and foreign modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "trimtab" and len(parts) > 1 else None


def offences(module: str, imported: Iterator[str]) -> list[str]:
    """What a module imports although its storey may not."""
    here = room(module)
    found = []
    for name in imported:
        there = room(name)
        if here is None or there is None or there == here or there in RESOURCES or here in RESOURCES:
            continue
        up = STOREY[there] > STOREY[here]
        aside = {here, there} & METHODS and {here, there} & ENGINES
        if up or aside:
            found.append(f"{module} imports {name}")
    return found


def test_every_room_has_a_storey():
    rooms = {r for m in MODULES if (r := room(m))}
    assert rooms - set(STOREY) - RESOURCES - {"__main__"} == set()


def test_imports_go_down_only():
    assert [o for m, p in MODULES.items() for o in offences(m, imports(p))] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trimtab.plans", "from trimtab.engines import base"),
        ("trimtab.plans", "def f():\n    from .recipes import extract"),
        ("trimtab.extraction.pca", "from ..engines.base import Request"),
        ("trimtab.engines.reference", "import trimtab.data.pairs"),
        ("trimtab.recipes", "from .cli import main"),
    ],
)
def test_the_storey_check_can_fail(module, source):
    assert offences(module, imports_of(source, module.rpartition(".")[0]))


def test_no_import_cycles():
    graph = {m: {n for n in imports(p, at_load=True) if n in MODULES and n != m} for m, p in MODULES.items()}
    assert cycle(graph) is None


def test_the_cycle_check_can_fail():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    finished: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str] | None:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in finished:
            return None
        for following in sorted(graph.get(node, ())):
            if found := walk(following, [*trail, node]):
                return found
        finished.add(node)
        return None

    return next((found for node in sorted(graph) if (found := walk(node, []))), None)


def test_no_module_is_a_drawer():
    assert [m for m in MODULES if set(m.split(".")) & DRAWERS] == []


def test_values_load_no_heavy_library():
    found = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if STOREY.get(room(module) or "") == 0
        for name in imports(path, at_load=True)
        if name.split(".")[0] in HEAVY
    ]
    assert found == []


def test_public_list_is_sorted_and_complete():
    assert trimtab.__all__ == sorted(trimtab.__all__)
    assert set(trimtab.__all__) == set(trimtab._HOME)
    missing = []
    for name in trimtab.__all__:
        try:
            getattr(trimtab, name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert missing == []


def test_the_type_checker_sees_the_same_public_list():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == trimtab._HOME


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="Steer"):
        trimtab.Steer  # noqa: B018


IMPORT = "import trimtab"
HELP = "from trimtab.cli import main; code = main(['--help']); assert code == 0"


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_starting_loads_neither_numpy_nor_torch(code):
    report = "; import json, sys; print(); print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & (HEAVY | {"numpy", "pydantic", "rich", "safetensors", "yaml"}) == set()


@pytest.mark.parametrize(("code", "budget"), [(IMPORT, 0.15), (HELP, 0.3)], ids=["import", "help"])
def test_starting_is_cheap(code, budget):
    """CPU time rather than wall time, and of the quickest start, so that a busy machine does not fail it; a start waits
    for nothing."""
    if find_spec("click") is None:
        pytest.skip("click is not installed")
    times = [cpu_seconds([sys.executable, "-c", code]) for _ in range(5)]
    assert min(times) < budget, f"CPU seconds of five starts: {times}"


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command and its interpreter."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "TRIMTAB_"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
