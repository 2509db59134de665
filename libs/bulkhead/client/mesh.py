"""Tasks and documents over the gateway's HTTP API.

In: objectives, documents. Out: receipts, event streams that survive disconnects, results. Every method raises Unfit (a
ValueError) for what cannot be asked for, before anything is sent; Refused when the mesh says no; Unreachable when
nobody answers, or something else than a mesh; Closed after `close`.
"""

import asyncio
import mimetypes
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from bulkhead.client import request_checks
from bulkhead.client.errors import Refused
from bulkhead.client.session import Session
from bulkhead.client.task import UNENDED, Task
from bulkhead.client.transport import TIMEOUT_S, Transport
from bulkhead.gateway_api.approvals import AnyState, ApprovalDocument, ApprovalListQuery, ApprovalPage
from bulkhead.gateway_api.documents import (
    DocumentChunkPage,
    DocumentChunkQuery,
    DocumentListQuery,
    DocumentSearchPage,
    DocumentSearchQuery,
)
from bulkhead.gateway_api.evaluations import EvaluationListQuery, EvaluationQuery
from bulkhead.gateway_api.operators import HaltListQuery, SpendingQuery, SpendPage
from bulkhead.gateway_api.prompts import LabelQuery, PromptListQuery, PromptQuery
from bulkhead.gateway_api.query import Query, R
from bulkhead.gateway_api.sessions import SessionErasureReceipt, SessionListQuery, SessionSummaryRow
from bulkhead.gateway_api.tasks import TaskListQuery
from bulkhead.gateway_api.tools import PolicyTrialDocument, ToolListQuery, ToolPage
from bulkhead.gateway_api.workflows import WorkflowListQuery, WorkflowQuery
from bulkhead.gateway_api.writes import WRITE_STATES, WriteListQuery
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import SpendKey
from bulkhead_contracts.control import Halt

if TYPE_CHECKING:
    from bulkhead.client.on_bus import BusPublisher

__all__ = ["UNENDED", "Mesh"]

DEFAULT_URL = "http://127.0.0.1:8080"
PAGE = 100


