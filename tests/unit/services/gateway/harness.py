"""A gateway over an in-process bus: what the shell, the signer, planner and rag would do is said by the test.

The bus here keeps streams by subject and satisfies the part of the port that a gateway uses.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import BusUnavailable, LiveMessage, PubAck, PublishRefused, StoredMessage, WrongLastSequence
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.decision import decide
from bulkhead.prompts.files import Prompts
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context, ServiceIdentity, make_context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.runtime.halts.operator import HaltRequest, change_of, judge_request, judge_reset
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.tools.catalog import tool_rows
from bulkhead_contracts import subjects
from bulkhead_contracts.approval import ApprovalGrant, SignatureReplied, SignatureRequested, SignedKind
from bulkhead_contracts.budget import (
    CallsReplied,
    CallsRequested,
    CoordinationReplied,
    CoordinationRequested,
    DeadLetterRequested,
    DeadLettersRequested,
    DismissalRequested,
    LimitsReplied,
    LimitsRequested,
    MeshReplied,
    MeshRequested,
    SpendReplied,
    SpendRequested,
    TargetLimit,
    TopUpReplied,
    TopUpRequested,
)
from bulkhead_contracts.control import Breaker, Halt, HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import GrantReplied, GrantRequested, VouchReplied, VouchRequested
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.retrieval import (
    DocumentChunksReplied,
    DocumentChunksRequested,
    DocumentSearchReplied,
    DocumentSearchRequested,
    DocumentsReplied,
    DocumentsRequested,
    PassageReplied,
    PassageRequested,
    StoredDocument,
)
from bulkhead_contracts.tool import CitedCallReplied, CitedCallRequested, WritesReplied, WritesRequested
from bulkhead_contracts.types import Body, Contract
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.store import LimitsRevision
from bulkhead_services.budget.limits import changes, tenant_limits
from bulkhead_services.budget.queries import spending, task_journal
from bulkhead_services.budget.queries.dead_letters import DeadLetterQuery
from bulkhead_services.gateway.app import GatewayService
from bulkhead_services.gateway.settings import Settings
from bulkhead_services.registry.effects import PromptRegistry
from bulkhead_services.tool_executor.boundary.policy_trials import PolicyFiles, PolicyTrials
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import POLICY_DIR

OPERATOR = "bk_operator_key_of_acme"
AUDITOR = "bk_auditor_key_of_acme"
FOREIGN = "bk_operator_key_of_other"
AGENT = "bk_agent_key_of_acme"
SUBMITTER = "bk_submitter_key_of_acme"
AUTH = {"Authorization": f"Bearer {OPERATOR}"}
DEADLINE_S = 10.0


def _matches(pattern: str, subject: str) -> bool:
    want, have = pattern.split("."), subject.split(".")
    for index, part in enumerate(want):
        if part == ">":
            return len(have) > index
        if index >= len(have) or part not in ("*", have[index]):
            return False
    return len(want) == len(have)


def _book() -> tenant_limits.TenantLimitsRegistry:
    """Budget's, over a broker of its own."""
    bus = MemoryBus(MemoryBroker.for_mesh(), "budget")
    publisher = Publisher("budget", bus, b"b" * 32, lambda: 1)
    return tenant_limits.TenantLimitsRegistry(bus, publisher, Ledger(), lambda: 1, lambda why: None)


def _trials() -> PolicyTrials:
    """Of an executor that has the tools of this house."""
    rows = tool_rows()
    policy = _shipped_policy()
    ruled = PolicyFiles(partial(decide, policy=policy), policy)
    return PolicyTrials(load_registry((), rows), rows, ruled, None, lambda tool: "wasm", lambda tool: None)


@cache
def _shipped_policy() -> CedarPolicy:
    return CedarPolicy.load_folder(POLICY_DIR, [row.spec for row in tool_rows()], POLICY_DIR)


