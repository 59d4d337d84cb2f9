"""The frame that every verb stands in: where settings come from, what is printed where, how it ends."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from trimtab.cli.frame import Desk, run, verb
from trimtab.cli.output import finite, json_line
from trimtab.cli.progress import Progress
from trimtab.cli.verbs import VERBS, VerbGroup
from trimtab.errors import InputError, TrimtabError, Unsupported


@verb("probe", output="Where to write.")
@click.argument("model")
@click.option("--layers", default="all")
@click.option("--max-tokens", type=int, default=16)
@click.option("--prompt", multiple=True)
@click.option("--greedy", is_flag=True)
@click.option("--chat/--bare", default=None)
@click.option("--raises", default="")
def probe(desk, model, layers, max_tokens, prompt, greedy, chat, raises, output):
    """A verb that shows what it was given."""
    print("noise from a library")
    kinds = {
        "input": InputError,
        "unsupported": Unsupported,
        "failed": TrimtabError,
        "bug": ZeroDivisionError,
    }
    if raises == "os":
        Path("/no/such/folder/file").write_text("x")
    if raises == "interrupt":
        raise KeyboardInterrupt
    if raises:
        raise kinds[raises]("the site 'x' is unknown. Use resid_post.")
    record = {
        "model": model,
        "layers": layers,
        "max_tokens": max_tokens,
        "prompt": list(prompt),
        "greedy": greedy,
        "seed": desk.seed,
        "settings": desk.settings,
        "command": desk.command,
        "bad": [math.nan, math.inf],
    }
    desk.note("a note")
    desk.result(record, text=f"layers {layers}")


@verb("mute")
def mute(desk):
    """A verb that forgets its result."""


@pytest.fixture
def trim(capsys, monkeypatch):
    """Run a command line and return exit code, stdout and stderr."""
    for name in list(__import__("os").environ):
        if name.startswith("TRIMTAB_"):
            monkeypatch.delenv(name)
    group = VerbGroup("trimtab")
    group.add_command(probe)
    group.add_command(mute)

    def call(*argv):
        capsys.readouterr()
        code = run([str(a) for a in argv], group=group)
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return call


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


def record(result):
    code, out, _ = result
    assert code == 0, result
    assert out.count("\n") == 1
    return json.loads(out)


# --- where a value comes from


def test_flag_over_environment_over_file_over_default(trim, config, monkeypatch):
    path = config("layers: from-file\nmax-tokens: 3\nseed: 5\n")
    assert record(trim("probe", "m", "--json"))["layers"] == "all"
    assert record(trim("probe", "m", "--json", "--config", path))["layers"] == "from-file"
    monkeypatch.setenv("TRIMTAB_LAYERS", "from-environment")
    seen = record(trim("probe", "m", "--json", "--config", path))
    assert (seen["layers"], seen["max_tokens"], seen["seed"]) == ("from-environment", 3, 5)
    assert (
        record(trim("probe", "m", "--json", "--config", path, "--layers", "from-flag"))["layers"]
        == "from-flag"
    )


def test_environment_alone_and_config_named_by_environment(trim, config, monkeypatch):
    monkeypatch.setenv("TRIMTAB_MAX_TOKENS", "4")
    monkeypatch.setenv("TRIMTAB_JSON", "1")
    monkeypatch.setenv("TRIMTAB_CONFIG", str(config("greedy: true\n")))
    seen = record(trim("probe", "m"))
    assert (seen["max_tokens"], seen["greedy"]) == (4, True)


def test_a_repeated_flag_in_the_environment_keeps_its_spaces(trim, monkeypatch):
    monkeypatch.setenv("TRIMTAB_PROMPT", "Once upon a time")
    assert record(trim("probe", "m", "--json"))["prompt"] == ["Once upon a time"]
    monkeypatch.setenv("TRIMTAB_PROMPT", '["one", "two words"]')
    assert record(trim("probe", "m", "--json"))["prompt"] == ["one", "two words"]


def test_positional_arguments_and_lists_in_the_file(trim, config):
    seen = record(trim("probe", "--json", "--config", config("model: m\nlayers: [12, 18]\nprompt: hello\n")))
    assert (seen["model"], seen["layers"], seen["prompt"]) == ("m", "12,18", ["hello"])


def test_the_command_line_that_asks_for_the_same_again(trim, config, monkeypatch):
    """Whatever was said by the environment or a file stands in it; defaults and presentation do not."""
    monkeypatch.setenv("TRIMTAB_MAX_TOKENS", "5")
    argv = (
        "probe",
        "a model",
        "--config",
        config("layers: 12-16\nprompt: [one, two words]"),
        "--greedy",
        "--json",
    )
    first = record(trim(*argv, "--seed", 3, "-o", "x"))
    assert first["command"].startswith("trimtab probe 'a model' ") and "--json" not in first["command"]
    for part in (
        "--layers 12-16",
        "--max-tokens 5",
        "--prompt one --prompt 'two words'",
        "--greedy",
        "--seed 3",
    ):
        assert part in first["command"]
    monkeypatch.delenv("TRIMTAB_MAX_TOKENS")
    again = record(trim(*shlex.split(first["command"])[1:], "--json"))
    assert {**again, "settings": 0} == {**first, "settings": 0}
    assert record(trim("probe", "m", "--json"))["command"] == "trimtab probe m"


def test_the_resolved_settings_are_a_config_file(trim, config, monkeypatch):
    monkeypatch.setenv("TRIMTAB_LAYERS", "50%")
    first = record(trim("probe", "m", "--json", "--prompt", "a", "--prompt", "b", "-o", "x", "--seed", 3))
    monkeypatch.delenv("TRIMTAB_LAYERS")
    again = record(trim("probe", "--config", config(yaml.safe_dump(first["settings"]))))
    assert again == first


@pytest.mark.parametrize(
    "argv",
    [
        ("--layers", "3", "--layers", "5"),
        ("-o", "x", "--output", "y"),
        ("--chat", "--bare"),
        ("--seed=1", "--seed=1"),
    ],
)
def test_a_flag_of_one_value_given_twice_is_refused(trim, argv):
    """The last one would win, and nobody would be told."""
    code, out, err = trim("probe", "m", *argv)
    name = (
        max((a for a in argv if a.startswith("--")), key=len).partition("=")[0]
        if "--bare" not in argv
        else "--chat"
    )
    assert (code, out) == (2, "") and f"{name} takes one value, and is given 2 times" in err


@pytest.mark.parametrize("text", ["layers: 3\nlayers: 5\n", "max-tokens: 3\nmax_tokens: 5\n"])
def test_a_key_that_stands_twice_in_a_config_is_refused(trim, config, text):
    code, out, err = trim("probe", "m", "--config", config(text))
    assert (code, out) == (2, "") and "more than once" in err


def test_flags_that_say_the_same_twice_are_fine(trim, monkeypatch):
    monkeypatch.setenv("TRIMTAB_LAYERS", "50%")  # a typed flag still goes before the environment
    seen = record(
        trim(
            "probe", "m", "--greedy", "--greedy", "--prompt", "a", "--prompt", "b", "--layers", "3", "--json"
        )
    )
    assert (seen["greedy"], seen["prompt"], seen["layers"]) == (True, ["a", "b"], "3")
    assert trim("probe", "--layers", "3", "--layers", "5", "--help")[0] == 0


def test_unknown_key_names_the_nearest(trim, config):
    code, out, err = trim("probe", "m", "--config", config("layrs: 3\n"))
    assert (code, out) == (2, "")
    assert "'layrs'" in err and "'layers'" in err and "settings.yaml" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "key: value"),
        ("a: [1\n", "not YAML"),
        ("layers: {a: 1}\n", "mapping"),
        ("max_tokens: [1, 2]\n", "one integer"),
        ("max_tokens: many\n", "many"),
    ],
)
def test_bad_config_files(trim, config, text, message):
    code, out, err = trim("probe", "m", "--config", config(text))
    assert (code, out) == (2, "") and message in err


def test_missing_config_file(trim, tmp_path):
    code, _, err = trim("probe", "m", "--config", tmp_path / "none.yaml")
    assert code == 2 and "none.yaml" in err


def test_a_misspelt_variable_is_mentioned(trim, monkeypatch):
    monkeypatch.setenv("TRIMTAB_LAYER", "3")
    monkeypatch.setenv("TRIMTAB_TORCH_INDEX", "somewhere")
    _, _, err = trim("probe", "m")
    assert "TRIMTAB_LAYER is not a flag" in err and "TORCH_INDEX" not in err


# --- what is printed where


def test_stdout_carries_the_result_alone(trim):
    code, out, err = trim("probe", "m")
    assert (code, out) == (0, "layers all\n")
    assert "a note" in err and "noise from a library" in err


def test_quiet_silences_notes(trim):
    assert "a note" not in trim("probe", "m", "--quiet")[2]


def test_json_is_one_line_of_finite_numbers(trim):
    code, out, _ = trim("probe", "m", "--json")
    assert code == 0 and out.count("\n") == 1 and out.endswith("\n")
    assert json.loads(out, parse_constant=pytest.fail)["bad"] == [None, None]


def test_finite_reaches_every_corner():
    np = pytest.importorskip("numpy")
    value = {"a": (np.float32("nan"), np.array([1.5, np.inf])), 2: {"b": -math.inf}, "p": Path("x")}
    assert finite(value) == {"a": [None, [1.5, None]], "2": {"b": None}, "p": "x"}
    assert "\u2028" not in json_line({"text": "line\u2028separator\n"})


def test_a_verb_without_a_result_is_a_fault(trim):
    code, out, err = trim("mute", "--json")
    assert (code, out) == (1, "") and "exactly one line" in err


# --- how it ends


@pytest.mark.parametrize(
    ("kind", "code"),
    [("input", 2), ("unsupported", 2), ("failed", 1), ("bug", 1), ("os", 1), ("interrupt", 130)],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_errors_are_one_message_and_an_exit_code(trim, kind, code, flags):
    got, out, err = trim("probe", "m", "--raises", kind, *flags)
    assert (got, out) == (code, "")
    assert "Traceback" not in err
    assert "/no/such/folder" in err if kind == "os" else True


def test_debug_shows_the_traceback(trim, monkeypatch, config):
    assert "Traceback" in trim("probe", "m", "--raises", "input", "--debug")[2]
    assert "Traceback" in trim("probe", "m", "--raises", "bug", "--config", config("debug: true"))[2]
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    assert "Traceback" in trim("probe", "m", "--raises", "input")[2]


@pytest.mark.parametrize(
    "argv", [("probe",), ("probe", "m", "--layrs", "3"), ("prob",), ("probe", "m", "--seed", "x")]
)
def test_usage_errors(trim, argv):
    code, out, err = trim(*argv)
    assert (code, out) == (2, "") and "Error" in err


def test_an_unknown_verb_names_the_nearest(trim):
    assert "Did you mean 'probe'" in trim("prob")[2]


def test_a_verb_whose_module_is_missing(trim, monkeypatch):
    monkeypatch.setitem(VERBS, "absent", ("Make", "Not there."))
    code, _, err = trim("absent")
    assert code == 1 and "trimtab.cli.absent is missing" in err


def test_help_shows_flags_and_the_rule(trim):
    code, out, _ = trim("probe", "--help")
    assert code == 0
    assert all(flag in out for flag in ("--config", "--json", "--debug", "--quiet", "--seed", "--output"))
    assert "flag > environment > file > default" in " ".join(out.split())


def test_the_table_and_the_modules_agree():
    for name, (_, line) in VERBS.items():
        if (Path(sys.modules["trimtab.cli"].__file__).parent / f"{name}.py").exists():
            command = VerbGroup("trimtab").get_command(click.Context(VerbGroup("trimtab")), name)
            assert command.name == name and command.short_help == line


# --- progress


def test_plain_progress_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 6.0, 6.0, 7.0, 8.0, 8.0, *[9.0] * 20])
    monkeypatch.setattr("trimtab.cli.progress.time.monotonic", lambda: next(clock))
    with Progress("extract", 4) as bar:
        for _ in range(4):
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) < 4
    assert lines[-1].startswith("extract 4/4 100%")


def test_what_vllms_processes_print_is_no_result(monkeypatch, capfd):
    """They inherit the standard output, which with --json holds one line."""
    from trimtab.cli import models

    def load(*_, **__):
        subprocess.run([sys.executable, "-c", "print('noise')"], check=True)
        return "the engine"

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    monkeypatch.setattr(models, "load_engine", load)
    for engine in ("vllm", "transformers"):
        assert models.start("m", engine) == "the engine"
        out, err = capfd.readouterr()
        assert ("noise" in out, "noise" in err) == (engine != "vllm", engine == "vllm")
    with pytest.raises(InputError, match="takes no --device"):
        models.open_engine(
            Desk("generate", {}, {"seed": 0, "as_json": False, "quiet": True}), "m", "vllm", device="cpu"
        )
