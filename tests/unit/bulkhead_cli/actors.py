"""A mesh for the command line: a real gateway on a socket, in a thread of its own, with planner and rag by script.

What the objective says decides how the task goes: `fail`, `hang`, `doubt`, else it succeeds.
"""

import asyncio
import hashlib
import threading
from pathlib import Path

from bulkhead.blobs import Blobs
from bulkhead_contracts.grant import GrantReplied
from bulkhead_contracts.model import TextDelta
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Citation, Completeness, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.retrieval import (
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentIngestRequested,
    StoredDocument,
)
from bulkhead_contracts.task import StepEnded, StepStarted, TaskAccepted, TaskCancelRequested, TaskEnded, TaskSubmitted
from tests.unit.services.gateway.harness import InProcessBus, Mesh, make_mesh

MARKER, TOOL_MARKER = "3fa9c1d2e4b5", "0" * 12
ANSWER = f"The refund is 40 EUR [#{MARKER}], which is 80 % [#{TOOL_MARKER}]. Rules as of May [#{MARKER}]."
USAGE = Usage(model_calls=3, tool_calls=1, retrievals=1, input_tokens=1200, output_tokens=300, cost_usd_micros=4200)


class Actors:
    """Everybody but the gateway."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.seen = 0

    async def run(self) -> None:
        """React to what is stored, for ever."""
        while True:
            await self.mesh.bus.news.wait()
            self.mesh.bus.news.clear()
            await self.mesh.pump()
            while self.seen < len(self.mesh.bus.stored):
                _, stored = self.mesh.bus.stored[self.seen]
                self.seen += 1
                parts = stored.subject.split(".")
                if parts[0] == "mesh" and parts[2] in ("planner", "rag"):
                    await self.react(stored.ce_type, stored.body, parts[4], parts[5])

    async def react(self, ce_type: str, body: bytes, tenant: str, task: str) -> None:
        """One message to planner or rag."""
        if ce_type == TaskSubmitted.ce_type():
            submitted = TaskSubmitted.model_validate_json(body)
            text = await Blobs(self.mesh.bus, "planner").get_text(tenant, submitted.objective)  # type: ignore[arg-type]
            await self.plan(text, task)
        elif ce_type == TaskCancelRequested.ce_type():
            failure = Failure(code="cancelled", message=TaskCancelRequested.model_validate_json(body).reason)
            await self.mesh.say("planner", TaskEnded(status="cancelled", failure=failure), task)
        elif ce_type == DocumentIngestRequested.ce_type():
            request = DocumentIngestRequested.model_validate_json(body)
            data = await Blobs(self.mesh.bus, "rag").get(tenant, request.content)  # type: ignore[arg-type]
            bad = b"\0" in data
            refusal = Failure(code="binary", message="not text", hint="send text") if bad else None
            sha256, bus = hashlib.sha256(data).hexdigest(), self.mesh.bus
            known = next((one for one in bus.documents if one.name == request.name), None)
            if not bad:
                now = StoredDocument(
                    name=request.name,
                    sha256=sha256,
                    media_type=request.media_type,
                    chunks=2,
                    versions=known.versions + 1 if known else 1,
                    ingested_unix_ms=1_800_000_000_000,
                )
                bus.documents = sorted(
                    [*(one for one in bus.documents if one is not known), now], key=lambda one: one.name
                )
            await self.mesh.say(
                "rag",
                DocumentIngested(
                    name=request.name,
                    sha256=sha256,
                    outcome="rejected" if bad else "ingested",
                    chunks=2,
                    failure=refusal,
                    replaced_sha256=known.sha256 if known and known.sha256 != sha256 else None,
                ),
                task,
            )
        elif ce_type == DocumentDeleteRequested.ce_type():
            name = DocumentDeleteRequested.model_validate_json(body).name
            known = next((one for one in self.mesh.bus.documents if one.name == name), None)
            self.mesh.bus.documents = [one for one in self.mesh.bus.documents if one is not known]
            await self.mesh.say(
                "rag",
                DocumentDeleted(
                    name=name, outcome="deleted" if known else "absent", versions=known.versions if known else 0
                ),
                task,
            )

    async def plan(self, objective: str, task: str) -> None:
        """A plan of two steps, the second final."""
        say = self.mesh.say
        await say("planner", TaskAccepted(deadline_unix_ms=9_000_000, left_out=("send_mail",)), task)
        if "hang" in objective:
            return
        steps = (
            PlanStep(id="s1", title="Find the rule", instruction="x", tools=("search_documents",)),
            PlanStep(id="s2", title="Answer", instruction="x", inputs=("s1",)),
        )
        await say("planner", PlanAdopted(plan=Plan(steps=steps)), task)
        await say("planner", StepStarted(step_id="s1", title="Find the rule", attempt=1, plan_version=1), task, index=1)
        if "fail" in objective:
            await say(
                "planner",
                StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="failed", reasons=("no document says so",)),
                task,
                index=1,
            )
            failure = Failure(code="step_failed", message="step s1 failed", hint="add the fare rules with --docs")
            await say("planner", TaskEnded(status="failed", failure=failure, steps_total=2), task)
            return
        await say("planner", StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="accepted"), task, index=1)
        await say("planner", StepStarted(step_id="s2", title="Answer", attempt=1, plan_version=1), task, index=2)
        for offset in range(0, len(ANSWER), 9):
            await self.mesh.live(
                task, TextDelta(call_id="c2", step_id="s2", offset=offset, text=ANSWER[offset : offset + 9])
            )
        result = await self.result("doubt" in objective)
        if "leave" in objective:
            reason = "the documents do not say it"
            result = result.model_copy(update={"answered": "no", "answered_reason": reason})
        await say(
            "planner",
            StepEnded(
                step_id="s2", attempt=1, plan_version=1, outcome="accepted", result=result, final=True, usage=USAGE
            ),
            task,
            index=2,
        )
        await say(
            "planner", TaskEnded(status="succeeded", result=result, usage=USAGE, steps_done=2, steps_total=2), task
        )

    async def result(self, doubtful: bool) -> Result:
        """The answer with what stands behind it."""
        citation = Citation(
            marker=MARKER, document="fares.md", document_sha256="a" * 64, chunk_id="k", start=10, end=90
        )
        label = Label(
            sha256=TOOL_MARKER + "0" * 52, kind="tool_result", source="calculate", observed_by="tool_executor"
        )
        result = Result(
            content=await self.mesh.blob("model_gateway", ANSWER), citations=(citation,), provenance=(label,)
        )
        if not doubtful:
            return result
        omission = Omission(reason="truncated", what="the third document", detail="context too small")
        return result.model_copy(
            update={
                "standing": "degraded",
                "standing_reason": "the fallback model answered",
                "completeness": Completeness.with_omissions(omission),
            }
        )


class Running:
    """The mesh in its thread; `port` is the gateway's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        mesh = self._mesh = make_mesh(self.folder)
        gateway = mesh.gateway(ingest_wait_s=5.0)
        await gateway.start()
        actors = asyncio.create_task(Actors(mesh).run())
        self.port = gateway.port
        self._ready.set()
        await self._stop.wait()
        actors.cancel()
        await gateway.stop()

    def start(self) -> None:
        """Wait until the gateway listens."""
        self._thread.start()
        assert self._ready.wait(10), "the gateway did not start"

    def refuse(self, reply: GrantReplied | None) -> None:
        """What the signer says from now on; None: it grants."""
        self._mesh.bus.refusal = reply

    @property
    def bus(self) -> InProcessBus:
        """The bus in memory, which answers for the other services."""
        return self._mesh.bus

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
