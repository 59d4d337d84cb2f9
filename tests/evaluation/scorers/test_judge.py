"""The judge against a real HTTP server: expectations, refusals, order, cache, retries, cost, and no default mark."""

import importlib.util
import json
import time

import pytest

pytest.importorskip("httpx", reason="the judge needs httpx: pip install 'trimtab[serve]'")
pytest.importorskip("uvicorn", reason="the stub server needs uvicorn: pip install 'trimtab[serve]'")
pytest.importorskip("fastapi", reason="the stub server needs fastapi: pip install 'trimtab[serve]'")

from evaluation.scorers.stub_judge import chat, serving
from trimtab.errors import InputError, MissingDependency, TrimtabError
from trimtab.evaluation.scorers.endpoint import Answer, Endpoint
from trimtab.evaluation.scorers.judge import COHERENCE, Judge, Rubric, read_mark, role, rubric_of, trait
from trimtab.evaluation.scorers.scorer import Answered, Scored, one_table

pytestmark = pytest.mark.slow
ROWS = [
    Answered(f"question {i}?", f"answer {i}", condition="plain" if i % 2 else "steered") for i in range(8)
]
HONEST = trait("honesty")


def rated(text, *tokens):
    return read_mark(Answer(text, tuple(chat(text, *tokens)["choices"][0]["logprobs"]["content"])), HONEST)


def test_the_mark_is_the_expectation_over_whole_numbers_in_range():
    mark = rated("80", ("80", {"80": 0.5, " 80": 0.1, "40": 0.2, "120": 0.1, "x": 0.1}))
    assert mark.value == pytest.approx((80 * 0.6 + 40 * 0.2) / 0.8)
    assert mark.detail["mass"] == pytest.approx(0.8) and mark.detail["by"] == "expectation"


def test_little_numeric_mass_is_no_mark():
    mark = rated("80", ("80", {"80": 0.2, "I": 0.8}))
    assert mark.value is None and mark.why == "no number likely"


def test_a_number_in_pieces_is_read_from_the_text_and_not_from_its_first_digit():
    mark = rated("85", ("8", {"8": 0.9, "9": 0.1}), ("5", {"5": 1.0}))
    assert mark.value == 85.0 and mark.detail["by"] == "text"


@pytest.mark.parametrize(
    ("text", "value", "why"),
    [("73", 73.0, None), ("Score: 73.5", 73.5, None), ("REFUSAL", None, "refusal"), ("refusal.", None, "refusal"),
     ("good", None, "no number written"), ("101", None, "number out of range"), ("", None, "no number written")],
)  # fmt: skip
def test_marks_read_from_the_text(text, value, why):
    mark = read_mark(Answer(text), HONEST)
    assert (mark.value, mark.why) == (value, why)
    assert mark.detail["raw"] == text


def test_refusal_is_its_own_class_even_where_numbers_are_likely():
    assert rated("REFUSAL", ("REFUSAL", {"REFUSAL": 0.6, "10": 0.4})).why == "refusal"


def test_one_call_per_row_blind_to_the_condition_in_a_shuffled_order(tmp_path):
    with serving(lambda body, n: chat("50", ("50", {"50": 1.0}))) as stub:
        marks = Judge(Endpoint(stub.url, "m", cache=tmp_path), HONEST, workers=1).score(ROWS)
    assert [m.value for m in marks] == [50.0] * 8
    asked = [b["messages"][0]["content"] for b in stub.seen]
    assert len(asked) == 8 and all("plain" not in a and "steered" not in a for a in asked)
    order = [next(i for i, r in enumerate(ROWS) if r.question in a) for a in asked]
    assert sorted(order) == list(range(8)) and order != list(range(8))
    body = stub.seen[0]
    assert body["temperature"] == 0 and body["logprobs"] is True and body["top_logprobs"] == 20


def test_answers_are_kept_with_request_and_raw_response_and_not_asked_again(tmp_path):
    with serving(lambda body, n: chat("REFUSAL" if n == 3 else "60")) as stub:
        judge = Judge(Endpoint(stub.url, "m", cache=tmp_path, logprobs=False), HONEST)
        first = judge.score(ROWS)
        assert judge.estimate(ROWS).calls == 0 and judge.estimate(ROWS).kept == 8
        assert judge.score(ROWS) == first and len(stub.seen) == 8
        # Another rubric, and another model, are other questions.
        assert Judge(judge.endpoint, COHERENCE).estimate(ROWS).calls == 8
        assert (
            Judge(Endpoint(stub.url, "other", cache=tmp_path, logprobs=False), HONEST).estimate(ROWS).calls
            == 8
        )
    assert sum(m.why == "refusal" for m in first) == 1
    kept = [json.loads(p.read_text()) for p in tmp_path.glob("*.json")]
    assert len(kept) == 8 and all(k["request"]["model"] == "m" and k["response"]["choices"] for k in kept)
    assert not list(tmp_path.glob("*.part"))


def test_equal_answers_of_two_conditions_are_asked_once(tmp_path):
    twice = [Answered("q", "same", condition=c) for c in "ab"]
    with serving(lambda body, n: chat("10")) as stub:
        Judge(Endpoint(stub.url, "m", logprobs=False), HONEST).score(twice)
    assert len(stub.seen) == 1