class Mesh:
    """A connection to a gateway: `async with Mesh(url=…, api_key=…) as mesh`. `api_key` may be an API key or a JWT."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = request_checks.check_url(url)
        timeout_s = request_checks.check_seconds("timeout_s", timeout_s)
        headers = {"Authorization": f"Bearer {api_key}"} if request_checks.check_api_key(api_key) else {}
        self._transport = Transport(self.url, headers, timeout_s, transport)

    @staticmethod
    def on_bus(
        nats_url: str, identity_file: Path | str, publisher: str = "demo", tenant: str = "demo"
    ) -> "BusPublisher":
        """A publisher with an identity of its own: `async with Mesh.on_bus(…) as bus: await bus.publish("…")`."""
        from bulkhead.client.on_bus import BusPublisher

        return BusPublisher(nats_url, Path(identity_file), publisher, tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def submit(
        self,
        objective: str,
        *,
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        tools: tuple[str, ...] = (),
        check: bool = True,
        plan: Mapping[str, Any] | None = None,
        fork: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        feature: str = "",
        workflow: str = "",
        delivery: str = "",
        route: str = "",
        prompt_release: str = "",
        replan: str = "",
        approve_plan: bool = False,
        constraints: tuple[str, ...] = (),
        conversation: str = "",
        written_by: str = "",
    ) -> Task:
        """Hand an objective in; returns when it is stored durably.

        fork: {"task": an ended task, "steps": of its accepted ones, those that stand unchanged in `plan`}: their
        results are taken over. tools, check, feature and the following: as `bulkhead_contracts.task_options` says.
        Without a key of yours a random one is used, and repeats after lost answers are never a second task.
        """
        limits = request_checks.check_limits(limit_usd, limit_tokens, deadline_s)
        body: dict[str, Any] = {
            "objective": request_checks.check_text("objective", objective, bounds.MAX_OBJECTIVE_CHARS)
        }
        body |= {"limits": limits} if limits else {}
        body |= request_checks.check_options(
            tools=tools,
            check=check,
            feature=feature,
            workflow=workflow,
            delivery=delivery,
            route=route,
            prompt_release=prompt_release,
            replan=replan,
            approve_plan=approve_plan,
            constraints=constraints,
            conversation=conversation,
            written_by=written_by,
        )
        body |= {"plan": request_checks.check_mapping("plan", plan)} if plan is not None else {}
        body |= {"fork": request_checks.check_mapping("fork", fork)} if fork is not None else {}
        answer = await self._transport.send("POST", "/v1/tasks", idempotency_key, json=body)
        return Task(self._transport, self._transport.require_field(answer, "task_id"))

    def task(self, task_id: str) -> Task:
        """A task by its id; nothing is asked yet. Raises Unfit."""
        return Task(self._transport, request_checks.check_task_id(task_id))

    def session(
        self,
        session_id: str = "",
        *,
        title: str = "",
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        participants: tuple[str, ...] = (),
        window_turns: int = bounds.DEFAULT_WINDOW_TURNS,
        summary_limit_usd: float | None = None,
        **options: Any,
    ) -> Session:
        """A conversation that remembers: `session = mesh.session()`, then `await session.ask("...")`.

        It is opened with its first turn; with a session_id it goes on, and with the same `conversation` (a name of
        yours, or the id of a task of yours) where there is one. Limits and options (tools, check, feature and the rest
        of `submit`'s) are those of each turn. participants: other people who may take part. window_turns: so
        many of the last turns are never summarised. summary_limit_usd: what all summaries may cost. Raises Unfit.
        """
        limits = request_checks.check_limits(limit_usd, limit_tokens, deadline_s)
        body: dict[str, Any] = {"window_turns": window_turns} | ({"limits": limits} if limits else {})
        body |= {"title": title} if title else {}
        body |= {"participants": list(participants)} if participants else {}
        if summary_limit_usd is not None:
            body |= {"summary_cost_usd_micros": round(summary_limit_usd * request_checks.USD)}
        body |= request_checks.check_options(**options)
        return Session(self._transport, session_id and request_checks.check_task_id(session_id, "session"), body)

    async def sessions(self) -> tuple[SessionSummaryRow, ...]:
        """The caller's sessions, the newest first, at most 20. Raises Refused, Unreachable."""
        return (await self.read(SessionListQuery())).sessions

    async def erase_sessions(self, person: str) -> SessionErasureReceipt:
        """Erase all sessions that a person opened: yours, or as an operator anybody's. Raises Refused, Unreachable,
        Unfit."""
        name = request_checks.check_text("person", person, bounds.MAX_NAME_CHARS)
        path, erased = f"/v1/sessions?person={quote(name, safe='')}", 0
        while True:
            answer = await self._transport.send("DELETE", path)
            receipt = SessionErasureReceipt.model_validate(answer)
            erased += receipt.erased
            if not receipt.remaining:
                return receipt.model_copy(update={"erased": erased})

    async def tasks(self, limit: int = 20, *, opened_by: str = "", answered: str = "") -> list[dict[str, Any]]:
        """The tenant's newest tasks. opened_by: `doors` for the runs of agents outside alone. answered: those that are
        answered so, of `yes`, `partly`, `no` and `unknown`, with commas between."""
        rows: list[dict[str, Any]] = []
        cursor = ""
        request_checks.check_integer("limit", limit, 1, 1_000_000)
        while len(rows) < limit:
            filters: dict[str, object] = {"opened_by": opened_by, "answered": answered, "cursor": cursor}
            filters |= {"limit": min(PAGE, limit - len(rows))}
            page = await self.read_json(request_checks.check_query(TaskListQuery, filters))
            rows += self._transport.require_field(page, "tasks")
            cursor = page.get("next") or ""
            if not cursor:
                break
        return rows

    async def add_document(self, content: Path | str | bytes, name: str = "", media_type: str = "") -> dict[str, Any]:
        """Add a document: a path, or bytes with a name. Returns the receipt once the store has answered.

        A document of the same name is replaced: then the receipt's `replaced_sha256` is the digest of what stood there.
        Raises Refused (`rejected` among its reasons), Unreachable, OSError for a file that cannot be read.
        """
        data, name = request_checks.check_document(content, name)
        if isinstance(data, Path):
            name = name or data.name
            data = await asyncio.to_thread(data.read_bytes)
        guessed = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        receipt = await self._transport.send(
            "POST",
            "/v1/documents",
            str(uuid.uuid4()),
            params={"name": name},
            content=data,
            headers={"Content-Type": guessed},
        )
        while receipt.get("outcome") == "pending":
            await asyncio.sleep(0.5)
            try:
                receipt = await self.get(receipt["status_url"])
            except Refused as error:
                if error.status != 404:
                    raise  # 404 means: not finished yet.
        return receipt

    async def documents(self) -> list[dict[str, Any]]:
        """The tenant's documents, by name: name, sha256, media_type, chunks, versions, ingested_unix_ms."""
        rows: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = await self.read_json(DocumentListQuery(limit=PAGE, after=after))
            rows += self._transport.require_field(page, "documents")
            after = page.get("next")
        return rows

    async def document_chunks(self, name: str, *, start: int = 0, limit: int = 20) -> DocumentChunkPage:
        """A document, the pages that could not be read, and a page of its chunks from a character of its text on.

        `next` is the `start` of the next page. Raises Refused (`not_found` for an unknown name), Unreachable.
        """
        request_checks.check_text("name", name, request_checks.MAX_FILE_NAME_CHARS)
        query = request_checks.check_query(DocumentChunkQuery, {"name": name, "start": start, "limit": limit})
        return DocumentChunkPage.model_validate(await self.read_json(query))

    async def search_documents(self, query: str, *, k: int = 8) -> DocumentSearchPage:
        """Chunks that a task of this caller would find for a question, the best first. Raises Refused, Unreachable."""
        request_checks.check_text("query", query, bounds.MAX_QUERY_CHARS)
        search = request_checks.check_query(DocumentSearchQuery, {"query": query, "k": k})
        return DocumentSearchPage.model_validate(await self.read_json(search))

    async def delete_document(self, name: str, reason: str = "") -> dict[str, Any]:
        """Erase a document and every version of it; returns {name, outcome, versions} once the store has answered. The
        reason is kept with the request.

        Raises Refused (`not_found` when there is none of this name), Unreachable.
        """
        key = str(uuid.uuid4())
        request_checks.check_text("name", name, request_checks.MAX_FILE_NAME_CHARS)
        params = {"name": name} | ({"reason": reason} if reason else {})
        while True:
            receipt = await self._transport.send("DELETE", "/v1/documents", key, params=params)
            if self._transport.require_field(receipt, "outcome") != "pending":
                return receipt
            await asyncio.sleep(0.5)

    async def halt(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Hold something of the tenant back until `resume`: a task, tenant, agent, tool, model or feature. Raises
        Refused, Unreachable."""
        request_checks.check_choice("scope", scope, request_checks.HALTS)
        return await self._post_switch("/v1/halts", scope, name, reason, idempotency_key)

    async def resume(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Let it go on. Raises Refused, Unreachable."""
        request_checks.check_choice("scope", scope, request_checks.HALTS)
        return await self._post_switch("/v1/resumes", scope, name, reason, idempotency_key)

    async def reset_breaker(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Close a breaker of the tenant's: of a tool, model or agent. Raises Refused (`tripped_it` when it was opened
        by calls of one's own tasks), Unreachable."""
        request_checks.check_choice("scope", scope, request_checks.BREAKERS)
        return await self._post_switch("/v1/resets", scope, name, reason, idempotency_key)

    async def halts(self) -> tuple[Halt, ...]:
        """Halts that people have set and nobody has lifted, the oldest first. Raises Refused, Unreachable."""
        return (await self.read(HaltListQuery())).halts

    async def spend(self, by: SpendKey = "agent", since: str = "24h", *, limit: int = 20) -> SpendPage:
        """Cost of the tenant's calls in micro US dollars, by name, the highest first; for operators and auditors.

        by: `agent`, `model`, `tool`, `feature`, `task`, `person` or another key of sums. since: age of the oldest call,
        such as `90s`, `20m`, `1h` or `7d`, at most 31d. limit: rows; `rest` sums the others. Raises Refused,
        Unreachable.
        """
        filters = {"by": by, "since": since, "limit": limit}
        return await self.read(request_checks.check_query(SpendingQuery, filters))

    async def approvals(self, state: AnyState = "waiting", task: str = "") -> ApprovalPage:
        """Calls that wait for a person's word, or did, the newest first. task: only those of this one.

        Raises Refused, Unreachable.
        """
        filters = {"state": state, "task": task}
        return await self.read(request_checks.check_query(ApprovalListQuery, filters))

    async def grant(self, approval: ApprovalDocument, reason: str) -> ApprovalDocument:
        """Let a call be made exactly as this approval shows it. Raises Refused as `decide` does, Unreachable."""
        return await self._decide_shown(approval, "granted", reason)

    async def deny(self, approval: ApprovalDocument, reason: str) -> ApprovalDocument:
        """Have a call refused; its agent is told the reason. Raises Refused as `decide` does, Unreachable."""
        return await self._decide_shown(approval, "denied", reason)

    async def _decide_shown(self, approval: ApprovalDocument, decision: str, reason: str) -> ApprovalDocument:
        digest = approval.request.arguments_sha256
        return ApprovalDocument.model_validate(await self.decide(approval.approval_id, digest, decision, reason))

    async def decide(self, approval: str, arguments_sha256: str, decision: str, reason: str) -> dict[str, Any]:
        """Let a call be made (`granted`), or not (`denied`). arguments_sha256: of the call as it was read.

        Raises Refused (`other_arguments`, `four_eyes`, `not_waiting`), Unreachable.
        """
        request_checks.check_choice("decision", decision, ("granted", "denied"))
        body = {
            "decision": decision,
            "arguments_sha256": arguments_sha256,
            "reason": request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS),
        }
        path = f"/v1/approvals/{request_checks.check_text('approval', approval, 64)}"
        return await self._transport.send("POST", path, json=body)

    async def tools(self) -> ToolPage:
        """Tools that the tenant's tasks may be granted, with what policy says of a sample call of each. Raises
        Refused, Unreachable."""
        return await self.read(ToolListQuery())

    async def try_policy(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        sources: Sequence[Mapping[str, str]] = (),
        person: str = "",
        role: str = "submitter",
        feature: str = "",
    ) -> PolicyTrialDocument:
        """Ruling on a call that is not made: permitted, asked about or forbidden, and by which rule. For operators
        and auditors.

        sources: texts in which the values of the arguments are looked for, each with `source` (user, operator,
        retrieved, tool, model), `content` and, of a document or tool, `name`; a value that stands in none is the
        model's. person: for whom; you where it is absent. Raises Refused (`unknown_tool`, `bad_arguments`),
        Unreachable.
        """
        body = {
            "tool": request_checks.check_text("tool", tool, bounds.MAX_NAME_CHARS),
            "arguments": request_checks.check_mapping("arguments", arguments),
            "sources": [dict(source) for source in sources],
            "person": person,
            "role": role,
            "feature": feature,
        }
        answer = await self._transport.send("POST", "/v1/policy-trials", json=body)
        return PolicyTrialDocument.model_validate(answer)

    async def writes(self, state: str = "uncertain", task: str = "") -> dict[str, Any]:
        """Writes of which nobody knows, or knew, whether they were done: `writes`, the newest first. Raises Refused,
        Unreachable."""
        request_checks.check_choice("state", state, WRITE_STATES)
        return await self.read_json(request_checks.check_query(WriteListQuery, {"state": state, "task": task}))

    async def resolve_write(self, write: str, happened: bool, reason: str, result: str = "") -> dict[str, Any]:
        """Say of an uncertain write that it happened, or that it did not and may be made. result: what its asker is
        told as its result. Raises Refused (`already_resolved`), Unreachable."""
        body = {"happened": happened, "reason": request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS)}
        if result:
            body["result"] = request_checks.check_text("result", result, bounds.MAX_REASON_CHARS)
        path = f"/v1/writes/{request_checks.check_text('write', write, 64)}"
        return await self._transport.send("POST", path, json=body)

    async def prompts(self) -> dict[str, Any]:
        """Prompts of the mesh: `prompts`, each with its newest version and those that labels use. Raises Refused,
        Unreachable."""
        return await self.read_json(PromptListQuery())

    async def prompt(self, prompt: str) -> dict[str, Any]:
        """A prompt with its shipped text and its newest `versions`. Raises Refused, Unreachable."""
        return await self.read_json(request_checks.check_query(PromptQuery, {"prompt": prompt}))

    async def releases(self, label: str) -> dict[str, Any]:
        """Releases of a label: `releases`, the newest first. Raises Refused, Unreachable."""
        return await self.read_json(request_checks.check_query(LabelQuery, {"label": label}))

    async def publish_prompt(
        self,
        prompt: str,
        content: Mapping[str, Any],
        note: str,
        owner: str,
        *,
        review_by: str = "",
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """Publish the next version of a prompt. content: `text` and, where wanted, `variables`, `model`, `parameters`
        and `output_schema`; review_by: a day, 2027-03-31. Raises Refused (`same_text`, `bad_prompt`), Unreachable."""
        body = {"content": dict(content), "note": note, "owner": owner, "review_by": review_by}
        path = f"/v1/prompts/{request_checks.check_text('prompt', prompt, bounds.MAX_PROMPT_ID_CHARS)}"
        return await self._transport.send("POST", path, idempotency_key, json=body)

    async def move_label(
        self, label: str, after: int, reason: str, move: Mapping[str, Any], *, idempotency_key: str = ""
    ) -> dict[str, Any]:
        """Move a label that stood at release `after`. move: `changes`, with or without `percent` of a canary; or
        `restore`; or `end_canary`; or `percent` of the canary that stands. Raises Refused (`release_moved`),
        Unreachable.
        """
        body = {"after": after, "reason": reason, **move}
        path = f"/v1/releases/{request_checks.check_text('label', label, bounds.MAX_NAME_CHARS)}"
        return await self._transport.send("POST", path, idempotency_key, json=body)

    async def request_evaluation(
        self,
        label: str,
        changes: Sequence[Mapping[str, Any]],
        reason: str,
        *,
        case_set: str = "",
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """Have changes on top of a label evaluated with a set that an evaluator has; without a set only make a release.

        changes: each a prompt, the number of its version, and values. Returns `evaluation` with its `release`, which
        `submit` takes as `prompt_release`. Raises Refused, Unreachable.
        """
        body = {"label": label, "changes": [dict(change) for change in changes], "case_set": case_set, "reason": reason}
        return await self._transport.send("POST", "/v1/evaluations", idempotency_key, json=body)

    async def evaluations(self, before: int = 0) -> dict[str, Any]:
        """Evaluations of the tenant's prompts: `evaluations`, the newest first. Raises Refused, Unreachable."""
        return await self.read_json(request_checks.check_query(EvaluationListQuery, {"before": before}))

    async def evaluation(self, number: int) -> dict[str, Any]:
        """An evaluation, with its `report` and `statement` once it has ended. Raises Refused, Unreachable."""
        return await self.read_json(request_checks.check_query(EvaluationQuery, {"number": str(number)}))

    async def report_evaluation(self, number: int, envelope: str) -> dict[str, Any]:
        """Hand in the signed statement that ends an evaluation. Raises Refused (`other_evaluation`, `bad_statement`),
        Unreachable."""
        request_checks.check_integer("number", number, 1, 999_999_999)
        path = f"/v1/evaluations/{number}/report"
        return await self._transport.send("POST", path, json={"envelope": envelope})

    async def workflows(self) -> dict[str, Any]:
        """All workflows of the tenant: `workflows`, each with its state. Raises Refused, Unreachable."""
        page = await self.read_json(WorkflowListQuery())
        rows = page["workflows"]
        while page.get("next"):
            page = await self.read_json(WorkflowListQuery(after=page["next"]))
            rows += page["workflows"]
        return {"workflows": rows}

    async def workflow(self, workflow: str, version: int = 0) -> dict[str, Any]:
        """A version of a workflow, with its `row` (state, history), `version` (content) and the other `versions`; 0:
        the newest published one, or the newest. Raises Refused, Unreachable."""
        fields = {"workflow": workflow, "version": version}
        return await self.read_json(request_checks.check_query(WorkflowQuery, fields))

    async def run_workflow(
        self,
        workflow: str,
        parameters: Mapping[str, str | int | float | bool] | None = None,
        *,
        version: int = 0,
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        conversation: str = "",
        written_by: str = "",
        idempotency_key: str = "",
    ) -> Task:
        """Run a published version as a task, which no model plans; 0: the newest one. Limits only lower those of the
        version. written_by: `model` where a model chose the values. Raises Refused (`not_published`,
        `bad_parameters`), Unreachable."""
        texts = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in (parameters or {}).items()
        }
        limits = request_checks.check_limits(limit_usd, limit_tokens, deadline_s)
        body: dict[str, Any] = {"parameters": texts, "version": version, "conversation": conversation}
        body |= {"limits": limits} if limits else {}
        body |= {"written_by": written_by} if written_by else {}
        answer = await self._transport.send("POST", f"{_workflow_path(workflow)}/runs", idempotency_key, json=body)
        return Task(self._transport, self._transport.require_field(answer, "task_id"))

    async def draft_workflow(
        self, workflow: str, content: Mapping[str, Any], note: str, *, source_task: str = "", idempotency_key: str = ""
    ) -> dict[str, Any]:
        """Draft the next version of a workflow. content: as GET /v1/workflows/{workflow} shows it. Raises Refused
        (`bad_workflow`, `same_content`), Unreachable."""
        body = {"content": dict(content), "note": note, "source_task": source_task}
        return await self._transport.send("POST", _workflow_path(workflow), idempotency_key, json=body)

    async def move_workflow(
        self,
        workflow: str,
        version: int,
        action: str,
        sha256: str,
        reason: str,
        *,
        schedule: Mapping[str, Any] | None = None,
        trigger: Mapping[str, Any] | None = None,
        canary: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """Do something with a version: `submit`, `reject`, `approve`, `publish`, `retire`, `schedule`, `unschedule`.
        sha256: of the version that was read. schedule, trigger: of `schedule`. canary: with `publish`, `percent` of
        the runs that get it. Raises Refused (`wrong_state`, `four_eyes`), Unreachable."""
        body: dict[str, Any] = {"action": action, "sha256": sha256, "reason": reason}
        choices = {"schedule": schedule, "trigger": trigger, "canary": canary}
        body |= {name: dict(choice) for name, choice in choices.items() if choice is not None}
        path = f"{_workflow_path(workflow)}/versions/{request_checks.check_integer('version', version, 1, 999_999)}"
        return await self._transport.send("POST", path, idempotency_key, json=body)

    async def publish_event(self, name: str, body: Any = None, *, key: str = "", event_id: str = "") -> dict[str, Any]:
        """Tell that something happened outside (`order.paid`): it begins runs of workflows, and ends waits for it.
        key: of the steps that wait. event_id: yours; the same is the same event. Raises Refused, Unreachable."""
        event = {"name": name, "id": event_id or str(uuid.uuid4()), "key": key, "body": {} if body is None else body}
        return await self._transport.send("POST", "/v1/events", json=event)

    async def change_limit(
        self,
        target: str,
        limit: Mapping[str, int | None],
        *,
        expect_revision: int | None = None,
        reason: str = "",
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """Set the ceilings of one target (`day`, `feature/search`); none at all removes them. Returns all limits.

        expect_revision: change nothing when the limits are not at this one any more. reason: stored with the change.
        idempotency_key: a repeat under the same one is made once. Raises Refused, Unreachable.
        """
        ceilings = request_checks.check_units("limit", limit, least=0, empty=True, removes=True)
        if expect_revision is not None:
            request_checks.check_integer("expect_revision", expect_revision, 0, 2**53)
        body = {
            "target": request_checks.check_text("target", target, 200),
            "limit": ceilings,
            "expect_revision": expect_revision,
        }
        if reason:  # A gateway of before does not know it.
            body["reason"] = request_checks.check_text("reason", reason, 1_000)
        return await self._transport.send("PUT", "/v1/limits", idempotency_key, json=body)

    async def dismiss_letter(self, letter: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Say that a dead letter needs no action. letter: its id, or its first characters. Raises Refused
        (`dismissed`, `no_such_letter`), Unreachable."""
        checked = request_checks.check_text("letter", letter, bounds.MAX_NAME_CHARS)
        path = f"/v1/dead-letters/{quote(checked, safe='')}/dismiss"
        body = {"reason": request_checks.check_text("reason", reason, 1_000)}
        return await self._transport.send("POST", path, idempotency_key, json=body)

    async def read(self, query: Query[R]) -> R:
        """The reply of a declared read (`bulkhead.gateway_api`). Raises Refused, Unreachable."""
        return await self._transport.read_reply(query)

    async def read_json(self, query: Query[Any]) -> dict[str, Any]:
        """The same, as an object of JSON. Raises Refused, Unreachable."""
        return await self._transport.read_json(query)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One GET. Raises Refused, Unreachable."""
        return await self._transport.request_json("GET", path, params=params)

    async def _post_switch(self, path: str, scope: str, name: str, reason: str, key: str) -> dict[str, Any]:
        body = {
            "scope": scope,
            "name": request_checks.check_text("name", name, bounds.MAX_NAME_CHARS),
            "reason": request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS),
        }
        return await self._transport.send("POST", path, key, json=body)


def _workflow_path(workflow: str) -> str:
    return f"/v1/workflows/{quote(request_checks.check_text('workflow', workflow, bounds.MAX_NAME_CHARS), safe='')}"
