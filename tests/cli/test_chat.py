"""`trimtab chat`: what a script of lines says is what the engine says, under the plan that stood at each line."""

from __future__ import annotations

import io
import json

import pytest

from trimtab import Request, Sampling, SteeringPlan
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.readouts import Readout

CHAT = ("chat", "tiny", "--engine", "reference", "--max-tokens", "6")


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture
def lines(monkeypatch):
    """What is piped in."""
    return lambda *said: monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{x}\n" for x in said)))


@pytest.fixture
def answer(engine, joy):
    engine.library["joy"] = ConceptVectors.load(joy)

    def reply(messages, dose=None, readout=None, seed=0, temperature=0.0):
        plan = None if dose is None else SteeringPlan.add("joy", dose=dose, layers="1")
        sampling = Sampling(6, temperature=temperature, seed=seed)
        (done,) = engine.generate(Request(engine.encode(messages), plan, sampling, readout=readout))
        return done

    return reply


def user(text):
    return {"role": "user", "content": text}


def test_a_script_of_lines(trimtab, lines, answer, joy, tmp_path):
    saved = tmp_path / "talk.json"
    lines(
        "I feel",
        f"/steer {joy} 2 1",
        "you seem",
        "/off",
        "we look",
        "/undo",
        f"/save {saved}",
        "/quit",
        "never",
    )
    done = trimtab(*CHAT, "--json")
    one = answer([user("I feel")])
    talk = [user("I feel"), {"role": "assistant", "content": one.text}, user("you seem")]
    two = answer(talk, dose=2)
    assert (
        [r["reply"] for r in done.record["replies"]] == [one.text, two.text] != [one.text, answer(talk).text]
    )
    assert done.record["messages"] == [*talk, {"role": "assistant", "content": two.text}]
    receipts = [r["steering_applied"] for r in done.record["replies"]]
    assert receipts[0]["fingerprint"] == "plain" and receipts[1]["fingerprint"] == two.applied.fingerprint
    assert receipts[1]["dose"] == pytest.approx(2.0) and receipts[1]["layers"] == [1]
    assert done.record["replies"][1]["plan"]["placements"][0]["dose"] == 2.0
    assert done.record == json.loads(saved.read_text())
    assert two.applied.fingerprint in done.err and "dose +2" in done.err  # the receipt, after the reply
    lines("I feel")
    assert trimtab(*CHAT).out == one.text + "\n"


def test_readings_stand_with_their_tokens(trimtab, lines, answer, joy):
    lines(f"/read {joy}:joy", "I feel", "/read", "I feel")
    record = trimtab(*CHAT, "--json").record
    vectors = ConceptVectors.load(joy)
    readout = Readout.from_vectors(vectors, [vectors.read_site(4)], ["joy"], z=True)
    want = answer([user("I feel")], readout=readout).samples[0].readings.values[:, 0, 0]
    read = record["replies"][0]["readings"]
    assert read["unit"] == "z" and [t["values"]["joy"] for t in read["tokens"]] == pytest.approx(
        want.tolist()
    )
    assert record["replies"][1]["readings"] is None
    lines(f"/read {joy}", "I feel")
    assert f"mean z: joy {want.mean():+.2f}" in trimtab(*CHAT).err


def test_seeds_and_system(trimtab, lines, answer):
    lines("I feel", "/undo", "/seed 9", "I feel")
    done = trimtab(*CHAT, "--temperature", "1", "--system", "be merry", "--json").record
    asked = [{"role": "system", "content": "be merry"}, user("I feel")]
    assert done["replies"][0]["reply"] == answer(asked, seed=9, temperature=1.0).text
    assert len(done["replies"]) == 1 and done["replies"][0]["seed"] == 9


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("/stear x 1", "Did you mean '/steer'"),
        ("/steer nowhere.safetensors 1", "nowhere.safetensors"),
        ("/steer x", "write /steer"),
        ("/steer {joy} much", "the dose is a number"),
        ("/steer {joy} nan", "the dose is a number"),
        ("/steer {joy} 1 9", "9"),
        ("/steer {joy} 0", "steering"),
        ("/read {joy}:envy", "envy"),
        ("/plan nowhere.json", "nowhere.json"),
        ("/undo", "nothing to undo"),
        ("/seed x", "/seed N"),
        ("/save", "/save FILE"),
    ],
)
def test_a_line_that_cannot_be_done_ends_a_script(refused, lines, joy, line, word):
    lines(line.format(joy=joy), "/quit")
    assert word in refused(*CHAT)


def test_a_server_says_the_same_as_its_engine(trimtab, refused, lines, answer, engine, joy, serving):
    from trimtab.server.settings import Settings

    with serving(engine, Settings(readout=(joy,)), "secret") as url:
        chat = ("chat", f"{url}/v1", "--max-tokens", "6", "--api-key", "secret")
        lines("/read joy", "I feel", "/steer joy 2 1", "you seem")
        done = trimtab(*chat, "--json")
        one = answer([user("I feel")])
        two = answer([user("I feel"), {"role": "assistant", "content": one.text}, user("you seem")], dose=2)
        assert [r["reply"] for r in done.record["replies"]] == [one.text, two.text]
        assert done.record["replies"][1]["steering_applied"]["fingerprint"] == two.applied.fingerprint
        assert len(done.record["replies"][1]["readings"]["tokens"]) == len(two.tokens)
        assert two.applied.fingerprint in done.err
        for line, word in (("/steer envy 1", "envy"), ("/read envy", "envy")):
            lines(line)
            assert word in refused(*chat)
        lines("I feel")
        assert "API key" in refused(*chat[:-1], "wrong")
    lines("I feel")
    assert "does not answer" in trimtab(*chat).err


def test_a_chunk_of_several_tokens_and_readings_that_are_missing():
    from trimtab.cli.chat_remote import Remote
    from trimtab.cli.chat_session import _means

    side = Remote.__new__(Remote)
    side._readout = {"concepts": ["joy", "anger"], "z": True}
    values = [[[1.0, None]], None, [[3.0, None]]]
    pieces = list(side._pieces({"delta": {"content": "so glad"}, "readout": {"values": values}}))
    assert [p.text for p in pieces] == ["", "", "so glad"] and pieces[1].reading == {}
    assert _means(pieces) == ["mean z: joy +2.00, anger –"]


def test_tinted_pieces_keep_their_spaces(capsys):
    from trimtab.cli.chat_local import Piece
    from trimtab.cli.chat_session import Session
    from trimtab.cli.frame import Desk

    shared = {"seed": 0, "as_json": False, "quiet": False}
    session = Session(Desk("chat", {}, shared), None, Sampling())  # type: ignore[arg-type]
    for text, z in ((" so", 3.0), (" ", 1.5), ("glad\n", -2.0), (" x", 0.0)):
        session._show(Piece(text, {"joy": z}))
    assert capsys.readouterr().out == " so glad\n x"
