"""A worker reads a map's list, puts an item in its place, and gathers results into a list; none of it is believed."""

import json

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import MapOver, PlanStep, StepCall
from bulkhead_contracts.result import Label, Result
from bulkhead_contracts.step import Gathering, MapItem, StepFinished, StepInput, StepProposed
from bulkhead_contracts.tool import ToolCallRequested, ToolSpec
from bulkhead_services.worker.core import Worker
from tests.playbook import Playbook
from tests.unit.services.worker.test_playbook import assign, thinks

LABEL = Label(sha256="a" * 64, kind="tool_result", observed_by="tool_executor")
OVER = MapOver(of="lines", field="/rows", max_items=3)
MAP = PlanStep(id="s1", title="", instruction="name the fare", inputs=("lines",), kind="noop", over=OVER)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def inputs(play: Playbook, *texts: str) -> tuple[StepInput, ...]:
    return tuple(
        StepInput(step_id="lines", result=Result(content=play.add_content(text), provenance=(LABEL,))) for text in texts
    )


def count(play: Playbook, text: str, **changes: object) -> StepFinished:
    assign(play, step=MAP, inputs=inputs(play, text), **changes)
    return play.only_output(StepFinished)


def test_a_map_counts_its_list(play: Playbook) -> None:
    assert count(play, '{"rows": ["U1", {"line": 2}, null]}').items == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no JSON at all", "no_list"),
        ('{"lines": []}', "no_list"),
        ('{"rows": {"0": 1}}', "no_list"),
        ('{"rows": [1, 2, 3, 4]}', "too_many_items"),
        ("[" * 10_000, "no_list"),
        (json.dumps({"rows": ["x" * bounds.MAX_MAP_BYTES]}), "list_too_long"),
    ],
)
def test_what_is_no_list_of_so_many_items_is_not_run(play: Playbook, text: str, code: str) -> None:
    failure = count(play, text).failure
    assert failure is not None and failure.code == code and failure.hint


@pytest.mark.parametrize("value", ["U1", {"line": "U1", "stops": list(range(100))}, "ä" * 3_000, None, "half \ud800"])
def test_an_item_takes_the_place_of_its_list_among_the_inputs(play: Playbook, value: object) -> None:
    step = MAP.model_copy(update={"over": None, "id": "s1"})
    rows = inputs(play, json.dumps({"rows": [0, value]}))
    assign(play, step=step, inputs=rows, item=MapItem(of="lines", field="/rows", index=1))
    part = next(part for part in play.only_output(ModelCallRequested).parts if part.kind == "input")
    assert part.step_id == "lines" and part.title == "item 1 of 2" and part.content.author == "worker"
    text = part.content.carried_text or play.texts[part.content.sha256]
    whole = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    assert text == whole.encode("utf-8", "replace").decode()
    thinks(play, "2.90")
    proposed = play.only_output(StepProposed)
    assert LABEL in proposed.result.provenance, "it rests on what its list rests on"
    assert proposed.step.kind == "agent"
    play.replays()


def test_an_unchecked_item_says_which_it_is(play: Playbook) -> None:
    step = MAP.model_copy(update={"over": None})
    item = MapItem(of="lines", field="/rows", index=1)
    assign(play, step=step, inputs=inputs(play, '{"rows": [0, 1]}'), item=item, check=False)
    thinks(play, "2.90")
    assert play.only_output(StepFinished).items == 1


def test_an_item_that_the_list_lacks_fails(play: Playbook) -> None:
    step = MAP.model_copy(update={"over": None, "kind": "agent"})
    assign(play, step=step, inputs=inputs(play, '{"rows": [0]}'), item=MapItem(of="lines", field="/rows", index=1))
    assert play.only_output(StepFinished).failure.code == "no_such_item"


def gather(play: Playbook, *results: Result, **gathering: object) -> tuple[Result, object]:
    rows = tuple(StepInput(step_id=f"s1-{number:04}", result=result) for number, result in enumerate(results))
    assign(play, step=MAP, inputs=rows, gathering=Gathering(**{"max_bytes": bounds.MAX_MAP_BYTES, **gathering}))
    finished = play.only_output(StepFinished)
    assert finished.items == len(results)
    result = finished.result
    return result, json.loads(result.content.carried_text or play.texts[result.content.sha256])