def test_retries_wait_and_double_and_obey_the_server():
    waited = []
    replies = {1: (503, "busy"), 2: (429, "slow down", {"Retry-After": "7"}), 3: (500, "oops")}
    with serving(lambda body, n: replies.get(n) or chat("30")) as stub:
        end = Endpoint(stub.url, "m", logprobs=False, backoff=0.5, sleep=waited.append)
        assert end.ask(HONEST.messages(ROWS[0])).text == "30"
    assert waited == [0.5, 7.0, 2.0]


def test_a_server_that_stays_broken_is_an_error_and_no_mark_is_made_up(tmp_path):
    with serving(lambda body, n: (500, "always")) as stub:
        end = Endpoint(stub.url, "m", retries=2, sleep=lambda _: None, cache=tmp_path)
        with pytest.raises(TrimtabError, match="no answer in 3 attempts.*HTTP 500: always"):
            Judge(end, HONEST, workers=1).score(ROWS[:1])
    assert len(stub.seen) == 3 and not list(tmp_path.iterdir())


def test_a_dead_endpoint_stops_the_run_without_waiting_for_the_rest():
    many = [Answered(f"q{i}", f"a{i}") for i in range(60)]

    def down(body, n):
        if n > 4:  # the first rows have failed: time to hear of it
            time.sleep(0.05)
        return 500, "down"

    with serving(down) as stub:
        end = Endpoint(stub.url, "m", retries=1, sleep=lambda _: None)
        with pytest.raises(TrimtabError, match="no answer"):
            Judge(end, HONEST, workers=2).score(many)
    assert len(stub.seen) < 30  # 120 attempts would be made for all of them


@pytest.mark.parametrize(
    ("reply", "mend"),
    [((401, "no key"), "--api-key-env"), ((400, "logprobs not supported"), "--no-logprobs")],
)
def test_what_a_retry_cannot_mend_is_said_at_once(reply, mend):
    with serving(lambda body, n: reply) as stub, pytest.raises(TrimtabError, match=mend):
        Endpoint(stub.url, "m", sleep=lambda _: None).ask(HONEST.messages(ROWS[0]))
    assert len(stub.seen) == 1


def test_nobody_listens():
    end = Endpoint("http://127.0.0.1:9", "m", retries=1, sleep=lambda _: None, timeout=2)
    with pytest.raises(TrimtabError, match="no answer in 2 attempts"):
        end.ask(HONEST.messages(ROWS[0]))


def test_something_that_is_no_chat_endpoint():
    with serving(lambda body, n: (200, "hello")) as stub, pytest.raises(TrimtabError, match="chat endpoint"):
        Endpoint(stub.url, "m").ask(HONEST.messages(ROWS[0]))


def test_the_key_travels_in_the_header_and_not_in_the_cache(tmp_path):
    with serving(lambda body, n: chat("1")) as stub:
        Endpoint(stub.url, "m", api_key="sk-secret", cache=tmp_path).ask(HONEST.messages(ROWS[0]))
    assert stub.headers[0]["authorization"] == "Bearer sk-secret"
    assert all("sk-secret" not in p.read_text() for p in tmp_path.iterdir())


def test_the_estimate_comes_before_anything_is_sent():
    judge = Judge(Endpoint("http://127.0.0.1:9", "m", max_tokens=10), HONEST)
    found = judge.estimate([*ROWS, Answered("q", "  ")], price_in=1.0, price_out=2.0)
    assert (found.calls, found.tokens_out) == (8, 80)
    assert found.cost == pytest.approx((found.tokens_in + 2 * 80) / 1e6)
    characters = sum(len(HONEST.messages(r)[0]["content"]) for r in ROWS)
    assert found.tokens_in == characters // 4 and judge.endpoint.calls == 0


def test_braces_in_an_answer_are_text():
    said = HONEST.messages(Answered("{answer}?", "{question} {x}"))[0]["content"]
    assert "[Question]\n{answer}?" in said and "[Answer]\n{question} {x}" in said


def test_rubrics():
    assert (role("a pirate").low, role("a pirate").high) == (0, 3)
    assert rubric_of("coherence") is COHERENCE
    with pytest.raises(InputError, match="needs a name"):
        rubric_of("trait")
    with pytest.raises(InputError, match="answer"):
        Rubric("bad", "{question}")


def test_marks_of_two_rubrics_do_not_share_a_table():
    with serving(lambda body, n: chat("20")) as stub:
        end = Endpoint(stub.url, "m", logprobs=False)
        one, two = (Scored.by(Judge(end, r), ROWS) for r in (HONEST, COHERENCE))
    with pytest.raises(InputError, match="one table"):
        one_table([one, two])
    rows = one_table([one], baseline="plain")
    assert [r.condition for r in rows] == ["steered", "plain"]


def test_without_httpx_the_install_line_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *a: None if n == "httpx" else found(n, *a))
    with pytest.raises(MissingDependency, match=r"trimtab\[serve\]"):
        Endpoint("http://x", "m")
