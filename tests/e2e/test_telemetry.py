"""One task is one trace, over OTLP, from service to service; prompt text is in it only when somebody asked for it.

All of a trace is there because services that are told to stop finish what they have begun, and say so.
"""

import asyncio
from collections import defaultdict

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.client import Mesh, Task
from bulkhead_contracts import catalog
from bulkhead_infra.demo.corpus import Demo, generate_demo, write_documents
from bulkhead_infra.local.supervisor import LocalMesh

PROMPTED = "model_gateway"


class Collector:
    """An OTLP/HTTP receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[dict] = []
        app = Starlette(routes=[Route("/v1/traces", self.take, methods=["POST"])])
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
        )

    async def take(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                    self.spans.append(
                        {
                            "service": service,
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            **attributes,
                        }
                    )
        return Response(status_code=200)

    async def __aenter__(self) -> "Collector":
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving


async def test_a_task_is_one_trace_over_all_services_which_drain_when_they_are_told_to_stop(tmp_path):
    demo = generate_demo(31)
    async with Collector() as collector:
        environment = {"BULKHEAD_OTLP_ENDPOINT": collector.url}
        extra = {name: dict(environment) for name in catalog.SERVICES}
        quick = ("--token-delay-ms", "0")
        async with (
            LocalMesh(tmp_path / "mesh", extra_env=extra, offline_model_arguments=quick) as mesh,
            Mesh(mesh.url, mesh.credentials["submitter"]) as client,
        ):
            for path in write_documents(demo, tmp_path / "documents"):
                await client.add_document(path)
            silent = await client.submit(demo.objective)
            assert (await silent.wait_until_ended(60))["status"] == "succeeded"
            # Only this one knows prompts.
            extra[PROMPTED]["BULKHEAD_TRACE_PROMPTS"] = "true"
            await mesh.restart_replica(PROMPTED)
            telling = await client.submit(demo.objective)
            assert (await telling.wait_until_ended(60))["status"] == "succeeded"
            logs = mesh.directory / "logs"
        # Everything has drained, so every span was exported.
    said = {name: (logs / f"{name}-0.log").read_text() for name in catalog.SERVICES}
    assert [name for name, text in said.items() if "started" not in text or "drained" not in text] == []
    for task, prompts in ((silent, False), (telling, True)):
        _one_trace(collector, demo, task, prompts)


def _one_trace(collector: Collector, demo: Demo, task: Task, prompts: bool) -> None:
    spans = [span for span in collector.spans if span.get("bulkhead.task") == task.id]
    assert len({span["trace"] for span in spans}) == 1
    assert {span["service"] for span in spans} >= set(catalog.SERVICES) - {*catalog.WITHOUT_INBOX, "doors"}
    known = {span["id"]: span for span in collector.spans}
    edges = {(known[span["parent"]]["service"], span["service"]) for span in spans if span["parent"] in known}
    for edge in (
        ("gateway", "planner"),
        ("planner", "worker"),
        ("worker", "model_gateway"),
        ("worker", "rag"),
        ("worker", "tool_executor"),
        ("worker", "checker"),
        ("checker", "planner"),
        ("model_gateway", "budget"),
    ):
        assert edge in edges, edge
    by_name = defaultdict(list)
    for span in spans:
        by_name[span["name"].split()[0]].append(span)
    assert all(span["gen_ai.usage.input_tokens"] > 0 for span in by_name["chat"]) and by_name["execute_tool"]
    said = [span for span in spans if "gen_ai.input.messages" in span]
    assert bool(said) is prompts
    leaked = [span for span in spans if demo.names[0] in str(span.values())]
    assert prompts or not leaked