class Ledger(MemoryStore):
    """One that is told and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(lease_ms=1)

    async def record_limits_read(self, revision: LimitsRevision, now_unix_ms: int) -> bool:
        """Always up to date."""
        return True


class Subscription:
    """Unbounded; nothing is lost unless the test loses it."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.queue: asyncio.Queue[LiveMessage] = asyncio.Queue()
        self.dropped = 0

    async def __aiter__(self) -> AsyncIterator[LiveMessage]:
        while True:
            yield await self.queue.get()

    async def close(self) -> None:
        """Nothing is held."""


class InProcessBus:
    """Streams INBOX_* and BLOBS, live subjects, and one answering signer. gaps: so many messages a purge took."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, StoredMessage]] = []
        self.ids: dict[tuple[str, str], int] = {}
        self.subscriptions: list[Subscription] = []
        self.down = False
        self.signer_down = False
        self.refusal: GrantReplied | None = None
        self.asked: list[GrantRequested] = []
        self.vouched: list[VouchRequested] = []
        self.reads = 0
        self.gaps = 0
        self.rag_down = False
        self.page = changes.TenantLimits()
        self.documents: list[StoredDocument] = []
        self.news = asyncio.Event()
        self.halts: dict[str, Halt] = {}
        self.book: tenant_limits.TenantLimitsRegistry | None = None
        self.writes = WritesReplied()
        self.calls, self.asked_calls = CallsReplied(), list[CallsRequested]()
        self.looked: list[str] = []
        self.call = CitedCallReplied()
        self.journal: dict[tuple[str, str], list[StoredMessage]] = {}
        self.journal_reads: list[int] = []
        self.passage = PassageReplied()
        self.passages: list[tuple[str, PassageRequested]] = []
        self.registry: PromptRegistry | None = None
        self.signed: SignatureRequested | None = None
        self.chunks = DocumentChunksReplied()
        self.searched = DocumentSearchReplied()
        self.searches: list[tuple[str, str, DocumentSearchRequested]] = []
        """Of each search its tenant, its grant and the request."""
        book = DeadLetterQuery(SimpleNamespace(bus=self, message_key=b"b" * 32))  # type: ignore[arg-type]
        self._letters: dict[str, tuple[type[Body], Callable[[ReceivedMessage], Awaitable[Body]]]] = {
            DeadLettersRequested.ce_type(): (DeadLettersRequested, book.list_letters),
            DeadLetterRequested.ce_type(): (DeadLetterRequested, book.show_letter),
            DismissalRequested.ce_type(): (DismissalRequested, book.dismiss_letter),
        }

    def _stream(self, subject: str) -> str:
        parts = subject.split(".")
        if parts[0] == "dead":
            return subjects.DEAD_LETTERS_STREAM
        return subjects.BLOBS_STREAM if parts[0] == "blob" else subjects.inbox_stream(parts[2])

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        message_id: str,
        *,
        expect_last_on_subject: int | None = None,
        expect_none_on: str = "",
    ) -> PubAck:
        if self.down:
            raise BusUnavailable("down")
        stream = self._stream(subject)
        here = [stored for name, stored in self.stored if name == stream and stored.subject == subject]
        # In the broker's order: what comes again is a duplicate, wherever the subject stands by now.
        if (stream, message_id) in self.ids:
            return PubAck(stream, self.ids[stream, message_id], duplicate=True)
        if expect_last_on_subject is not None and (here[-1].sequence if here else 0) != expect_last_on_subject:
            raise WrongLastSequence(subject)
        if stream == subjects.BLOBS_STREAM and here:
            raise PublishRefused("one message per subject")
        sequence = sum(name == stream for name, _ in self.stored) + self.gaps + 1
        self.stored.append((stream, StoredMessage(subject, dict(headers), body, sequence, 1_000_000 + sequence)))
        self.ids[stream, message_id] = sequence
        self.news.set()
        return PubAck(stream, sequence)

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        self.reads += 1
        if self.down:
            raise BusUnavailable("down")
        await asyncio.sleep(0)
        found = [
            stored
            for name, stored in self.stored
            if name == stream and stored.sequence > after and _matches(subject, stored.subject)
        ]
        return found[:limit]

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        found = await self.read(stream, subject, limit=10**9)
        return found[-1] if found else None

    async def publish_live(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        for subscription in self.subscriptions:
            if _matches(subscription.pattern, subject):
                subscription.queue.put_nowait(LiveMessage(subject, dict(headers or {}), body))

    async def subscribe_live(self, subject: str, max_pending: int = 10_000) -> Subscription:
        self.subscriptions.append(Subscription(subject))
        return self.subscriptions[-1]

    def _switched(self, ask: HaltRequested, request: str) -> HaltReplied:
        """As budget, for one thing after the other."""
        tenant = ask.requester.tenant
        key = subjects.halt_key(ask.scope, tenant, ask.called)
        wish = HaltRequest(
            ask.scope,
            tenant,
            ask.called,
            ask.active,
            ask.reason,
            f"{tenant}/{ask.requester.person}",
            1,
            change_of(request, f"{ask.active} {ask.reason}"),
        )
        found = judge_request(wish, self.halts.get(key))
        if isinstance(found, Failure):
            return HaltReplied(failure=found)
        self.halts[key] = found
        return HaltReplied(halt=found)

    async def _reset(self, ask: ResetRequested) -> ResetReplied:
        """As budget, over the entries that are stored here."""
        tenant = ask.requester.tenant
        found = await self.last(subjects.CONTROL_STREAM, subjects.breaker_key(ask.scope, tenant, ask.called))
        stands = Breaker.model_validate_json(found.body) if found is not None else None
        failure = judge_reset(stands, f"{ask.scope}:{ask.called}", ask.requester.person)
        closed = stands and stands.model_copy(update={"phase": "closed", "by": f"{tenant}/{ask.requester.person}"})
        return ResetReplied(failure=failure) if failure else ResetReplied(breaker=closed)

    def _limited(self, ask: LimitsRequested) -> LimitsReplied:
        """As budget answers: its own judgement, over limits that are kept here."""
        if (failure := changes.check_requester(ask, ask.requester.tenant)) is not None:
            return LimitsReplied(failure=failure)
        if ask.target is not None:
            made = changes.build_limits_change(self.page, ask, ask.requester.tenant, "c", 1)
            if isinstance(made, Failure):
                return LimitsReplied(failure=made)
            self.page = changes.TenantLimits(made.revision, 0, "c", {one.target: one.limit for one in made.limits})
        rows = tuple(TargetLimit(target=target, limit=limit) for target, limit in sorted(self.page.limits.items()))
        return LimitsReplied(revision=self.page.revision, limits=rows)

    async def _topped_up(self, ask: TopUpRequested, name: str) -> TopUpReplied:
        """As budget, which keeps a book."""
        head = Envelope(id=name, type=ask.ce_type(), source="gateway", time_unix_ms=1)
        self.book = self.book or _book()  # Not sooner: its broker's clock is the loop's.
        return await self.book.answer_top_up(
            ReceivedMessage(head, ask, ask.requester.tenant, ask.task, "gateway", 0, 1, 1)
        )

    async def _summed(self, ask: SpendRequested) -> SpendReplied:
        """As budget answers, of a tenant that has spent nothing."""
        failure = spending.check_requester(ask, ask.requester.tenant)
        return (
            SpendReplied(failure=failure)
            if failure
            else await spending.build_report(spending.SpendTally(), ask.by, 1, 2, ask.top)
        )

    def _doubtful(self, task: str) -> WritesReplied:
        """As budget, which looks through the journal."""
        self.looked.append(task)
        return self.writes

    def _told(self, ask: TaskMessagesRequested, tenant: str, task: str) -> TaskMessagesReplied:
        """As budget, which reads the journal; pages are small."""
        self.journal_reads.append(ask.after)
        found = [one for one in self.journal.get((tenant, task), []) if one.sequence > ask.after]
        return task_journal.messages_reply(found[:64], keep_grants=ask.claims)

    async def _of_letters(self, subject: str, body: bytes, headers: dict[str, str]) -> Body:
        """Budget's own answer, over the letters that are stored here."""
        kind, answer = self._letters[headers["ce-type"]]
        head, at = Envelope(id=headers["ce-id"], type=headers["ce-type"], source="gateway", time_unix_ms=1), subject
        asked = kind.model_validate_json(body)
        return await answer(ReceivedMessage(head, asked, at.split(".")[4], at.split(".")[5], "gateway", 0, 1, 1))

    async def _ruled(self, subject: str, body: bytes, headers: dict[str, str]) -> Body:
        """The executor's own answer, by the policies that ship."""
        rpc = _trials().rpc
        [kind] = [kind for kind in rpc if kind.ce_type() == headers["ce-type"]]
        head, at = Envelope(id=headers["ce-id"], type=headers["ce-type"], source="gateway", time_unix_ms=1), subject
        asked = kind.model_validate_json(body)
        return await rpc[kind](ReceivedMessage(head, asked, at.split(".")[4], at.split(".")[5], "gateway", 0, 1, 1))

    async def _registered(self, subject: str, body: bytes, headers: dict[str, str]) -> Body:
        """The registry's own answer, by the word that the signer was last asked for."""
        if self.registry is None:  # Not sooner: its broker's clock is the loop's.
            parts = {"bus": MemoryBus(MemoryBroker.for_mesh(), "registry"), "verifier": self, "clock": lambda: 1}
            context = SimpleNamespace(**parts, message_key=b"r" * 32)
            self.registry = PromptRegistry(context, Prompts(), 600_000, TenantQuotas(None), 200)  # type: ignore[arg-type]
        [kind] = [kind for kind in self.registry.rpc if kind.ce_type() == headers["ce-type"]]
        head, at = Envelope(id=headers["ce-id"], type=headers["ce-type"], source="gateway", time_unix_ms=1), subject
        asked = kind.model_validate_json(body)
        message = ReceivedMessage(head, asked, at.split(".")[4], at.split(".")[5], "gateway", 0, 1, 1)
        return await self.registry.rpc[kind](message)

    def verify_approval(self, token: str, *, tenant: str, task: str, kind: SignedKind) -> ApprovalGrant:
        """The word, as the signer would have signed it."""
        assert self.signed is not None
        return ApprovalGrant(
            tenant=tenant,
            task=task,
            person=self.signed.requester.person,
            role=self.signed.requester.role,
            via=self.signed.requester.via,
            decided_unix_ms=1,
            **self.signed.model_dump(include={"kind", "approval_id", "arguments_sha256", "decision", "reason"}),
        )

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0
    ) -> LiveMessage:
        if self.signer_down or self.down:
            raise BusUnavailable("nobody answers")
        if subject.startswith("rpc.gateway.budget."):
            if (headers or {}).get("ce-type") == LimitsRequested.ce_type():
                kept = self._limited(LimitsRequested.model_validate_json(body))
                return LiveMessage("reply", {"ce-type": kept.ce_type()}, kept.encode())
            if (headers or {}).get("ce-type") == TopUpRequested.ce_type():
                given = await self._topped_up(TopUpRequested.model_validate_json(body), dict(headers or {})["ce-id"])
                return LiveMessage("reply", {"ce-type": given.ce_type()}, given.encode())
            if (headers or {}).get("ce-type") == SpendRequested.ce_type():
                told = await self._summed(SpendRequested.model_validate_json(body))
                return LiveMessage("reply", {"ce-type": told.ce_type()}, told.encode())
            if (headers or {}).get("ce-type") == ResetRequested.ce_type():
                reset = await self._reset(ResetRequested.model_validate_json(body))
                return LiveMessage("reply", {"ce-type": reset.ce_type()}, reset.encode())
            if (headers or {}).get("ce-type") == CitedCallRequested.ce_type():
                return LiveMessage("reply", {"ce-type": self.call.ce_type()}, self.call.encode())
            if (headers or {}).get("ce-type") == CoordinationRequested.ce_type():
                return LiveMessage("reply", {"ce-type": CoordinationReplied.ce_type()}, CoordinationReplied().encode())
            if (headers or {}).get("ce-type") == CallsRequested.ce_type():
                self.asked_calls.append(CallsRequested.model_validate_json(body))
                return LiveMessage("reply", {"ce-type": self.calls.ce_type()}, self.calls.encode())
            if (headers or {}).get("ce-type") == MeshRequested.ce_type():
                return LiveMessage("reply", {"ce-type": MeshReplied.ce_type()}, MeshReplied().encode())
            if (headers or {}).get("ce-type") == TaskMessagesRequested.ce_type():
                batch = self._told(TaskMessagesRequested.model_validate_json(body), *subject.split(".")[-2:])
                return LiveMessage("reply", {"ce-type": batch.ce_type()}, batch.encode())
            if (headers or {}).get("ce-type") == WritesRequested.ce_type():
                found = self._doubtful(subject.rpartition(".")[2])
                return LiveMessage("reply", {"ce-type": found.ce_type()}, found.encode())
            if (headers or {}).get("ce-type") in self._letters:
                letters = await self._of_letters(subject, body, dict(headers or {}))
                return LiveMessage("reply", {"ce-type": letters.ce_type()}, letters.encode())
            said = self._switched(HaltRequested.model_validate_json(body), dict(headers or {}).get("ce-id", ""))
            return LiveMessage("reply", {"ce-type": said.ce_type()}, said.encode())
        if subject.startswith("rpc.gateway.rag."):
            if self.rag_down:
                raise BusUnavailable("nobody answers")
            if (headers or {}).get("ce-type") == PassageRequested.ce_type():
                self.passages.append((subject.split(".")[4], PassageRequested.model_validate_json(body)))
                return LiveMessage("reply", {"ce-type": self.passage.ce_type()}, self.passage.encode())
            if (headers or {}).get("ce-type") == DocumentChunksRequested.ce_type():
                return LiveMessage("reply", {"ce-type": self.chunks.ce_type()}, self.chunks.encode())
            if (headers or {}).get("ce-type") == DocumentSearchRequested.ce_type():
                search = DocumentSearchRequested.model_validate_json(body)
                self.searches.append((subject.split(".")[4], (headers or {}).get("bulkhead-grant", ""), search))
                return LiveMessage("reply", {"ce-type": self.searched.ce_type()}, self.searched.encode())
            asked = DocumentsRequested.model_validate_json(body)
            left = [one for one in self.documents if one.name > asked.after]
            page = DocumentsReplied(documents=tuple(left[: asked.limit]), more=len(left) > asked.limit)
            return LiveMessage("reply", {"ce-type": page.ce_type()}, page.encode())
        if subject.startswith("rpc.gateway.tool_executor."):
            ruled = await self._ruled(subject, body, dict(headers or {}))
            return LiveMessage("reply", {"ce-type": ruled.ce_type()}, ruled.encode())
        if subject.startswith("rpc.gateway.registry."):
            registered = await self._registered(subject, body, dict(headers or {}))
            return LiveMessage("reply", {"ce-type": registered.ce_type()}, registered.encode())
        assert subject.startswith("rpc.gateway.signer.")
        if (headers or {}).get("ce-type") == VouchRequested.ce_type():
            self.vouched.append(VouchRequested.model_validate_json(body))
            vouched = VouchReplied(voucher="signed.voucher")
            return LiveMessage("reply", {"ce-type": vouched.ce_type()}, vouched.encode())
        if (headers or {}).get("ce-type") == SignatureRequested.ce_type():
            self.signed = SignatureRequested.model_validate_json(body)
            return LiveMessage(
                "reply", {"ce-type": SignatureReplied.ce_type()}, SignatureReplied(token="signed.word").encode()
            )
        ask = GrantRequested.model_validate_json(body)
        self.asked.append(ask)
        reply = self.refusal or GrantReplied(granted=True, token="signed.task.grant", limits=ask.limits)
        return LiveMessage("reply", {"ce-type": reply.ce_type()}, reply.encode())

    async def is_ready(self) -> bool:
        return not self.down


