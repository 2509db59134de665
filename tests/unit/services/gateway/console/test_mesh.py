"""The mesh on the overview: each service at its place with a word for its trouble, edges with their rates, what needs a
person; all of it in the table, too."""

from typing import Any

from bulkhead.gateway_api.operators import MeshPage
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import MessageEdge, ServiceLoad
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.mesh.drawing import (
    PLACES,
    draw_mesh,
    per_minute,
    replica_text,
    services_needing_person,
    table_rows,
)


def told(*loads: dict[str, Any], edges: tuple[tuple[str, str, int], ...] = ()) -> dict[str, Any]:
    services = tuple(ServiceLoad(**one) for one in loads)
    found = tuple(MessageEdge(sender=sender, receiver=to, messages=count) for sender, to, count in edges)
    return MeshPage(services=services, edges=found, window_ms=60_000).model_dump(mode="json")


def shown(found: dict[str, Any]) -> str:
    """The fragment as a browser gets it."""
    values = {"claim": None, "path": "/", "url": "/", "theme": "auto", "refused": [], "bare": True}
    return pages.render_template(
        "overview/mesh.html", picture=draw_mesh(found), rows=table_rows(found), replicas=replica_text, **values
    )


GONE = {"service": "worker", "replicas": 0, "listens": False, "pending": 3, "in_work": 0, "troubles": ("no_replica",)}
ILL = {"service": "rag", "replicas": None, "listens": True, "pending": 0, "in_work": 1, "received": 2, "failed": 4}
ILL |= {"troubles": ("failures",)}
PLAIN = {"service": "planner", "replicas": 2, "listens": True, "pending": 0, "in_work": 0, "received": 1}
SIGNER = {"service": "signer"}


def test_every_service_of_the_catalog_has_a_place_of_its_own() -> None:
    assert set(PLACES) == set(catalog.SERVICES) and len(set(PLACES.values())) == len(PLACES)
    drawn = draw_mesh(told(*({"service": name} for name in catalog.SERVICES)))
    boxes = [(node.x, node.y) for node in drawn.nodes]
    assert all(abs(x - a) > 176 or abs(y - b) > 66 for x, y in boxes for a, b in boxes if (x, y) != (a, b))
    assert all(x + 176 <= drawn.width and y + 66 <= drawn.height for x, y in boxes)


def test_a_service_in_trouble_has_a_word_beside_its_colour() -> None:
    drawn = draw_mesh(told(GONE, ILL, PLAIN, SIGNER))
    words = {node.load["service"]: (node.status, node.word) for node in drawn.nodes}
    assert words == {
        "worker": ("failed", "no replica"),
        "rag": ("stopped", "failures"),
        "planner": ("running", ""),
        "signer": ("", ""),
    }
    assert [replica_text(node.load) for node in drawn.nodes] == [
        "0 replicas",
        "1 or more replicas",
        "2 replicas",
        "replicas unknown",
    ]


def test_a_service_without_an_inbox_answers_or_does_not() -> None:
    silent, fine = ({"service": "signer", "listens": listens} for listens in (False, True))
    assert [row.word for row in table_rows(told(silent))] == ["no answer"]
    assert [(row.word, row.replicas) for row in table_rows(told(fine))] == [("ok", "answers")]


def test_an_edge_has_the_rates_both_ways_and_who_speaks_to_itself_none() -> None:
    edges = (("planner", "worker", 12), ("worker", "planner", 3), ("planner", "planner", 9), ("budget", "journal", 5))
    drawn = draw_mesh(told(GONE, PLAIN, {"service": "rag"}, edges=(*edges, ("publisher", "gateway", 1))))
    [edge, idle] = drawn.edges
    assert edge.label == "→ 12  ← 3" and edge.failed, "to a service that nobody serves"
    assert idle.label == "" and "rag" not in idle.said
    assert edge.said == "planner to worker: 12 a minute and worker to planner: 3 a minute"
    [planner] = [row for row in table_rows(told(PLAIN, edges=edges)) if row.load["service"] == "planner"]
    assert planner.sends == (("worker", 12), ("planner", 9))
    assert (per_minute(1, 240_000), per_minute(0, 60_000), per_minute(3, 30_000), per_minute(1, 0)) == (1, 0, 6, 0)


def test_the_table_says_what_the_drawing_shows() -> None:
    page = shown(told(GONE, ILL, PLAIN, SIGNER, edges=(("planner", "worker", 12),)))
    table = page[page.index("<table") :]
    assert "no replica" in table and "failures" in table and "worker 12" in table and "1 or more replicas" in table
    assert "<td>replicas unknown</td>" in table and '<td class="number">unknown</td>' in table
    assert "worker: no replica" in page[: page.index("<table")]


def test_a_person_is_needed_where_work_waits_that_nobody_takes_or_letters_lie() -> None:
    letters = {"service": "checker", "dead_letters": 2, "troubles": ("dead_letters",)}
    troubled = services_needing_person(told(GONE, ILL, PLAIN, letters))
    assert [one["service"] for one in troubled] == ["worker", "checker"]
    said = pages.render_template("overview/mesh_needs.html", troubled=troubled)
    assert "asks for work, and 3 messages wait for it" in said and "2 messages" in said
