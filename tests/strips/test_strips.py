"""Strips: what is shown is what was read, on a page and on a terminal."""

import json
import re

import numpy as np
import pytest

from trimtab.recipes.spans import TextSpan
from trimtab.recipes.transcripts import TokenReadings
from trimtab.sites import Site
from trimtab.strips.page import hundredths
from trimtab.strips.reading import reading_page, sheet
from trimtab.strips.strip import Strip
from trimtab.strips.terminal import COOL, WARM, legend, tinted

HERE = (Site(1),)


def reading(z=True, roles=None, sites=HERE, name="a & b"):
    pieces = ("<s>", "I", " am", " <glad>", ".", " You", " too", ".")
    n = len(pieces)
    values = np.arange(n * len(sites) * 2, dtype=np.float32).reshape(n, len(sites), 2) / 2 - 2
    values[0] = np.nan
    counted = np.arange(n) >= 2
    return TokenReadings(
        name, tuple(range(n)), pieces, roles or (None,) * n, values, counted, sites, ("joy", "awe"), "emit", z
    )


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1], parse_constant=pytest.fail)


def test_a_sheet_keeps_z_and_leaves_what_does_not_count_untinted():
    found = sheet([reading()])
    (strip,) = found.strips
    assert found.columns == ("joy", "awe") and found.units is None
    assert np.isnan(strip.z[:2]).all() and strip.z[2].tolist() == [0.0, 0.5]


def test_raw_readings_are_tinted_by_the_spread_of_these_texts():
    raw = reading(z=False)
    found = sheet([raw, raw])
    z = np.concatenate([s.z[2:] for s in found.strips])
    assert np.allclose(z.mean(0), 0, atol=1e-6) and np.allclose(z.std(0), 1, atol=1e-6)
    mean, std = found.units["joy"]
    assert np.allclose(found.strips[0].z[2:, 0] * std + mean, raw.of("joy")[2:], atol=1e-5)


def test_several_sites_are_columns_of_their_own():
    assert sheet([reading(sites=(Site(1), Site(2, "mlp_out")))]).columns == (
        "joy at layer_1", "awe at layer_1", "joy at layer_2.mlp_out", "awe at layer_2.mlp_out"
    )  # fmt: skip


def test_markup_of_a_chat_is_left_out_and_turns_are_told_apart():
    roles = (None, "user", "user", "user", "user", "assistant", "assistant", None)
    (strip,) = sheet([reading(roles=roles)]).strips
    assert strip.pieces == ("I", " am", " <glad>", ".", " You", " too")
    assert strip.truth == ("user",) * 4 + ("assistant",) * 2 and strip.sentences == [(0, 4), (4, 6)]


def test_a_turn_ends_a_sentence_without_a_full_stop():
    strip = Strip(("hi", " you"), np.array([[1.0], [3.0]]), ("user", "assistant"))
    assert strip.sentences == [(0, 1), (1, 2)] and strip.smooth.tolist() == [[1.0], [3.0]]


def test_averages_pass_over_what_was_not_read():
    strip = Strip(("a", " b", " c."), np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]]))
    assert strip.smooth[:, 0].tolist() == [2.0] * 3 and np.isnan(strip.smooth[:, 1]).all()


def test_hundredths_are_whole_and_null_where_nothing_was_read():
    assert hundredths(np.array([[1.234, np.nan], [-99.0, 0.0]])) == [[123, None], [-900, 0]]
    assert all(type(v) is int for v in hundredths(np.array([0.5, 1.0])))


def test_the_page_holds_the_numbers_and_nothing_from_elsewhere():
    spans = {"joy": [TextSpan("a & b", 2, 5, 1.25, " am <glad>.")]}
    page = reading_page(sheet([reading()]), spans, {"model": "tiny & co", "align": "emit"})
    data = data_of(page)
    assert data["concepts"] == ["joy", "awe"] and data["units"] is None
    (story,) = data["stories"]
    assert (
        story["t"] == list(reading().pieces) and story["z"][1] == [None, None] and story["z"][3] == [100, 150]
    )
    assert (
        "emitted it" in page and "+1.25" in page and "“am &lt;glad&gt;.”" in page and "tiny &amp; co" in page
    )
    assert not re.search(r"https?://|<link|<script src|@import|url\(", page)


def test_text_cannot_close_the_script():
    found = sheet([reading(name="x")])
    bad = Strip((*found.strips[0].pieces[:-1], "</script><b>"), found.strips[0].z)
    import dataclasses

    page = reading_page(dataclasses.replace(found, strips=(bad,)), {}, {})
    assert page.count("</script>") == 2 and data_of(page)["stories"][0]["t"][-1] == "</script><b>"


def test_a_terminal_line_says_its_mean_and_underlines_what_it_colours():
    line = tinted((" so", " glad", " now", "."), np.array([np.nan, 3.0, 1.5, -1.5]))
    assert line.plain == " +1.0  so glad now."
    styles = {line.plain[s.start : s.end]: s.style for s in line.spans}
    assert styles[" glad"] == f"bold underline {WARM}" and styles[" now"] == f"underline {WARM}"
    assert styles["."] == COOL and "so" not in styles
    assert tinted(("x",), np.array([np.nan])).plain.split() == ["–", "x"]
    assert "underlined above" in legend("joy").plain
