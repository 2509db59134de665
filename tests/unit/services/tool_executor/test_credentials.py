"""Credentials of tools: of their caller and no other, from files, Vault and token endpoints, and seen nowhere else."""

import asyncio
import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from bulkhead.tools.api import Failed
from bulkhead.tools.catalog import tool_rows
from bulkhead_services.tool_executor.credentials.references import Credential, Vault
from bulkhead_services.tool_executor.credentials.store import MAX_CACHED, CredentialStore
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings

TOKEN = "the-token-of-acme-17"
Answer = tuple[int, Any]


class Scripted:
    """A server that answers by a function of method, path, headers and body, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], str]] = []
        self.answer: Callable[[str, dict[str, str], str], Answer] = lambda path, headers, body: (404, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.command, self.path, headers, body))
                status, told = outer.answer(self.path, headers, body)
                raw = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    found = Scripted()
    yield found
    found.close()


@pytest.fixture
async def store():
    """Stores over real HTTP, with a clock of the test."""
    async with httpx.AsyncClient(trust_env=False) as http:

        def made(references: dict[str, dict], vault: Vault | None = None, clock=lambda: 0.0) -> CredentialStore:
            read = {name: Credential.model_validate(one) for name, one in references.items()}
            return CredentialStore(read, vault, http, clock)

        yield made


# Files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for caller, secret in {"acme/ann": "of-ann", "acme/bob": "of-bob", "other/ann": "of-other"}.items():
        path = tmp_path / caller
        path.parent.mkdir(exist_ok=True)
        path.write_text(secret + "\n")
    return tmp_path


async def test_a_caller_gets_its_own_and_no_other(store, files: Path) -> None:
    found = store({"desk": {"file": f"{files}/{{tenant}}/{{user}}"}})
    for tenant, user, secret in (("acme", "ann", "of-ann"), ("acme", "bob", "of-bob"), ("other", "ann", "of-other")):
        assert await found.read_credentials(("desk",), tenant, user) == {"desk": secret}
    for tenant, user in (
        ("acme", "eve"),
        ("acme", "../other/ann"),
        ("acme", "..%2fother"),
        ("acme", ""),
        ("nobody", "ann"),
    ):
        refused = await found.read_credentials(("desk",), tenant, user)
        assert isinstance(refused, Failed) and refused.code == "no_credential" and refused.effect == "none"


async def test_a_changed_file_counts_at_the_next_call(store, files: Path) -> None:
    found = store({"desk": {"file": f"{files}/{{tenant}}/{{user}}"}})
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "of-ann"}
    (files / "acme" / "ann").write_text("rotated")
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "rotated"}


async def test_one_for_all_is_of_the_tenants_that_are_named(store, files: Path) -> None:
    found = store({"desk": {"file": f"{files}/acme/ann", "tenants": ["acme"]}})
    assert await found.read_credentials(("desk",), "acme", "x") == {"desk": "of-ann"}
    assert isinstance(await found.read_credentials(("desk",), "other", "x"), Failed)
    assert isinstance(await found.read_credentials(("unknown",), "acme", "x"), Failed)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ({"file": "/run/secrets/desk"}, "same for every tenant"),
        ({"file": "/run/{tenant}", "vault": "x/{tenant}"}, "either `file` or `vault`"),
        ({}, "either `file` or `vault`"),
        ({"file": "/run/{tenant}/{task}"}, "placeholders"),
        ({"file": "/run/{tenant}", "exchange": {"url": "http://tokens.example"}}, "https URL"),
        ({"file": "/run/{tenant}", "exchange": {"url": "https://u:p@tokens.example"}}, "without credentials"),
        ({"file": "/run/{tenant}", "exchange": {"url": "https://t", "grant": "client_credentials"}}, "client_id"),
    ],
)
def test_a_reference_that_is_none_is_told_at_start(reference: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(tool_credentials={"desk": reference})


# Vault


def vault_of(server: Scripted, tmp_path: Path, **more: object) -> Vault:
    (tmp_path / "token").write_text("vault-token-1\n")
    return Vault(address=server.url, token_file=str(tmp_path / "token"), **more)


def kv2(secret: object) -> Answer:
    return 200, {"data": {"data": {"value": secret}, "metadata": {"version": 3}}}


async def test_vault_is_asked_by_its_token_and_the_answer_kept_for_its_time(store, server, tmp_path: Path) -> None:
    now = [0.0]
    server.answer = lambda path, headers, body: kv2(f"secret of {path.split('/')[-1]}")
    vault = vault_of(server, tmp_path, namespace="team", cache_s=60)
    found = store({"desk": {"vault": "secret/data/{tenant}"}}, vault, lambda: now[0])
    many = await asyncio.gather(*(found.read_credentials(("desk",), "acme", "ann") for _ in range(20)))
    assert many == [{"desk": "secret of acme"}] * 20 and len(server.asked) == 1, "one request for all that wait"
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/v1/secret/data/acme")
    assert (headers["x-vault-token"], headers["x-vault-namespace"]) == ("vault-token-1", "team")
    assert await found.read_credentials(("desk",), "other", "ann") == {"desk": "secret of other"}
    # Rotation of both, without a restart.
    (tmp_path / "token").write_text("vault-token-2")
    server.answer = lambda path, headers, body: kv2("rotated")
    now[0] = 59.0
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "secret of acme"}
    now[0] = 61.0
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "rotated"}
    assert server.asked[-1][2]["x-vault-token"] == "vault-token-2"


async def test_what_the_other_side_refused_is_read_anew(store, server, tmp_path: Path) -> None:
    server.answer = lambda path, headers, body: kv2(f"number {len(server.asked)}")
    found = store({"desk": {"vault": "secret/data/{tenant}"}}, vault_of(server, tmp_path))
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "number 1"}
    found.forget_cached(("desk",), "acme", "ann")
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "number 2"}


async def test_what_is_kept_is_bounded(store, server, tmp_path: Path) -> None:
    server.answer = lambda path, headers, body: kv2("s")
    found = store({"desk": {"vault": "secret/data/{tenant}/{user}"}}, vault_of(server, tmp_path))
    for number in range(MAX_CACHED + 10):
        found._cached[("desk", "acme", f"u{number}")] = ("s", 1e9)
    await found.read_credentials(("desk",), "acme", "ann")
    assert len(found._cached) == MAX_CACHED


@pytest.mark.parametrize(
    ("answer", "transient"),
    [
        ((403, {"errors": ["permission denied"]}), False),
        ((404, {"errors": []}), False),
        ((503, {"errors": ["sealed"]}), True),
        ((429, {}), True),
        ((200, b"<html>"), False),
        ((200, {"data": {"data": {"other": "x"}}}), False),
        ((200, {"data": {"data": {"value": 5}}}), False),
        ((200, {"data": {"data": {"value": "x" * 300_000}}}), False),
    ],
    ids=["denied", "absent", "sealed", "busy", "html", "field", "number", "too-long"],
)
async def test_vault_that_gives_nothing_is_a_failure(store, server, tmp_path, answer: Answer, transient: bool) -> None:
    server.answer = lambda path, headers, body: answer
    found = await store({"desk": {"vault": "secret/data/{tenant}"}}, vault_of(server, tmp_path)).read_credentials(
        ("desk",), "acme", "a"
    )
    assert isinstance(found, Failed) and (found.code, found.transient) == ("no_credential", transient)
    assert "vault-token-1" not in repr(found)


# Exchanged for short-lived ones


async def test_a_token_is_exchanged_and_used_until_it_ends(store, server, files: Path) -> None:
    now = [0.0]
    (files / "client").write_text("cl:ient")
    exchange = {
        "url": f"{server.url}/token",
        "client_id": "bulk head",
        "client_secret_file": f"{files}/client",
        "audience": "desk",
        "scope": "tickets:write",
    }
    reference = {"file": f"{files}/{{tenant}}/{{user}}", "exchange": exchange}
    server.answer = lambda path, headers, body: (200, {"access_token": f"short-{len(server.asked)}", "expires_in": 300})
    found = store({"desk": reference}, None, lambda: now[0])
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "short-1"}
    _, path, headers, body = server.asked[0]
    assert path == "/token" and headers["content-type"] == "application/x-www-form-urlencoded"
    assert base64.b64decode(headers["authorization"].split()[1]).decode() == "bulk%20head:cl%3Aient"
    assert {name: one for name, (one,) in parse_qs(body).items()} == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "of-ann",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": "desk",
        "scope": "tickets:write",
    }
    assert await found.read_credentials(("desk",), "acme", "bob") == {"desk": "short-2"}, "another user, another token"
    now[0] = 269.0
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "short-1"}
    now[0] = 271.0
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "short-3"}
    (files / "acme" / "ann").write_text("rotated")
    assert await found.read_credentials(("desk",), "acme", "ann") == {"desk": "short-4"}, "the old one counts no more"


async def test_client_credentials(store, server, files: Path) -> None:
    server.answer = lambda path, headers, body: (200, {"access_token": "short", "expires_in": 10})
    exchange = {"url": f"{server.url}/token", "grant": "client_credentials", "client_id": "me"}
    found = store({"desk": {"file": f"{files}/{{tenant}}/ann", "exchange": exchange}})
    assert await found.read_credentials(("desk",), "acme", "x") == {"desk": "short"}
    _, _, headers, body = server.asked[0]
    assert base64.b64decode(headers["authorization"].split()[1]).decode() == "me:of-ann"
    assert body == "grant_type=client_credentials"


@pytest.mark.parametrize(
    "answer",
    [
        (400, {"error": "invalid_grant", "error_description": "of-ann is not known"}),
        (200, {"token": "x"}),
        (200, {"access_token": ""}),
        (500, b"of-ann"),
    ],
)
async def test_a_refused_exchange_is_a_failure_without_the_secret(store, server, files, caplog, answer: Answer) -> None:
    server.answer = lambda path, headers, body: answer
    exchange = {"url": f"{server.url}/token", "client_id": "me"}
    with caplog.at_level(logging.DEBUG):
        found = await store({"desk": {"file": f"{files}/{{tenant}}/ann", "exchange": exchange}}).read_credentials(
            ("desk",), "acme", "x"
        )
    assert isinstance(found, Failed) and found.code == "no_credential"
    said = repr(found) + caplog.text + repr([getattr(one, "values", "") for one in caplog.records])
    assert "of-ann" not in said and "the token endpoint answered" in said


# A tool that has them, and says them wherever it can

CODE = '''
import base64, sys
from bulkhead.tools import Call, Done, Failed, tool

@tool(credentials=["desk"])
{kind} leak(how: str, call: Call) -> str | Done | Failed:
    """Say what must not be said."""
    secret = call.credentials["desk"]
    print("printed", secret, file=sys.stderr)
    if how == "names":
        return " ".join(call.credentials) + f" {{len(secret)}} {{call!r}}"
    if how == "return":
        return Done(f"it is {{secret}}, {{base64.b64encode(secret.encode()).decode()}}", missing=secret)
    if how == "fail":
        return Failed("no", f"refused {{secret}}", f"not {{secret}}")
    raise ValueError(f"bad {{secret}}")
'''


@pytest.fixture(params=["def", "async def"])
def leaking(request, tmp_path: Path, monkeypatch, make_desk):
    """A desk whose tool says its credential."""
    from bulkhead.tools.export import find_declarations, render_tools_file

    name = f"leaking_{len(request.param)}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(CODE.format(kind=request.param))
    (tmp_path / name / "tools.yaml").write_text(render_tools_file(name, find_declarations(name)))
    (tmp_path / "secret-acme").write_text(TOKEN)
    desk = make_desk(packs=(name,), tool_credentials={"desk": {"file": f"{tmp_path}/secret-{{tenant}}"}})
    desk.doer._registry.tools["leak"] = load_registry((), tool_rows((name,))).tools["leak"]
    return desk


@pytest.mark.parametrize("how", ["names", "return", "fail", "raise"])
@pytest.mark.slow
async def test_what_a_tool_says_of_its_credential_reaches_nobody(leaking, caplog, capfd, how: str) -> None:
    with caplog.at_level(logging.DEBUG):
        reply = await leaking.call("leak", {"how": how})
    kept = b" ".join(leaking.blobs.kept.values()).decode()
    told = reply.encode().decode() + kept + caplog.text + repr([getattr(one, "values", "") for one in caplog.records])
    printed = capfd.readouterr().err if leaking.doer._registry.tools["leak"].runs_in_own_process else ""
    for secret in (TOKEN, base64.b64encode(TOKEN.encode()).decode()):
        assert secret not in told and secret not in printed
    if how == "names":
        assert leaking.text(reply).startswith(f"desk {len(TOKEN)} Call(")
    if how == "return":
        assert leaking.text(reply) == "it is [credential desk], [credential desk]" and reply.sensitive == ("secret",)
    if how == "fail":
        assert reply.failure.message == "refused [credential desk]"


async def test_the_call_of_a_tenant_without_one_is_not_begun(leaking) -> None:
    reply = await leaking.call("leak", {"how": "names"}, tenant="other")
    assert (reply.outcome, reply.failure.code) == ("failed", "no_credential")
    assert "tenant other" in reply.failure.message and "secret-" not in reply.failure.message
