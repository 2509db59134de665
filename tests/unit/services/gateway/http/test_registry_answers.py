"""Answers of the registry that cannot be read."""

from bulkhead.bus.port import LiveMessage
from tests.unit.services.gateway.harness import AUTH


async def test_an_answer_of_another_release_is_told_as_trouble_of_the_mesh(mesh, http, monkeypatch):
    async def answer_unreadably(*_message: object, **_options: object) -> LiveMessage:
        return LiveMessage("reply", {"ce-type": "mesh.workflow.workflows_replied.v9"}, b"{}")

    monkeypatch.setattr(mesh.bus, "request", answer_unreadably)
    answer = await http.get("/v1/workflows", headers=AUTH)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
