"""What a tenant's list shows, and ids that are none: an outside publisher chooses the last tokens of its subjects."""

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskRequested
from tests.unit.services.gateway.harness import AUTH, FOREIGN


@pytest.mark.parametrize(
    "subject",
    [
        "mesh.pub_shop.gateway.{p}.acme.Größe.-",
        "mesh.pub_shop.gateway.{p}.acme.$JS.-",
        "mesh.pub_shop.gateway.{p}.acme." + "x" * 65 + ".-",
        "mesh.pub_shop.gateway.99.acme.t9.-",
        "mesh.pub_shop.gateway.x.acme.t9.-",
        "mesh.pub_shop.gateway.².acme.t9.-",
        "mesh.pub_shop.gateway.{p}.acme.t9.-.more",
        "mesh.pub_shop.gateway.{p}.other.t9.-",
    ],
    ids=[
        "letters",
        "dollar",
        "over-long",
        "wrong-partition",
        "no-partition",
        "foreign-digit",
        "eight-tokens",
        "tenant",
    ],
)
async def test_a_task_under_a_bad_subject_does_not_spoil_the_list(mesh, http, subject):
    """An outside publisher chooses the last tokens of its subject; the broker lets any characters through."""
    await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-good")
    headers = {"ce-type": "mesh.task.requested.v2", "ce-id": "1", "ce-source": "pub_shop"}
    task = subject.split(".")[5]
    await mesh.bus.publish(subject.format(p=subjects.partition_of(task)), b'{"objective": "spoils"}', headers, "bad")
    mesh.handled += 1  # The shell buries what it cannot read.
    await mesh.say("pub_shop", TaskRequested(objective="What else?"), "pub_shop-later")
    answer = await http.get("/v1/tasks", headers=AUTH)
    assert answer.status_code == 200, answer.text
    assert [one["task_id"] for one in answer.json()["tasks"]] == ["pub_shop-later", "pub_shop-good"]
    assert answer.json()["next"] is None


@pytest.mark.parametrize("task", ["Gr%C3%B6%C3%9Fe", "x" * 65, "t1%0A", "t.1", "*", "%3E", "t%201", "%C2%B2"])
@pytest.mark.parametrize("path", ["/v1/tasks/{}", "/v1/tasks/{}/events", "/v1/documents/{}"])
async def test_an_id_that_is_no_token_is_not_there(mesh, http, path, task):
    before = mesh.bus.reads
    answer = await http.get(path.format(task), headers=AUTH)
    assert answer.status_code == 404 and answer.json()["hint"].startswith("ids are made of")
    assert mesh.bus.reads == before, "it must not reach the broker"


async def test_another_tenants_task_is_not_there(mesh, http):
    await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
    for path in ("/v1/tasks/pub_shop-t1", "/v1/tasks/pub_shop-t1/events"):
        answer = await http.get(path, headers={"Authorization": f"Bearer {FOREIGN}"})
        assert answer.status_code == 404 and answer.json()["code"] == "not_found"
    assert (await http.get("/v1/tasks", headers={"Authorization": f"Bearer {FOREIGN}"})).json()["tasks"] == []
