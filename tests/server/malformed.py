"""Requests that are wrong in one place, each with the word that a good refusal says."""

from __future__ import annotations

import json
from typing import Any

NAN, INF = float("nan"), float("inf")
NO_NUMBER = ["1", "much", True, [], {}, [1], NAN, INF, -INF]
NO_FLAG = ["yes", 1, 0, [], {}, 0.5, None, "true"]
#: Valid placements, one of each kind.
VALID: dict[str, dict[str, Any]] = {
    "add": {"op": "add", "vector": "happy", "dose": 0.5, "layers": [2]},
    "ablate": {"op": "ablate", "vector": "sad", "keep": 0.5, "layers": 3},
    "cap": {"op": "cap", "vector": "calm", "low": -1.0, "high": 1.0, "layers": "40%"},
    "pin": {"op": "pin", "vector": "happy", "value": 1.0, "layers": "2-4"},
}
BAD: dict[str, list[Any]] = {
    "op": ["adds", "", None, 3, [], {}, True],
    "vector": ["nobody", "", 3, 1.5, [], {}, None, True, {"name": "happy"}, {"site": "layer_2"}, "feelings", "x/happy"],
    "layers": ["x", "", -7, 6, 99, "101%", "5-2", [], {}, 1.5, "50%%", "auto", "3,99", [99], [[1]], True, 10**30],
    "stream": ["resid_mid", "", 3, None, True, [], "mlp_out", "attn_out", "q"],
    "positions": [
        "everything", "", 3, None, [], {}, True, {"after": -1}, {"after": "x"}, {"after": None}, {"ranges": []},
        {"ranges": [[4, 2]]}, {"ranges": [[0]]}, {"ranges": [["a", "b"]]}, {"ranges": 3}, {"ranges": [[-1, 2]]},
        {"role": 3}, {"role": "nobody"}, {"after": 1, "role": "user"}, {"before": 3}, {"ranges": "0-4"},
    ],
    "per_layer": NO_FLAG,
    "renormalise": NO_FLAG,
    "factor": [*NO_NUMBER, None],
    "gate": [
        3, "x", [], {}, True, {"above": 1}, {"vector": "happy"}, {"vector": "happy", "above": 1, "below": 0},
        {"vector": "happy", "above": 1, "layer": 9}, {"vector": "happy", "above": 1, "layer": 5},
        {"vector": "nobody", "above": 1}, {"vector": "happy", "above": "x"},
        {"vector": "happy", "above": 1, "at": "so"},
        {"vector": "happy", "above": 1, "when": 1}, {"vector": "happy", "below": None}, {"vector": 3, "above": 1},
    ],
    "dosage": [1], "layer": [2], "concept": ["happy"], "position": ["all"], "scaled": [0.5],
}  # fmt: skip
OF_KIND: dict[str, dict[str, list[Any]]] = {
    "add": {
        "dose": [*NO_NUMBER, None], "scale": [1.0, *NO_NUMBER], "amount": [1.0, *NO_NUMBER],
        "relative": [True, *NO_FLAG],
    },
    "ablate": {"keep": [*NO_NUMBER, None], "dose": [1], "relative": [True]},
    "cap": {"low": [2.0, *NO_NUMBER], "high": [-2.0, *NO_NUMBER], "z": NO_FLAG, "value": [1]},
    "pin": {"value": [*NO_NUMBER, None], "z": NO_FLAG, "dose": [1], "keep": [0]},
}  # fmt: skip
PLANS: list[tuple[str, Any]] = [
    ("placements", {}), ("placements", {"placements": None}), ("placements", {"placements": 3}),
    ("placements", {"placements": "x"}), ("placements", {"placements": {}}), ("object", []), ("object", 3),
    ("object", [{"op": "add"}]), ("object", True), ("op", {"placements": [3]}), ("op", {"placements": [{}]}),
    ("op", {"placements": [None]}), ("schema", {"schema": 9, "placements": []}),
    ("plan", {"plan": [], "placements": []}), ("JSON", "{"), ("placements", {"placements": [VALID["add"]] * 65}),
    ("inline", {"placements": [{**VALID["add"], "vector": {"name": "v", "site": "layer_2", "data": "AAAA"}}]}),
    ("deltas", {"placements": [{"op": "deltas", "layers": 2, "shape": [1, 192], "data": "AAAA"}]}),
    ("bytes", {"placements": [{**VALID["add"], "vector": "x" * 2_000_000}]}),
]  # fmt: skip
READOUTS: dict[str, list[Any]] = {
    "vectors": ["nobody", 3, [], {}, True], "concepts": [[], "happy", ["nobody"], [3], {}, ["sad", "sad"]],
    "layers": ["x", "", -7, 6, 99, "101%", [], {}, 1.5, [99], [[1]], True], "top_k": [0, -1, 1.5, "2", True, [], {}],
    "z": NO_FLAG, "at": ["during", 3, None, []], "align": ["mine", 3, None, []], "prompt": NO_FLAG,
    "encoding": ["float8", 3, None, []], "layer": [2], "vector": ["feelings"],
}  # fmt: skip
CAPTURES: dict[str, list[Any]] = {
    "layers": BAD["layers"], "positions": BAD["positions"], "at": ["during", 3, None, []], "layer": [2],
    "stream": ["q"],
}  # fmt: skip


def requests() -> list[tuple[str, dict[str, Any]]]:
    """(what the refusal names, extra fields of the request)."""
    plans = list(PLANS)
    for kind, valid in VALID.items():
        for key, values in {**BAD, **OF_KIND[kind]}.items():
            plans += [(key, {"placements": [{**valid, key: v}]}) for v in values]
        plans += [
            (key, {"placements": [{k: v for k, v in valid.items() if k != key}]}) for key in ("op", "vector")
        ]
    found = [(word, {"steering": plan}) for word, plan in plans]
    found += [(k, {"readout": {k: v}}) for k, values in READOUTS.items() for v in values]
    found += [("readout", {"readout": v}) for v in (3, "x", [], [1])]
    found += [(k, {"capture": {"layers": [2], k: v}}) for k, values in CAPTURES.items() for v in values]
    found += [("layers", {"capture": {}}), *(("capture", {"capture": v}) for v in (3, "x", [], True))]
    for word, plan in plans[::7]:
        text = plan if isinstance(plan, str) else json.dumps(plan)
        found.append((word, {"vllm_xargs": {"steering": text}}))
    found += [("string", {"vllm_xargs": {"steering": 3}}), ("string", {"vllm_xargs": {"readout": [1]}})]
    found += [("JSON", {"vllm_xargs": {f: "{"}}) for f in ("steering", "readout", "capture")]
    found += [("trimtab", {"vllm_xargs": {"trimtab": "{}"}})]
    twice = {"steering": {"placements": []}}
    return [*found, ("twice", {**twice, "vllm_xargs": {"steering": '{"placements": []}'}})]
