"""A task's page as it is told by events, and the geometry of a graph."""

import asyncio

import pytest

from bulkhead_services.gateway.console.api import OPENED, ApiRefused
from bulkhead_services.gateway.console.drawing import DrawnStep, draw_layers
from bulkhead_services.gateway.console.watching import GAPS_S, element_of, follow_task

HOSTILE = "<script>alert(1)</script>\u202e"
AT = {"time_unix_ms": 1}
PLAN = {
    "version": 1,
    "steps": [{"id": "s1", "title": HOSTILE, "inputs": []}, {"id": "s2", "title": "", "inputs": ["s1"]}],
}


async def told(*events):
    async def source():
        for event in ((OPENED, {}), *events):
            yield event

    return [piece async for piece in follow_task(source())]


def text(piece, offset, *, replace=False):
    return "text", {"step_id": "s1", "offset": offset, "text": piece, "replace": replace}


async def test_events_become_looks_and_an_end_and_a_step_that_ended_writes_no_more():
    pieces = await told(
        ("plan.adopted", AT | {"plan": PLAN}),
        text("on", 0),
        ("step.ended", AT | {"step_id": "s1", "outcome": "accepted"}),
        ("step.ended", AT | {"step_id": "s2", "outcome": "accepted"}),
        ("task.ended", AT | {"status": "failed", "failure": {"message": HOSTILE}}),
    )
    names = [name for name, _ in pieces]
    assert names == ["live", "begin", "text", "text", "head", "story", "ended", "done"]
    shown = "".join(said for _, said in pieces)
    assert "<script>" not in shown and "\u202e" not in shown and "&lt;script&gt;alert(1)" in shown
    assert f'id="writes-{element_of("s1")}" hx-swap-oob="delete"' in pieces[3][1]


async def test_text_grows_and_is_replaced_by_what_was_sent_anew():
    pieces = [
        said for name, said in await told(text("on\ne", 0), text("two<b>", 4), text("three", 2)) if name == "text"
    ]
    place = f"text-{element_of('s1')}"
    assert f'id="{place}"' in pieces[0] and "on\ne</pre>" in pieces[0]
    assert f'hx-swap-oob="beforeend:#{place}"' in pieces[1] and "two&lt;b&gt;</span>" in pieces[1]
    assert 'hx-swap-oob="innerHTML"' in pieces[2] and "onthree</pre>" in pieces[2]


async def test_what_comes_together_is_looked_at_once_after_the_last_of_it():
    """A replay of the past, then a fact, and three more right behind it."""

    facts = 0

    async def source():
        nonlocal facts
        yield OPENED, {}
        for attempt in range(1, 30):
            facts = attempt
            yield "step.started", AT | {"step_id": "s1", "title": "", "attempt": attempt}
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * GAPS_S["head"])
        for attempt in range(30, 34):
            facts = attempt
            yield "step.started", AT | {"step_id": "s1", "title": "", "attempt": attempt}
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * GAPS_S["head"])

    looks = [facts async for name, _ in follow_task(source()) if name == "head"]
    assert looks == [29, 30, 33], "after how many facts"


async def test_a_stream_that_is_cut_does_not_say_that_the_task_has_ended():
    assert "done" not in {name for name, _ in await told(("task.accepted", AT))}


async def test_a_refusal_is_the_pages_to_tell():
    async def source():
        raise ApiRefused(404, {"title": "No such task"})
        yield "", {}

    with pytest.raises(ApiRefused):
        [piece async for piece in follow_task(source())]


@pytest.mark.parametrize(
    "steps", [(), (DrawnStep("a", "", ("a",)),), (DrawnStep("a", "", ("b",)), DrawnStep("b", "", ("a", "x")))]
)
def test_any_plan_has_a_place_for_each_step(steps):
    graph = draw_layers(steps)
    assert len({(node.x, node.y) for node in graph.nodes}) == len(steps)
    assert all(node.x < graph.width and node.y < graph.height for node in graph.nodes)


def test_a_step_stands_behind_its_inputs():
    graph = draw_layers((DrawnStep("c", "", ("a", "b")), DrawnStep("a", ""), DrawnStep("b", "", ("a",))))
    x = {node.step.id: node.x for node in graph.nodes}
    assert x["a"] < x["b"] < x["c"] and len(graph.edges) == 3
