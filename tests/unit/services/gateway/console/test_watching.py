"""A task's page as it is told by events, and the geometry of its plan and its calls."""

import asyncio

import pytest

from bulkhead_services.gateway.console.api import OPENED, ApiRefused
from bulkhead_services.gateway.console.drawing import BAR_WIDTH, DrawnStep, draw_bars, draw_layers
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


async def test_events_become_a_plan_a_commentary_and_an_end():
    pieces = await told(
        ("plan.adopted", AT | {"plan": PLAN}),
        ("step.started", AT | {"step_id": "s1", "title": HOSTILE, "attempt": 1}),
        ("task.ended", AT | {"status": "failed", "failure": {"message": HOSTILE}}),
    )
    assert [name for name, _ in pieces[:2]] == ["live", "begin"] and [name for name, _ in pieces[-2:]] == [
        "ended",
        "done",
    ]
    shown = "".join(said for _, said in pieces)
    assert "<script>" not in shown and "\u202e" not in shown and "&lt;script&gt;alert(1)" in shown
    graph = next(said for name, said in reversed(pieces) if name == "graph")
    assert 'class="node stopped"' in graph and 'class="node waiting"' in graph and 'class="edge"' in graph
    assert {"now", "story"} <= {name for name, _ in pieces}


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

    async def source():
        yield OPENED, {}
        for attempt in range(1, 30):
            yield "step.started", AT | {"step_id": "s1", "title": "", "attempt": attempt}
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * GAPS_S["now"])
        for attempt in range(30, 34):
            yield "step.started", AT | {"step_id": "s1", "title": "", "attempt": attempt}
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * GAPS_S["now"])

    told, looks = 0, []
    async for name, _ in follow_task(source()):
        told += name == "said"
        looks += [told] if name == "now" else []
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


def test_bars_stay_within_their_scale():
    call = {"call_id": "c", "name": "n", "kind": "model", "outcome": "open", "waited_ms": 0}
    found = draw_bars(
        [call | {"asked_unix_ms": at, "took_ms": took} for at, took in ((0, 5), (9, None), (99, 1))], 0, 10
    )
    assert all(bar.x >= 0 and bar.x + bar.width <= BAR_WIDTH for bar in found)
    assert [bar.y for bar in found] == sorted({bar.y for bar in found})
