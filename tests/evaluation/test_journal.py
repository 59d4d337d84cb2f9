"""The score of published rows follows from their other columns, within the rounding of what is printed."""

import csv

import pytest

from trimtab.evaluation.dose_response import score_v1, score_v2

#: slope, r2, valid_frac, min, max, score, version: rows of the tables of a public steering journal, as printed.
ROWS = """
13.54 0.58 1.0 -18.75 20.38 7.79 1
-1.9 0.58 1.0 13.5 19.0 1.09 1
0.55 0.62 1.0 17.75 19.25 0.34 1
0.54 0.05 1.0 16.25 21.75 0.03 1
-1.01 0.45 1.0 17.25 20.75 0.45 1
0.78 0.2 1.0 14.5 18.25 0.16 1
-0.14 0.03 1.0 17.75 19.5 0.0 1
2.12 0.29 1.0 11.25 20.0 0.61 1
1.47 0.17 1.0 12.25 20.0 0.25 1
-0.69 0.12 1.0 14.5 19.25 0.08 1
0.89 0.02 0.6 10.5 17.75 0.01 1
2.43 0.99 1.0 16.38 19.75 2.41 1
0.99 0.75 1.0 17.62 19.0 0.74 1
-0.45 0.0 1.0 -5.32 19.5 0.0 1
-1.81 0.71 1.0 12.5 17.5 1.3 1
0.51 0.0 0.8 8.37 22.38 0.0 1
-0.33 0.06 1.0 16.5 19.25 0.02 1
-10.61 0.6 0.6 4.25 18.5 2.31 1
2.34 0.86 1.0 15.0 20.38 2.01 1
-26.08 0.67 0.8 -23.62 24.12 11.18 1
0.77 0.14 1.0 16.0 20.75 0.11 1
0.85 0.08 1.0 14.0 20.62 0.06 1
-1.53 0.41 1.0 15.5 20.75 0.63 1
-0.1 0.0 1.0 -13.25 18.5 0.0 1
1.19 0.27 1.0 15.25 20.5 0.32 1
-11.62 0.37 1.0 -18.0 22.38 4.3 1
6.61 0.86 1.0 6.0 21.62 5.66 1
3.58 0.71 1.0 10.75 20.5 2.55 1
2.21 0.54 1.0 12.75 19.0 1.19 1
-1.37 0.52 1.0 15.25 19.5 0.72 1
-0.68 0.37 1.0 14.5 17.0 0.25 1
-0.31 0.09 1.0 16.25 18.5 0.03 1
-0.04 0.0 1.0 18.0 19.5 0.0 1
6.02 0.85 1.0 9.25 23.62 5.13 1
-4.57 0.83 1.0 10.5 21.75 3.81 1
2.97 0.88 1.0 15.0 21.62 2.61 1
-2.4 0.88 1.0 14.75 20.25 2.11 1
-2.04 0.87 1.0 16.25 20.62 1.77 1
-1.93 0.23 1.0 -0.76 20.25 9.46 2
28.2 0.18 0.33 4.25 17.0 7.04 2
2.22 0.85 0.78 16.75 21.88 5.84 2
-0.36 0.47 1.0 16.75 19.25 0.43 2
0.73 0.02 1.0 -4.5 19.75 0.31 2
-0.74 0.16 0.78 17.5 20.88 0.25 2
0.6 0.18 0.78 17.5 20.5 0.19 2
-0.3 0.06 1.0 14.25 20.62 0.11 2
-0.52 0.11 0.78 17.0 19.75 0.09 2
-0.24 0.06 1.0 16.25 21.38 0.07 2
-0.19 0.08 1.0 17.0 20.38 0.05 2
-0.36 0.05 0.78 16.0 19.0 0.03 2
-0.35 0.0 1.0 -17.87 19.75 0.02 2
-0.24 0.03 0.78 18.0 20.5 0.01 2
0.26 0.0 1.0 -17.5 20.75 0.01 2
0.15 0.01 0.78 16.5 20.5 0.0 2
-0.33 0.0 0.56 -13.37 18.0 0.0 2
0.05 0.0 0.78 16.25 21.25 0.0 2
"""
HALF = 0.005  # everything is printed with two decimals


COLUMNS = ("slope", "r2", "valid_frac", "min", "max", "score", "score_version")
PRINTED = [tuple(float(x) for x in line.split()) for line in ROWS.strip().splitlines()]


def bounds(slope, r2, valid, low, high, version):
    """The smallest and the largest score that the printed columns allow."""
    found = []
    for half in (-HALF, HALF):
        s, r, v = (max(0.0, abs(x) + half) for x in (slope, r2, valid))
        span = max(0.0, high - low + 2 * half)
        found.append(score_v1(s, r, v) if version == 1 else score_v2(s, r, v, 0.0, span))
    return found[0] - HALF, found[1] + HALF


def check(rows):
    assert len(rows) >= 40 and {r[-1] for r in rows} == {1, 2}
    for slope, r2, valid, low, high, score, version in rows:
        least, most = bounds(slope, r2, valid, low, high, version)
        assert least <= score <= most, (slope, r2, valid, low, high, score, version)


def test_every_published_score_is_reproduced():
    check(PRINTED)


def test_the_whole_published_table_is_reproduced(shared_data):
    with (shared_data / "journal" / "dose_response.csv").open(newline="") as file:
        rows = [tuple(float(row[c]) for c in COLUMNS) for row in csv.DictReader(file)]
    assert len(rows) == 208
    check(rows)


@pytest.mark.parametrize("version", [1, 2])
def test_the_other_version_does_not(version):
    """The bounds are tight enough to tell the two versions apart on most rows."""
    rows = [r for r in PRINTED if r[-1] == version]
    told = 0
    for slope, r2, valid, low, high, score, _ in rows:
        least, most = bounds(slope, r2, valid, low, high, 3 - version)
        told += not least <= score <= most
    assert told > 0.6 * len(rows)
