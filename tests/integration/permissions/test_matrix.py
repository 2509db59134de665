"""Every identity against every subject, on a real broker: what the policy says, no more and no less.

Twice: with the rendered permissions, and with permissions taken away, so that the account border is all that is left.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.integration.permissions import expected
from tests.integration.permissions.broker import ANSWER_S, Client, running

NEXT = b'{"batch": 1, "no_wait": true}'
GET = b'{"last_by_subj": "none.such"}'
GRACE_S = 0.4
"""For answers that must not come, after all those that must have come."""


def _body(subject: str) -> bytes:
    if "CONSUMER.MSG.NEXT" in subject:
        return NEXT
    return GET if "DIRECT.GET" in subject else b""


async def _outcomes(client: Client, subjects: list[str]) -> dict[str, str]:
    """`refused` by permission, `answered` by a stream, a service or the API, `silent` otherwise."""
    waiting = {subject: await client.ask(subject, _body(subject)) for subject in subjects}
    await client.settle()
    let_through = {s: f for s, f in waiting.items() if s.lower() not in client.denied and _expects_answer(s)}
    allowed = [
        f for s, f in let_through.items() if expected.may_publish(client.identity, s) and not s.startswith("rpc.")
    ]
    if allowed:
        await asyncio.wait(allowed, timeout=ANSWER_S)
    if let_through:
        await asyncio.wait(let_through.values(), timeout=GRACE_S)
    found = {}
    for subject, future in waiting.items():
        refused = subject.lower() in client.denied
        reached = future.done() and _reached(subject, future.result())
        found[subject] = "refused" if refused else "answered" if reached else "silent"
    return found


def _expects_answer(subject: str) -> bool:
    return not subject.startswith(("live.", "$JS.ACK.", "_", "control."))


def _reached(subject: str, message) -> bool:
    if (message.headers or {}).get("Status") == "503":
        return False
    # An account without streams has an API too, that has nothing but errors to say.
    return not (subject.startswith("$JS.API.") and b'"error"' in message.data)


WAYS = pytest.mark.parametrize("tokens", [False, True], ids=["nkeys", "tokens"])


@pytest.fixture(params=[False, True], ids=["nkeys", "tokens"])
async def served(request, tmp_path):
    """The broker, and somebody who serves wherever questions are asked, so that requests have an answer."""

    async def answer(message):
        await message.respond(b"{}")

    async with running(tmp_path, tokens=request.param) as broker, AsyncExitStack() as clients:
        for name in sorted({to for _, to in expected.ASKS}):
            client = await clients.enter_async_context(broker.client(name))
            await client.nc.subscribe(f"rpc.*.{name}.>", queue=name, cb=answer)
            await client.settle()
        yield broker


async def test_every_identity_may_send_what_the_policy_says_and_nothing_else(served):
    subjects = expected.publish_subjects()
    assert len({subject.lower() for subject in subjects}) == len(subjects)
    wrong, cells, allowed_cells = [], 0, 0
    for identity in served.identities:
        async with served.client(identity) as client:
            for subject, outcome in (await _outcomes(client, subjects)).items():
                cells += 1
                allowed = expected.may_publish(identity, subject)
                allowed_cells += allowed
                # What has no answer is known to be let through by not being refused.
                passed = outcome == "answered" if _expects_answer(subject) else outcome != "refused"
                stored = identity != "operator" or outcome != "silent" or not subject.startswith("mesh.")
                if passed != allowed or (stored and (outcome == "refused") == allowed):
                    wrong.append(f"{identity} {subject}: {outcome}, allowed: {allowed}")
    assert not wrong, "\n".join(wrong[:40])
    assert cells > 15_000 and allowed_cells > 200


@WAYS
async def test_the_account_border_alone_holds_without_permissions(tmp_path, tokens):
    """Permissions inside an account are no boundary: take them away, and nothing more may be reached."""

    def strip(accounts: str) -> str:
        mesh, *rest = re.split(
            r"(?=^(?:  (?:SVC_|OPERATOR|PUB_|SUB_|WRK_)\w*|authorization):? \{$)", accounts, flags=re.M
        )
        found = [re.sub(r"permissions: \{.*?\} \} \]", "} ]", one, count=1, flags=re.S) for one in rest]
        return mesh + "".join(found)

    wrong = []
    subjects = [one for one in expected.publish_subjects() if _expects_answer(one)]
    opened = ("publish", "subscribe")
    async with running(tmp_path, change=strip, tokens=tokens, open_lists=opened) as broker:
        for identity in broker.identities:
            async with broker.client(identity) as client:
                for subject, outcome in (await _outcomes(client, subjects)).items():
                    allowed = expected.may_publish(identity, subject)
                    reached = outcome == "answered" and not _answers_anybody(subject)
                    # Nobody serves requests here: an allowed one is silent too.
                    if reached != (allowed and not subject.startswith("rpc.")):
                        wrong.append(f"{identity} {subject}: {outcome}, allowed: {allowed}")
                assert client.denied <= {"$sys.req.user.auth"}
    assert not wrong, "\n".join(wrong[:40])


def _answers_anybody(subject: str) -> bool:
    """The broker's own statements about the asker itself."""
    return subject.startswith("$SYS.REQ.")


