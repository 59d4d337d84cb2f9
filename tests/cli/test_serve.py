"""`trimtab serve`: what it starts, and with what."""

import json
import sys
from importlib.util import find_spec

import pytest

from trimtab.cli import main
from trimtab.server.vllm import starting


def run(capsys, *arguments: str) -> tuple[int, dict]:
    code = main(["serve", *arguments, "--dry-run", "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if code == 0 else {"error": out.err}


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_vllm_starts_through_its_module_with_its_own_flags(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    code, found = run(
        capsys,
        "embedded",
        "--port",
        "8001",
        "--max-model-len",
        "256",
        "--enforce-eager",
        "--vector-dir",
        str(tmp_path),
    )
    assert code == 0 and found["command"][:3] == [sys.executable, "-m", starting.MODULES[0]]
    words = " ".join(found["command"])
    for part in ("--host 127.0.0.1", "--port 8001", "--max-model-len 256", "--served-model-name embedded"):
        assert part in words
    assert words.count("--host") == 1 and "--enforce-eager" in words
    assert found["environment"]["TRIMTAB_VECTOR_DIR"] == str(tmp_path)
    assert "trimtab" in found["environment"]["VLLM_PLUGINS"].split(",")
    assert "lora_filesystem_resolver" in found["environment"]["VLLM_PLUGINS"]


@pytest.mark.parametrize(
    ("given", "want"),
    [("other", "other,trimtab"), ("trimtab,other", "trimtab,other"), ("", "trimtab")],
)
def test_a_list_of_plugins_is_kept(given, want):
    assert starting.environment({"VLLM_PLUGINS": given})["VLLM_PLUGINS"] == want


@pytest.mark.engine
@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_behind_our_own_server_vllms_flags_are_read_by_vllms_parser(capsys):
    flags = ["embedded", "--own-server", "--max-model-len", "256", "--enforce-eager"]
    code, found = run(capsys, *flags)
    assert code == 0 and found["max_model_len"] == 256 and found["enforce_eager"] is True
    assert found["engine"] == "vllm" and "command" not in found and "dtype" not in found
    for wrong in (["--max-model-length", "9"], ["--max-num-seqs", "many"]):
        code, found = run(capsys, *flags, *wrong)
        assert code == 2 and "vLLM" in found["error"]


def test_other_engines_take_no_foreign_flags(capsys):
    code, found = run(capsys, "tiny", "--engine", "reference", "--port", "0")
    assert code == 0 and found["host"] == "127.0.0.1"
    code, found = run(capsys, "tiny", "--engine", "reference", "--max-model-len", "4")
    assert code == 2 and "--max-model-len" in found["error"]
    code, found = run(capsys, "tiny", "--engine", "reference", "--vectors", "nowhere.safetensors")
    assert code == 2 and "nowhere" in found["error"]
    assert main(["serve", "tiny", "--engine", "reference", "--json"]) == 2


def test_rules_and_the_feed_go_to_every_server(trimtab, refused, tmp_path, monkeypatch):
    monkeypatch.delenv("TRIMTAB_READOUT_VECTORS", raising=False)
    rules, vectors = tmp_path / "rules.txt", tmp_path / "feelings.safetensors"
    rules.write_text("happy z > 2 -> log")
    vectors.write_bytes(b"")
    asked = ("serve", "tiny", "--rules", rules, "--feed", "--dry-run")
    found = trimtab(*asked, "--engine", "reference", "--json").record["environment"]
    assert found == {"TRIMTAB_RULES": str(rules), "TRIMTAB_FEED": "1"}
    assert "no rules.txt" in refused("serve", "tiny", "--rules", "no rules.txt", "--engine", "reference")
    # With vLLM, which takes minutes to start, what is wrong is said before.
    assert "nothing to read with" in refused(*asked)
    assert "leave --own-server out" in refused(*asked, "--own-server")
    assert "--feed has nothing" in refused("serve", "tiny", "--feed", "--dry-run")
    if find_spec("vllm") is not None:
        found = trimtab(*asked, "--vectors", vectors, "--json").record
        assert (
            found["environment"]["TRIMTAB_RULES"] == str(rules)
            and found["environment"]["TRIMTAB_FEED"] == "1"
        )
    rules.write_text("happy z > 2 -> shout")
    assert "shout" in refused(*asked, "--vectors", vectors)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_vllm_starts_so_that_rules_act_and_requests_are_finished(trimtab, refused, tmp_path):
    rules, vectors = tmp_path / "rules.txt", tmp_path / "feelings.safetensors"
    vectors.write_bytes(b"")
    asked = ("serve", "tiny", "--rules", rules, "--vectors", vectors, "--dry-run")

    def words(*more: str) -> str:
        return " ".join(trimtab(*asked, *more, "--json").record["command"])

    rules.write_text("happy z > 2 -> log")
    assert "scheduling" not in words() and "--async-scheduling" in words("--async-scheduling")
    assert "--shutdown-timeout" not in words() and "--shutdown-timeout 5" in words("--grace", "5")
    assert words("--shutdown-timeout=7").count("--shutdown-timeout") == 1
    assert "give one of them" in refused(*asked, "--shutdown-timeout", "7", "--grace", "5")
    assert "--seed" not in words() and words("--seed", "3").endswith("--seed 3")
    for acting in ("abort", "log, abort"):
        rules.write_text(f"happy z > 2 -> {acting}")
        assert words().count("--no-async-scheduling") == 1
        assert words("--no_async_scheduling").count("scheduling") == 1
        assert "step ahead" in refused(*asked, "--async-scheduling")
        for several in (("-tp", "2"), ("--pipeline-parallel-size=2",), ("--tensor_parallel_size", "2")):
            assert "one worker" in refused(*asked, *several)
        assert "-tp 1" in words("-tp", "1")
    assert "comes first" in refused("serve", "--max-model-len", "9", "embedded", "--dry-run")
