"""A declared query is a read of the mesh: route, role, OpenAPI, typed client and command come from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from pydantic import Field
from starlette.applications import Starlette
from typer.testing import CliRunner

from bulkhead.client import Mesh, Refused, Unfit
from bulkhead.client.request_checks import check_query
from bulkhead.gateway_api.query import OVERSEERS, PageSize, Query, TaskId
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.query_command import query_command
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract
from bulkhead_services.gateway.http.openapi import QUERIES, build_document
from bulkhead_services.gateway.http.query_routes import query_route
from tests.unit.services.gateway.harness import OPERATOR, SUBMITTER, make_mesh

Client = Callable[[str], Mesh]


class WordPage(Contract):
    """Words, for one person."""

    person: str
    words: tuple[str, ...]


class WordQuery(
    Query[WordPage], name="listWords", path="/v1/tasks/{task_id}/words", action="read words", allowed=OVERSEERS
):
    """List words of a task.

    They are numbers.
    """

    task_id: TaskId
    limit: PageSize = 20
    starts: Annotated[str, Field(description="Only words that begin so")] = ""


async def list_words(claim: RequesterClaim, query: WordQuery) -> WordPage:
    """The answer that the gateway's part of a new read is."""
    words = (f"{query.starts}{number}" for number in range(query.limit))
    return WordPage(person=claim.person, words=(query.task_id, *words))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    gateway = make_mesh(tmp_path).gateway()
    gateway._auth.load()
    app: Starlette = gateway.http.build_app()
    app.routes.append(query_route(WordQuery, gateway._auth, list_words))
    transport = httpx.ASGITransport(app=app)

    def client(key: str) -> Mesh:
        return Mesh("http://gateway", key, transport=transport)

    monkeypatch.setattr(GatewayTarget, "mesh_client", lambda target: client(target.api_key))
    return client


async def test_the_client_knows_the_type_of_the_reply(served: Client) -> None:
    async with served(OPERATOR) as mesh:
        page = await mesh.read(WordQuery(task_id="t 1", limit=2, starts="b&c"))
    assert page.words == ("t 1", "b&c0", "b&c1") and page.person


async def test_roles_and_parameters_are_checked_with_a_remedy(served: Client) -> None:
    async with served(SUBMITTER) as mesh:
        with pytest.raises(Refused, match="the role submitter may not read words") as refused:
            await mesh.read(WordQuery(task_id="t1"))
    assert refused.value.status == 403 and "the role operator" in refused.value.hint
    async with served(OPERATOR) as mesh:
        with pytest.raises(Refused, match="limit is '101'") as refused:
            await mesh.get("/v1/tasks/t1/words", {"limit": "101"})
    assert (refused.value.status, refused.value.hint) == (422, "send a number from 1 to 100")
    with pytest.raises(Unfit, match="limit is 101"):
        check_query(WordQuery, {"task_id": "t1", "limit": 101})


def test_the_document_describes_it() -> None:
    document = build_document((*QUERIES, WordQuery))
    operation = document["paths"]["/v1/tasks/{task_id}/words"]["get"]
    assert (operation["operationId"], [*operation["responses"]]) == (
        "listWords",
        ["200", "401", "403", "404", "422", "503"],
    )
    places = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
    assert places == [("path", "task_id"), ("query", "limit"), ("query", "starts")]
    assert "WordPage" in document["components"]["schemas"]


def test_the_command_has_its_options_and_prints_json(served: Client) -> None:
    app = CommandGroup()
    app.command()(query_command(WordQuery, "words", printer=lambda reply: print(*reply["words"])))
    app.command("other")(query_command(WordQuery, "other"))
    where = ["--url", "http://gateway", "--api-key", OPERATOR]
    told = CliRunner().invoke(app, ["words", "t1", "--limit", "1", "--starts", "b", *where])
    assert (told.exit_code, told.output) == (0, "t1 b0\n")
    told = CliRunner().invoke(app, ["words", "t1", "--limit", "1", "--json", *where])
    assert json.loads(told.output)["words"] == ["t1", "0"]
    refused = CliRunner().invoke(app, ["words", "t1", "--limit", "0", *where])
    assert refused.exit_code == 2 and "send a number from 1 to 100" in refused.output