async def test_every_identity_may_hear_what_the_policy_says_and_nothing_else(served):
    wrong = []
    for identity in served.identities:
        async with served.client(identity) as client:
            for subject in expected.subscribe_subjects():
                await client.nc.subscribe(subject)
            await client.settle()
            for subject in expected.subscribe_subjects():
                allowed = expected.may_subscribe(identity, subject)
                if (subject.lower() not in client.denied) != allowed:
                    wrong.append(f"{identity} {subject}: should be {'allowed' if allowed else 'refused'}")
    assert not wrong, "\n".join(wrong)


@WAYS
async def test_only_the_listed_listener_hears_live_words(tmp_path, tokens):
    """With subscriptions wide open, the border still decides who hears."""

    def open_ears(accounts: str) -> str:
        return re.sub(r"subscribe: \{ allow: \[ .*? \] \}", 'subscribe: { allow: [ ">" ] }', accounts)

    heard: dict[str, set[str]] = {name: set() for name in expected.IDENTITIES}
    ears = {"change": open_ears, "tokens": tokens, "open_lists": ("subscribe",)}
    async with running(tmp_path, **ears) as broker, AsyncExitStack() as open_clients:
        clients = {}
        for identity in expected.IDENTITIES:
            clients[identity] = await open_clients.enter_async_context(broker.client(identity))
            await clients[identity].nc.subscribe(">", cb=partial(_note, heard[identity]))
            await clients[identity].settle()
        for speaker in ("model_gateway", "rag", "tool_executor"):
            await clients[speaker].nc.publish(f"live.{speaker}.demo.t1", b"word")
        assert "error" not in await clients["worker"].store("mesh.worker.rag.3.demo.t1.-")
        assert "error" not in await clients["budget"].store("$KV.CONTROL.task.t1")
        async with asyncio.timeout(30):
            while (
                not heard["doors"] & heard["gateway"] & {"live.model_gateway.demo.t1"}
                or not {"live.rag.demo.t1", "live.tool_executor.demo.t1"} <= heard["gateway"]
            ) or not all("control.live.task.t1" in heard[name] for name in (*expected.SERVICES, "operator")):
                await asyncio.sleep(0.01)
        for client in clients.values():
            await client.settle()
    # Who speaks hears its own account.
    assert {who for who, subjects in heard.items() if any(_plane(one, "live") for one in subjects)} == {
        "gateway",
        "doors",
        "model_gateway",
        "rag",
        "tool_executor",
    }
    assert {who for who, subjects in heard.items() if "live.rag.demo.t1" in subjects} == {"gateway", "rag"}
    assert {who for who, subjects in heard.items() if any(_plane(one, "mesh") for one in subjects)} == {"worker"}
    assert not any("control.live.task.t1" in heard[name] for name in expected.PUBLISHERS)


async def _note(found: set[str], message) -> None:
    found.add(message.subject)


def _plane(subject: str, plane: str) -> bool:
    return subject.partition(".")[0] == plane


async def test_the_provisioner_may_make_streams_and_erase_messages_and_neither_read_nor_drop_a_stream(served):
    async with served.client("provisioner") as client:
        asked = {
            f"$JS.API.STREAM.{what}.INBOX_WORKER": what in ("INFO", "UPDATE", "CREATE", "MSG.DELETE")
            for what in ("INFO", "UPDATE", "CREATE", "DELETE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE")
        }
        asked |= {"$JS.API.DIRECT.GET.INBOX_WORKER": False, "$JS.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0": False}
        asked |= {"mesh.planner.worker.3.demo.t1.-": False, "$JS.API.CONSUMER.DELETE.INBOX_WORKER.worker-0": False}
        for subject in asked:
            await client.ask(subject, b"{}")
        await client.settle()
        assert {subject: subject.lower() not in client.denied for subject in asked} == asked


async def test_nobody_comes_in_without_a_key_of_the_policy(served, tmp_path):
    import nats
    import nkeys

    stranger = nkeys.encode_seed(b"\x07" * 32, nkeys.PREFIX_BYTE_USER).decode()
    for options in ({}, {"nkeys_seed_str": stranger}, {"user": "worker", "password": "worker"}):
        with pytest.raises(Exception, match=r"(?i)authorization violation"):
            await nats.connect(served.url, allow_reconnect=False, connect_timeout=2, **options)
