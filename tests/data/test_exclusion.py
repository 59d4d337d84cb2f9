"""Examples are left out by the ids that a report prints, and nothing else is."""

import pytest

from trimtab.data.contrast import Contrast
from trimtab.data.exclusion import exclude, identity, ids_of, remaining
from trimtab.errors import FormatError, InputError, UnknownName

PAIRS = Contrast("joy", ["a", "b", "c", "d"], ["e", "f", "g", "h"], paired=True, groups=("1", "1", "2", "3"))
LOOSE = Contrast("so: it", ["a", "b"], ["c", "d", "e"], groups=("x", "y"), negative_groups=("x", "y", "z"),
                 scores=(1.0, 2.0), negative_scores=(3.0, None, 5.0))  # fmt: skip


def without(contrasts, *ids):
    return exclude(contrasts, remaining(contrasts, ids))


def test_pairs_go_whole_with_their_group():
    (found,) = without([PAIRS], "joy:2", "4")
    assert (found.positive, found.negative, found.groups) == (("a", "c"), ("e", "g"), ("1", "2"))
    assert found.notes == ("2 pairs of 'joy' are left out by --exclude",)
    assert remaining([PAIRS], ["2", "2"])["joy"] == {"positive": [0, 2, 3], "negative": [0, 2, 3]}


def test_texts_go_by_side_with_their_scores():
    joy, found = without([PAIRS, LOOSE], "so: it:negative:2")
    assert joy is PAIRS and found.positive == LOOSE.positive and found.negative == ("c", "e")
    assert (found.negative_groups, found.negative_scores, found.scores) == (
        ("x", "z"),
        (3.0, 5.0),
        (1.0, 2.0),
    )


def test_a_printed_id_is_read_back():
    given = [identity("joy", None, 1), identity("so: it", "positive", 0)]
    joy, found = without([PAIRS, LOOSE], *given)
    assert joy.positive == ("a", "c", "d") and found.positive == ("b",)


def test_ids_come_from_a_list_or_a_file(tmp_path):
    file = tmp_path / "bad.txt"
    file.write_text("# look odd\njoy:1\n\njoy:3  # a typo\n")
    assert ids_of(str(file)) == ids_of("joy:1, joy:3") == ["joy:1", "joy:3"]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["joy:9"], InputError, "only 4 positive"),
        (["joy:0"], InputError, "not an id"),
        (["grief:1"], UnknownName, "unknown concept 'grief'"),
        (["2"], InputError, "names no concept"),
        (["joy:positive:1"], InputError, "pairs go whole"),
        (["so: it:1"], InputError, "not paired"),
        (["so: it:positive:1", "so: it:positive:2"], InputError, "leaves nothing"),
    ],
)
def test_what_fits_nothing_is_refused(ids, error, message):
    with pytest.raises(error, match=message):
        without([PAIRS, LOOSE], *ids)


def test_a_missing_file_is_not_taken_for_an_id():
    with pytest.raises(FormatError, match="neither a file nor an id"):
        ids_of("ids.txt")
    with pytest.raises(InputError, match="names no example"):
        ids_of(" , ")
