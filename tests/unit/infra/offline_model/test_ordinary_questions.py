"""What a newcomer with own documents ran into: each finding, asked of the offline model in the mesh in miniature."""

import json

import pytest

from tests.unit.infra.offline_model.miniature import TOOLS, Loop, chunks_of, part
from tests.unit.infra.offline_model.test_protocol import ask, calls, judge_request, plan_request, request, said

STAFF = """# Staff handbook

## Holiday

Full-time employees have 27 days of paid holiday. Trainees have 30 days of paid holiday.

## Sick leave

Call the office before 9:30. E7 is the form to send. Print the form, sign it and post it within 4 days."""
POOL = """# Town pool

## Prices

A single swim costs 6 EUR. A locker costs 2 EUR per day. Lessons cost 18 EUR per hour, at most 90 EUR.

| Card | Price per month |
|---|---|
| Adult | 35 EUR |
| Child | 20 EUR |

The pool opened on 3 March 2025. The slide opened on 14 April 2025."""


def run(objective: str, **documents: str) -> tuple[str, Loop]:
    """The answer to an objective over documents; every verdict on the way has to be accept."""
    loop = Loop(ask, [chunk for name, text in documents.items() for chunk in chunks_of(name, text)])
    answer = loop.run(objective)
    assert all(verdict["verdict"] == "accept" for verdict in loop.verdicts), (answer, loop.verdicts)
    return answer, loop


def plan_of(objective: str) -> list[dict]:
    return json.loads(said(plan_request(objective)))["steps"]


def test_a_question_for_days_of_something_is_looked_up_and_not_reckoned_between_dates() -> None:
    facts = "I began on 3 March 2025 and want to be off from 1 June 2025."
    answer, loop = run(f"{facts} How many days of holiday do trainees have?", s=STAFF)
    assert "30 days" in answer and {name for name, _ in loop.calls} == {"search_documents"}


@pytest.mark.parametrize(
    "question",
    [
        "How many days are there from 3 March 2025 to 14 April 2025?",
        "How many days are there between 3rd March 2025 and April 14, 2025?",
        "How many days lie between the opening of the pool and the opening of the slide?",
    ],
)
def test_the_days_between_two_dates_however_they_are_given(question: str) -> None:
    answer, loop = run(question, pool=POOL)
    assert ("date_difference", {"start": "2025-03-03", "end": "2025-04-14"}) in loop.calls and "42 days" in answer


@pytest.mark.parametrize("text", ["What happened in 2025-01?", "Is the desk open 24/7?", "Who reads pages 10-12?"])
def test_what_only_looks_like_arithmetic_is_not_computed(text: str) -> None:
    assert not [name for name, _ in run(text, pool=POOL)[1].calls if name == "calculate"]


@pytest.mark.parametrize(
    ("question", "expression", "value"),
    [
        ("What is 12 * 7?", "12 * 7", "84"),
        ("What is 84/7?", "84/7", "12"),
        ("What do 3 lockers cost for 2 days?", "3 * 2 * 2", "EUR 12.00"),
        ("How much do I pay if I swim twice a week in 6 weeks?", "12 * 6", "EUR 72.00"),
        ("What does the card for a child cost for a year?", "12 * 20", "EUR 240.00"),
        ("How much does locker 7 cost for 3 days?", "3 * 2", "EUR 6.00"),
        ("What do 2 hours of lessons cost?", "min(90, 2 * 18)", "EUR 36.00"),
        ("What do an adult's card and a child's card cost together?", "35 + 20", "EUR 55.00"),
        ("How much more is the card of an adult than the card of a child?", "35 - 20", "EUR 15.00"),
    ],
)
def test_plain_sums_are_worked_out_by_the_calculator(question: str, expression: str, value: str) -> None:
    answer, loop = run(question, pool=POOL)
    assert ("calculate", {"expression": expression}) in loop.calls, (loop.calls, answer)
    assert value in answer.splitlines()[0]


def test_an_amount_that_stands_in_a_document_is_quoted_without_ado() -> None:
    answer, _ = run("How much is a single swim?", pool=POOL)
    assert answer.startswith("“A single swim costs 6 EUR”")


def test_a_difference_is_one_of_the_same_thing_in_two_documents() -> None:
    gym = "# Gym\n\nA towel costs 1 EUR per day. A coach costs 40 EUR."
    answer, _ = run("What does a locker cost?", pool=POOL, gym=gym)
    assert "differ" not in answer and "2 EUR" in answer
    answer, _ = run(
        "What does a locker cost?",
        old="Valid from 2023-01-01.\n\nA locker costs 2 EUR per day.",
        new="Valid from 2025-01-01.\n\nA locker costs 3 EUR per day.",
    )
    assert answer.startswith("Two passages differ: “A locker costs 3 EUR per day” (in force from 2025-01-01)")


