"""Run folders: finished units survive, and the same command continues where it stopped."""

import json

import click
import pytest
import yaml

from trimtab import cli
from trimtab.cli.frame import run as run_command
from trimtab.cli.frame import verb
from trimtab.cli.runs import Run, unit_key
from trimtab.cli.verbs import VerbGroup
from trimtab.errors import FormatError, InputError


def opened(root, **changes):
    settings = {"layers": "all", "seed": 0} | changes.pop("settings", {})
    return Run.open(root, "sweep", "My model!", settings=settings, identity={"data": "abc"}, **changes)


def about(run):
    return json.loads((run.folder / "run.json").read_text())


def test_what_a_run_leaves(tmp_path):
    with opened(tmp_path, seed=7, revision="r1") as run:
        assert about(run)["status"] == "running"
        run.finish({"layer": 1}, {"score": float("nan")})
        run.metrics({"best": 0.5})
    assert run.folder.name.endswith("-sweep-my-model")
    told = about(run)
    assert (told["status"], told["seed"], told["model_revision"], told["done"]) == ("complete", 7, "r1", 1)
    assert {"trimtab", "python", "numpy"} <= set(told["versions"])
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == {"layers": "all", "seed": 0}
    (line,) = (run.folder / "samples.jsonl").read_text().splitlines()
    assert json.loads(line) == {"key": unit_key({"layer": 1}), "score": None}
    assert json.loads((run.folder / "metrics.json").read_text()) == {"best": 0.5}


def test_the_same_configuration_resumes(tmp_path):
    units = [{"layer": n} for n in range(4)]
    with opened(tmp_path) as first:
        for unit in units[:2]:
            first.finish(unit, {"score": 1})
    with opened(tmp_path) as second:
        assert second.folder == first.folder
        assert list(second.pending(units)) == units[2:]
        assert second.done[unit_key(units[0])]["score"] == 1


@pytest.mark.parametrize(
    "change",
    [{"settings": {"layers": "3"}}, {"revision": "other"}, {"fresh": True}],
    ids=lambda c: next(iter(c)),
)
def test_another_configuration_or_fresh_begins_anew(tmp_path, change):
    with opened(tmp_path) as first:
        first.finish({"layer": 1}, {})
    with opened(tmp_path, **change) as second:
        assert second.folder != first.folder and not second.done


def test_an_interrupted_run_keeps_its_units(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as run:
        run.finish({"layer": 1}, {})
        raise KeyboardInterrupt
    assert about(run)["status"] == "interrupted"
    assert "1 finished units are kept" in capsys.readouterr().err
    with opened(tmp_path) as again:
        assert len(again.done) == 1


def test_a_failed_run_says_why(tmp_path):
    with pytest.raises(InputError), opened(tmp_path) as run:
        raise InputError("no such layer")
    assert (about(run)["status"], about(run)["error"]) == ("failed", "no such layer")


def test_failed_units_are_named_and_tried_again(tmp_path):
    with opened(tmp_path) as run:
        run.fail({"layer": 1}, "out of memory")
    assert about(run)["status"] == "partial"
    assert list(about(run)["failures"].values()) == ["out of memory"]
    with opened(tmp_path) as again:
        assert list(again.pending([{"layer": 1}])) == [{"layer": 1}]
        again.finish({"layer": 1}, {})
    assert about(again)["status"] == "complete"


def test_a_torn_last_line_is_cut_off(tmp_path):
    with opened(tmp_path) as run:
        run.finish({"layer": 1}, {})
    with (run.folder / "samples.jsonl").open("a") as samples:
        samples.write('{"key": "abc", "sco')
    with opened(tmp_path) as again:
        assert len(again.done) == 1
        again.finish({"layer": 2}, {})
    lines = (run.folder / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [unit_key({"layer": 1}), unit_key({"layer": 2})]


def test_a_broken_line_inside_is_refused(tmp_path):
    with opened(tmp_path) as run:
        run.finish({"layer": 1}, {})
    samples = run.folder / "samples.jsonl"
    samples.write_text("nonsense\n" + samples.read_text())
    with pytest.raises(FormatError, match="line 1"):
        opened(tmp_path)


def test_two_processes_cannot_write_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    with opened(tmp_path), pytest.raises(InputError, match="another process"):
        opened(tmp_path)


def test_a_file_where_the_runs_folder_should_be(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        opened(tmp_path / "runs")


def test_keys_do_not_depend_on_order():
    assert unit_key({"a": 1, "b": [2]}) == unit_key({"b": [2], "a": 1}) != unit_key({"a": 1, "b": [3]})


@verb("sweep", runs=True)
@click.option("--fails", is_flag=True)
def sweep(desk, fails):
    """Two units, of which one may fail."""
    with desk.run("demo") as run:
        before = len(run.done)
        run.finish("one", {})
        if fails:
            run.fail("two", "no luck")
    desk.result({"before": before})


def test_a_verb_with_failed_units_exits_partial(tmp_path, capsys):
    group = VerbGroup("trimtab")
    group.add_command(sweep)

    def call(*flags):
        code = run_command(["sweep", "--json", "--runs-dir", str(tmp_path), *flags], group=group)
        return code, json.loads(capsys.readouterr().out)["before"]

    assert call("--fails") == (3, 0)
    assert call("--fails", "--quiet") == (3, 1)  # how it is shown does not make it another run
    assert call() == (0, 0)
    assert call("--fresh") == (0, 0)


def test_main_is_the_door():
    assert cli.main(["--version"]) == 0