@dataclass
class Mesh:
    """One bus, its gateways, and the voices of the other services."""

    bus: InProcessBus
    identity: ServiceIdentity
    folder: Path
    gateways: list[GatewayService] = field(default_factory=list)
    handled: int = 0

    def settings(self, **changes: object) -> Settings:
        rows = [
            _row(OPERATOR, "acme", "ada", "operator"),
            _row(AUDITOR, "acme", "aud", "auditor"),
            _row(FOREIGN, "other", "eve", "operator"),
            _row(SUBMITTER, "acme", "sue", "submitter"),
            _row(AGENT, "acme", "robot", "submitter") | {"agent": True},
        ]
        keys = self.folder / "keys.json"
        keys.write_text(json.dumps({"keys": rows}))
        found: dict[str, Any] = {
            "api_keys_file": keys,
            "http_port": 0,
            "ingest_wait_s": 0.05,
            "reread_s": 30.0,
            "publishers": {"pub_shop": {"tenant": "acme", "person": "shop", "role": "submitter"}},
        }
        return Settings(**{**found, **changes})

    def context(self, instance: str) -> Context:
        return make_context("gateway", instance, self.bus, self.identity)  # type: ignore[arg-type]

    def gateway(self, **changes: object) -> GatewayService:
        self.gateways.append(GatewayService(self.context(str(len(self.gateways))), self.settings(**changes)))
        return self.gateways[-1]

    async def say(self, sender: str, body: Body, task: str, tenant: str = "acme", index: int | str = 0) -> PubAck:
        """`sender` says it to the gateway; handled at once."""
        publisher = Publisher(sender, self.bus, sender.encode(), lambda: 1_000_000)  # type: ignore[arg-type]
        found = await publisher.send("gateway", body, tenant=tenant, task=task, index=f"{task}/{body.TYPE}/{index}")
        await self.pump()
        return found

    async def pump(self, at: int = -1) -> None:
        """Hand what is new to one gateway, as the durable does; a HandBack leaves the rest for later."""
        while True:
            new = [s for name, s in self.bus.stored if name == "INBOX_GATEWAY" and s.sequence > self.handled]
            if not new:
                return
            for stored in new:
                message = inbound.read_message(stored, "gateway")
                try:
                    await self.gateways[at].handle_message(message)
                except HandBack:
                    return
                self.handled = stored.sequence

    async def live(self, task: str, delta: Contract, tenant: str = "acme", sender: str = "model_gateway") -> None:
        """The model gateway streams, or another doer tells what it does."""
        await self.bus.publish_live(f"live.{sender}.{tenant}.{task}", delta.model_dump_json().encode())

    async def blob(self, author: str, text: str, tenant: str = "acme") -> ContentRef:
        """Store content as another service."""
        from bulkhead.blobs import Blobs

        return await Blobs(self.bus, author).put(tenant, text)  # type: ignore[arg-type]

    def sent(self, to: str) -> list[StoredMessage]:
        """What lies in another service's inbox."""
        return [stored for name, stored in self.bus.stored if name == subjects.inbox_stream(to)]


def _row(key: str, tenant: str, person: str, role: str) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "person": person, "role": role}


def make_mesh(folder: Path) -> Mesh:
    """A mesh with nothing in it."""
    seed = new_signing_seed()
    return Mesh(InProcessBus(), ServiceIdentity("seed-of-gateway", seed, {"gateway": public_of(seed)}), folder)


@asynccontextmanager
async def running(mesh: Mesh, **changes: object) -> AsyncIterator[GatewayService]:
    """A gateway that listens on a free port."""
    gateway = mesh.gateway(**changes)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a fact, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


__all__ = ["AUDITOR", "AUTH", "FOREIGN", "OPERATOR", "Mesh", "make_mesh", "running", "until"]