def test_no_question_of_a_long_list_is_lost() -> None:
    questions = [f"Where is the room number {number} of house {number}?" for number in range(1, 31)]
    steps = plan_of(" ".join(questions))
    for question in questions:
        assert [step for step in steps if question in step["instruction"]], question
    merged = [step for step in steps if "tasks in one step" in step["title"]]
    assert merged and len(json.dumps(steps)) < 16_000
    step = part("step", "2 tasks in one step: x\nWhat does a locker cost? What does a single swim cost?")
    answer = said(request(messages=[{"role": "user", "content": f"{step}\n{part('passage', POOL)}"}], tools=[]))
    assert "2 EUR" in answer and "6 EUR" in answer


def test_tasks_that_no_plan_can_hold_are_named() -> None:
    steps = plan_of(" ".join(f"Where is the room number {number}?" for number in range(1, 301)))
    assert len(json.dumps(steps)) < 16_000
    left_out = "Left out of the plan for want of room: 200 of 300 tasks, from this on: Where is the room number 101?"
    assert left_out in steps[-1]["instruction"]
    message = part("step", f"Title\n{steps[-1]['instruction']}") + "\n" + part("input", "Here.", step="s1")
    assert left_out in said(request(messages=[{"role": "user", "content": message}], tools=[]))


def test_the_sentence_after_is_given_too_and_no_bare_heading() -> None:
    answer, loop = run("What is form E7 and what do I do with it?", s=STAFF)
    assert "E7 is the form" in answer and "sign it and post it" in answer and "“Sick leave”" not in answer
    assert "E7" in loop.calls[0][1]["query"]
    assert "2025" in run("Who came in 2025?", pool=POOL)[1].calls[0][1]["query"]


@pytest.mark.parametrize(
    "question", ["What is the phone number of the pool?", "Is there a sauna?", "What does E9 mean?"]
)
def test_what_the_documents_do_not_hold_is_not_answered_by_something_near_it(question: str) -> None:
    answer, loop = run(question, pool=POOL, s=STAFF)
    assert answer.startswith("The documents hold no answer") and loop.calls


def test_no_answer_without_a_search_is_rejected() -> None:
    step = part("step", "Who runs the pool?")
    body = request(messages=[{"role": "user", "content": step}], tools=[TOOLS["calculate"]])
    answer = said(body)
    assert answer.startswith("The documents hold no answer")
    verdict = json.loads(
        said({**judge_request(answer), "messages": [{"role": "user", "content": step + "\n" + part("answer", answer)}]})
    )
    assert verdict["verdict"] == "reject" and "searched" in verdict["reasons"][0]


def test_a_summary_searches_and_gives_what_stands_under_each_heading() -> None:
    answer, loop = run("Summarise the staff handbook.", s=STAFF)
    assert loop.calls and "27 days" in answer and "Call the office" in answer


def test_notes_on_an_earlier_attempt_are_not_searched_for() -> None:
    message = part("step", "Who runs the pool?") + "\n" + part("notes", "- the result cites nothing: mend the citation")
    body = request(messages=[{"role": "user", "content": message}], tools=[TOOLS["search_documents"]])
    assert [arguments["query"] for _, arguments in calls(body)] == ["runs pool"]


PLANTS = "The ficus needs water weekly. The cactus needs water once a month."
TEAM = """| Name | Height | Team |
|---|---|---|
| Anna | 172 cm | Red |
| Ben | 181 cm | Blue |"""


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Which plant needs water weekly?", ["ficus"]),
        ("How tall is Anna?", ["172 cm"]),
        ("In which team is Ben?", ["Blue"]),
        ("When did the pool open and how much is a locker?", ["3 March 2025", "2 EUR per day"]),
        ("How many days of holiday do trainees have, and by when must I call if I am sick?", ["30 days", "9:30"]),
        ("Which language is spoken in the pool?", ["hold no answer"]),
        ("Which insurance covers flood damage?", ["hold no answer"]),
    ],
)
def test_the_sort_of_thing_need_not_be_named_and_of_two_questions_none_is_lost(question, wanted) -> None:
    answer, _ = run(question, plants=PLANTS, team=TEAM, pool=POOL, staff=STAFF)
    assert all(one in answer for one in wanted), answer


@pytest.mark.parametrize(
    ("question", "expression", "value"),
    [
        ("What is 25 % of 4,350?", "(25 / 100 * 4350)", "1087.50"),
        ("What is 25% of 4,350.50?", "(25 / 100 * 4350.50)", "1087.625"),
        ("The book has 12,000 pages. What is 25 % of its pages?", "25 / 100 * 12000", "3000.00"),
        ("What is 10 percent of the words?", "10 / 100 * 1500", "150.0"),
    ],
)
def test_a_percentage_of_a_number_however_it_is_written_and_of_things_that_are_counted(question, expression, value):
    answer, loop = run(question, essay="# Essay\n\nThe essay has 1,500 words.")
    assert ("calculate", {"expression": expression}) in loop.calls and value in answer, (answer, loop.calls)


@pytest.mark.parametrize("question", ["Who opens the hall and by when?", "What is E7 and where is it kept?"])
def test_what_says_little_by_itself_is_no_question_of_its_own(question: str) -> None:
    assert len(plan_of(question)) == 1
