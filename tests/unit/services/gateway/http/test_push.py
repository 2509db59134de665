"""Push configs over HTTP: whose they are, and who may change them."""

import json

import pytest

from bulkhead_contracts.task import TaskRequested
from tests.unit.services.gateway.harness import AUTH, SUBMITTER, _row, make_mesh

MINE = {"Authorization": f"Bearer {SUBMITTER}"}
OTHERS = "bk_another_submitter_of_acme"
PATH = "/v1/tasks/pub_shop-t1/push/hook"


@pytest.fixture
async def mesh(tmp_path):
    row = {"tools": [], "document_scopes": ["default"], "task": {}, "day": {}, "push": {"hosts": ["*"]}}
    (tmp_path / "tenants.yaml").write_text(json.dumps({"tenants": {"acme": row}}))
    found = make_mesh(tmp_path)
    await found.gateway(tenants_file=tmp_path / "tenants.yaml").attach_inbox()
    keys = json.loads((tmp_path / "keys.json").read_text())
    keys["keys"].append(_row(OTHERS, "acme", "tom", "submitter"))
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    await found.say("pub_shop", TaskRequested(objective="x"), "pub_shop-t1")
    yield found
    await found.gateways[0].stop()


async def test_a_config_is_changed_and_deleted_by_its_owner_or_an_operator_alone(mesh, http):
    theirs = {"Authorization": f"Bearer {OTHERS}"}
    assert (await http.put(PATH, json={"url": "https://a.example/x", "token": "t"}, headers=MINE)).status_code == 200
    stolen = await http.put(PATH, json={"url": "https://evil.example/x"}, headers=theirs)
    assert (stolen.status_code, stolen.json()["code"]) == (403, "push_not_yours") and "sue" in stolen.json()["detail"]
    assert (await http.delete(PATH, headers=theirs)).json()["code"] == "push_not_yours"
    [config] = (await http.get("/v1/tasks/pub_shop-t1/push", headers=MINE)).json()["configs"]
    assert (config["url"], config["person"], config["token"]) == ("https://a.example/x", "sue", "t")
    own = await http.put(PATH.replace("hook", "other"), json={"url": "https://b.example/x"}, headers=theirs)
    assert own.status_code == 200
    assert (await http.put(PATH, json={"url": "https://a.example/y"}, headers=MINE)).status_code == 200
    assert (await http.put(PATH, json={"url": "https://ops.example/"}, headers=AUTH)).status_code == 200
    assert (await http.delete(PATH, headers=AUTH)).status_code == 200


async def test_a_persons_task_takes_configs_of_that_person_and_of_operators_alone(mesh, http):
    headers = MINE | {"Idempotency-Key": "k"}
    task = (await http.post("/v1/tasks", json={"objective": "x"}, headers=headers)).json()["task_id"]
    await mesh.pump()
    path, config = f"/v1/tasks/{task}/push/hook", {"url": "https://a.example/x"}
    refused = await http.put(path, json=config, headers={"Authorization": f"Bearer {OTHERS}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "push_not_yours") and "sue" in refused.json()[
        "detail"
    ]
    assert (await http.put(path, json=config, headers=MINE)).status_code == 200
    assert (await http.put(path.replace("hook", "ops"), json=config, headers=AUTH)).status_code == 200