def test_results_become_a_list_in_order(play: Playbook) -> None:
    texts = ('{"fare": 2.9}', "a text", "1,2", "", '"quoted"', "[" * 40)
    contents = [Result(content=play.add_content(text)) for text in texts]
    result, listed = gather(play, *contents, Result(standing="failed"), Result(summary="short"))
    assert listed == [{"fare": 2.9}, "a text", "1,2", "", "quoted", "[" * 40, None, "short"]
    assert result.completeness.complete
    play.replays()


def test_lists_are_joined(play: Playbook) -> None:
    lists = [Result(content=play.add_content(text)) for text in ("[1,[2]]", "[]", "[3]")]
    assert gather(play, *lists, joins=True)[1] == [1, [2], 3]


def test_what_does_not_fit_is_cut_and_told(play: Playbook) -> None:
    contents = [Result(content=play.add_content(text)) for text in ("1", "x" * 100, "2")]
    result, listed = gather(play, *contents, max_bytes=50, first=64)
    assert listed == [1, None, 2]
    [omission] = result.completeness.omissions
    assert (omission.reason, omission.detail) == ("truncated", "item 65")


def write_keys(play: Playbook, *items: object, attempt: int = 1, to: object = {"$item": "/mail"}) -> list[str]:
    """The key of the write of each item of this list, in its order."""
    mail = ToolSpec(name="send_mail", description="sends", parameters_json="{}", effect="write")
    call = StepCall(tool="send_mail", arguments_json=json.dumps({"to": to}))
    keys = []
    for index in range(len(items)):
        step = PlanStep(id=f"mails-{index:04}", title="", instruction="", kind="noop", inputs=("lines",), call=call)
        rows, item = inputs(play, json.dumps({"rows": items})), MapItem(of="lines", field="/rows", index=index)
        assign(play, step=step, tools=(mail,), inputs=rows, item=item, attempt=attempt)
        keys.append(play.only_output(ToolCallRequested).call_id)
    return keys


ANN, BOB = {"mail": "ann@b.example", "row": 1}, {"mail": "bob@b.example", "row": 2}


def test_the_write_of_an_item_has_its_key_wherever_the_item_stands(play: Playbook) -> None:
    ann, bob = write_keys(play, ANN, BOB)
    assert ann != bob and write_keys(play, ANN, BOB, attempt=2) == [ann, bob]
    again = Playbook(Worker())
    [eve, *moved] = write_keys(again, {"mail": "eve@b.example"}, {**ANN, "row": 2}, BOB)
    assert moved == [ann, bob] and eve not in moved, "what the call does not take from an item is none of its key"


def test_writes_of_equal_items_are_told_apart_by_their_order(play: Playbook) -> None:
    ann, bob, second_ann = write_keys(play, ANN, BOB, {**ANN, "row": 7})
    assert len({ann, bob, second_ann}) == 3
    assert write_keys(Playbook(Worker()), ANN, ANN, BOB) == [ann, second_ann, bob]
    assert len(set(write_keys(Playbook(Worker()), ANN, BOB, to="all@b.example"))) == 2, "each is a write of its own"


def test_an_agents_write_of_an_item_has_its_key_wherever_the_item_stands(play: Playbook) -> None:
    pay = ToolSpec(name="pay", description="pays", parameters_json="{}", effect="write")
    keys = []
    for items, index in ((["U1", "U2"], 1), (["U2", "U1"], 0), (["U1", "U2"], 0)):
        play = Playbook(Worker())
        step = MAP.model_copy(update={"over": None, "kind": "agent", "id": f"s1-{index:04}", "tools": ("pay",)})
        item = MapItem(of="lines", field="/rows", index=index)
        assign(play, step=step, tools=(pay,), inputs=inputs(play, json.dumps({"rows": items})), item=item)
        thinks(play, calls=(("pay", '{"amount": 1}'),))
        keys.append(play.only_output(ToolCallRequested).call_id)
    assert keys[0] == keys[1] != keys[2], "the same words about another item are another write"
