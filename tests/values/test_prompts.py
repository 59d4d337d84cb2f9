"""Positions mean the same in every engine: absolute, half-open, merged."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError, UnknownName
from trimtab.prompts import Prompt, Span, check_positions, in_ranges, merge_ranges, resolve_positions

PROMPT = Prompt(
    tuple(range(12)), (Span("system", 1, 3), Span("user", 4, 6), Span("assistant", 7, 8), Span("user", 9, 11))
)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", ((0, None),)),
        ("prompt", ((0, 12),)),
        ("generated", ((12, None),)),
        ("last_prompt", ((11, 12),)),
        ({"after": 0}, ((1, None),)),
        ({"after": 20}, ((21, None),)),
        ({"role": "user"}, ((4, 6), (9, 11))),
        ({"role": "assistant"}, ((7, 8),)),
        ({"ranges": [[8, 9], [2, 4], [4, 5]]}, ((2, 5), (8, 9))),
        ({"ranges": [[3, None], [5, 7]]}, ((3, None),)),
    ],
)
def test_positions(positions, expected):
    assert resolve_positions(positions, PROMPT) == expected


@pytest.mark.parametrize(
    "bad",
    [
        "everything", {}, {"after": -1}, {"after": "3"}, {"ranges": []}, {"ranges": [[3, 3]]}, {"ranges": [[4, 2]]},
        {"ranges": [[-1, 2]]}, {"ranges": [[1]]}, {"ranges": [5]}, {"role": 1}, {"after": 1, "role": "user"}, 3, None,
        {"before": 3},
    ],
)  # fmt: skip
def test_malformed_positions(bad):
    with pytest.raises(InputError):
        check_positions(bad)


def test_roles_need_messages():
    with pytest.raises(InputError, match="explicit ranges"):
        resolve_positions({"role": "user"}, Prompt((1, 2, 3)))
    with pytest.raises(UnknownName, match="assistant, system, user"):
        resolve_positions({"role": "tool"}, PROMPT)


def test_roles_of_tokens():
    roles = PROMPT.roles()
    assert roles[1] == roles[2] == "system" and roles[0] is None and roles[3] is None
    assert roles.count("user") == 4 and len(roles) == 12


def test_an_empty_prompt_is_refused():
    with pytest.raises(InputError, match="empty"):
        Prompt(())


RANGES = st.lists(
    st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 20))).map(
        lambda p: (p[0], None if p[1] is None else p[0] + p[1])
    ),
    min_size=1,
    max_size=6,
)


@given(RANGES)
def test_merging_keeps_exactly_the_same_positions(ranges):
    merged = merge_ranges(ranges)
    for i in range(60):
        assert in_ranges(i, merged) == in_ranges(i, ranges)
    assert merge_ranges(merged) == merged
    for (_, end), (start, _) in itertools.pairwise(merged):
        assert end is not None and end < start  # sorted, disjoint, not even touching
