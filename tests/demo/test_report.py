"""The report and the terminal from a made-up result: complete, self-contained, and true to its numbers."""

import json
import re

import made_up
import pytest
from rich.console import Console

from markup import Tags
from trimtab.demo.charts import Axis, dose_chart, short, signed
from trimtab.demo.report import page, payload
from trimtab.demo.terminal import render


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return made_up.result(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def html(result):
    return page(result)


def test_every_tag_closes_and_ids_are_distinct(html):
    tags = Tags(html)
    assert tags.open == [] and tags.wrong == []
    assert len(tags.ids) == len(set(tags.ids))


def test_no_external_assets(html):
    assert Tags(html).addresses == []
    assert not re.search(r"https?://|@import|url\(", html)


def test_the_script_finds_every_element_it_asks_for(html):
    ids = set(Tags(html).ids)
    asked = set(re.findall(r'\$\("([\w-]+)"\)', html))
    assert asked and asked <= ids


def test_texts_are_escaped(html):
    assert "What did you do &lt;today&gt;?" in html
    assert "<today>" not in re.sub(r"<script.*?</script>", "", html, flags=re.S)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.S)
    assert json.loads(data[1])["prompts"][1] == "What did you do <today>?"


def test_a_text_cannot_end_the_data_block(result):
    first = result.shown.prompts[0]
    result.shown.prompts[0][0]["content"] = "</script><b>"
    try:
        assert "</script><b>" not in page(result)
    finally:
        first[0]["content"] = made_up.QUESTIONS[0]


def test_sections_and_honest_words(html):
    for words in (
        "Turn the dial",
        "Read with the same arrows",
        "Honesty",
        "The numbers",
        "How it was measured",
    ):
        assert words in html
    assert "in distribution" in html and "generated" in html
    assert "persona prompt" in html and "random" in html and "coherence" in html


def test_numbers_are_those_of_the_rows(result, html):
    curve = result.feelings.curves["sad"]
    assert curve.best.dose == 1.0  # 1.2 scores higher and is not coherent
    for row in curve.rows:
        assert f"{row.score:.3f}" in html and f"[{row.low:.3f}, {row.high:.3f}]" in html
    assert "0.700 ✗" in html


def test_payload_is_complete(result):
    data = payload(result)
    doses, prompts = len(data["doses"]), len(data["prompts"])
    for emotion in data["emotions"]:
        assert [len(row) for row in data["cells"][emotion]] == [doses] * prompts
        assert len(data["told"][emotion]) == prompts and data["best"][emotion] in data["doses"]
        assert [q["ok"] for q in data["quality"][emotion]] == [True] * (doses - 1) + [False]
    story = data["stories"][0]
    assert len(story["t"]) == len(story["z"]) == len(story["s"]) == len(story["e"])
    assert story["z"][0] == [0] * 5  # the sink is not read
    assert story["s"][0] == story["s"][4] and story["s"][4] != story["s"][5]  # one value per sentence


def test_chart_marks_what_is_not_coherent(result):
    drawn = dose_chart(result.feelings.curves["happy"])
    assert drawn.count('class="dot hollow"') == 1
    assert drawn.count('class="dot"') == len(made_up.SETTINGS.doses) - 1
    assert 'class="null"' in drawn and 'class="persona"' in drawn and drawn.count('class="best"') == 1


def test_axis_and_labels():
    assert Axis(0, 1, 200, 0)(0.25) == 150
    assert [signed(v) for v in (-0.8, 0, 1.0)] == ["−0.8", "0", "+1"]
    assert [short(v) for v in (0.734, 1.0, -0.25)] == [".73", "1.00", "−.25"]


def test_json_line_has_the_promised_keys(result):
    line = json.loads(json.dumps(result.to_json()))
    assert list(line)[:-1] == [
        "model", "concepts", "dose_response", "random_baseline", "persona_prompt", "best", "honesty",
        "readings_auc", "wall_s", "report",
    ]  # fmt: skip
    assert list(line)[-1] == "detail"
    assert set(line["dose_response"]) == set(made_up.SETTINGS.emotions)
    row = {"dose", "score", "low", "high", "coherence", "n"}
    assert all(row <= set(r) for rows in line["dose_response"].values() for r in rows)
    assert all(row <= set(r) for rows in line["random_baseline"].values() for r in rows)
    assert row <= set(line["persona_prompt"]["calm"])
    learned = line["honesty"]["learned"]
    assert set(learned) == {"plus", "zero", "minus", "seconds"}
    assert {"accuracy", "log_ratio", "coherence", "n"} <= set(learned["minus"])


@pytest.mark.parametrize("width", [80, 120])
def test_terminal(result, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(result))
    shown = console.export_text()
    for words in (
        "pushed away",
        "persona",
        "random",
        "★",
        "coherence",
        "learned vector −1",
        "trimtab extract",
    ):
        assert words in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_commands_name_the_engine_that_ran(result):
    from dataclasses import replace

    from trimtab.demo.commands import next_commands

    def runs(found):
        lines = [c for _, command in next_commands(found) for c in command.split("\n")]
        return [line for line in lines if line.startswith(("trimtab generate", "trimtab extract"))]

    assert runs(result) and not any("--engine" in line for line in runs(result))
    assert all("--engine mlx" in line for line in runs(replace(result, engine="mlx")))
