"""The field's names for methods: each is one of ours with knobs. We accept theirs and print ours.

The public journal's gradient names are put together from parts, `fisher_steer[_dual[_pos|_neg|_diff]][_reg0…5]
[_emp|_cov]` in any order of the last two, and are taken apart here. Its `_dual` variants set the ridge from the
data, 0.01 * trace(F) / width, whatever their reg says. It averages plain gradients, which cancel; our fisher
takes signed ones unless told `mean=plain`.
"""

from __future__ import annotations

import re
from typing import Any

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(
        ("mean", "caa", "actadd", "act_add", "diffmean", "diff_mean", "diff_in_means", "dim"),
        ("mean_diff", {}),
    ),
    **dict.fromkeys(("mean_difference", "difference_in_means", "mass_mean", "pooled"), ("mean_diff", {})),
    "mean_centring": ("mean_diff", {"centre": True}),
    "mean_centering": ("mean_diff", {"centre": True}),
    "trimmed_mean": ("mean_diff", {"trim": 0.1}),
    "unit_pairs": ("mean_diff", {"unit_pairs": True}),
    "pca": ("pca_diff", {}),
    "pca_diff_centered": ("pca_diff", {}),
    "pca_uncentered": ("pca_diff_uncentered", {}),
    "svd_diff": ("pca_diff_uncentered", {}),
    "pca_centered_pairs": ("pca_center", {}),
    "logreg": ("logistic", {}),
    "logistic_l2": ("logistic", {}),
    "logistic_regression": ("logistic", {}),
    "probe": ("logistic", {}),
    "lasso": ("logistic_l1", {}),
    "logreg_l1": ("logistic_l1", {}),
    **dict.fromkeys(("lda", "linear", "whitened", "whitened_mean_diff", "mass_mean_cov"), ("ridge", {})),
    "erasure": ("leace", {}),
    "pos_3": ("role_difference", {}),
    "response_avg_diff": ("persona_response_avg", {}),
    **{
        name: ("trait_contrast", {"select": name})
        for name in ("pos_neg", "pos_neg_50", "pos_default", "pos_default_50", "pos_70", "pos_40_70")
    },
    "svd_steer": ("svd_gradient", {}),
}

_FISHER = re.compile(
    r"fisher_steer(?P<dual>_dual(?:_(?P<side>pos|neg|diff))?)?"
    r"(?:(?P<kind>_emp|_cov)?(?:_reg(?P<reg>[0-5]))?|_reg(?P<reg_first>[0-5])(?P<kind_last>_emp|_cov))"
)
_KINDS = {"_emp": "empirical", "_cov": "cov"}
_RIDGES = (0.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
#: What the dual variants multiply trace(F) / width with.
ADAPTIVE = 0.01


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Our name and the knobs that a name stands for; a name that is no alias stands for itself."""
    if name in ALIASES:
        ours, knobs = ALIASES[name]
        return ours, dict(knobs)
    parts = _FISHER.fullmatch(name)
    if parts is None:
        return name, {}
    knobs: dict[str, Any] = {}
    if kind := parts["kind"] or parts["kind_last"]:
        knobs["kind"] = _KINDS[kind]
    if parts["dual"]:
        return "fisher", {**knobs, "dual": parts["side"] or "mean", "ridge_relative": ADAPTIVE}
    if reg := parts["reg"] or parts["reg_first"]:
        knobs["ridge"] = _RIDGES[int(reg)]
    return "fisher", knobs


def aliases_of(method: str) -> list[str]:
    """Every name that stands for one of our methods, as the documentation shows them."""
    plain = [alias for alias, (ours, _) in ALIASES.items() if ours == method]
    pattern = ["fisher_steer[_dual[_pos|_neg|_diff]][_reg0…5][_emp|_cov]"] if method == "fisher" else []
    return plain + pattern
