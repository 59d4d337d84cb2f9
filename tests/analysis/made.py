"""Samples from whole tables."""

from trimtab.analysis.quality.samples import Sample
from trimtab.evidence import Evidence
from trimtab.sites import Site


def sample(positive, negative, paired=True, groups=None):
    """Evidence with its rows, split as the report splits it."""
    needs = {"mean", "rows", "gram"} if paired else {"mean", "rows"}
    return Sample.of(Evidence.from_rows(Site(0), positive, negative, needs, paired, groups))
