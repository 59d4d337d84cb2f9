"""The quality report: may a vector be trusted, and if not, what to mend.

    found = recipes.extract_full(engine, data, needs=NEEDS, beside=BESIDE)
    report = assess(found, engine)
    report.verdicts[0].words           # "use", "rewrite the data", "merge with X", "suspect template"

One file per measurement; `assess` joins them, `triage` states the rules, `table` and `page` show them.
"""

from trimtab.analysis.quality.assess import assess, examine
from trimtab.analysis.quality.findings import QualityReport, SiteQuality, Verdict
from trimtab.analysis.quality.review import Corpus, review
from trimtab.analysis.quality.study import BESIDE, NEEDS, Study

__all__ = [
    "BESIDE",
    "NEEDS",
    "Corpus",
    "QualityReport",
    "SiteQuality",
    "Study",
    "Verdict",
    "assess",
    "examine",
    "review",
]
