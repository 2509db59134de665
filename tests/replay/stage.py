"""The whole mesh in one process, all its services, with a model that says what a script tells it.

In: scripts by role (plan, step, judge). Out: tasks submitted through the gateway's HTTP API like anybody's, and their
histories. Content, tools, money, grants and checks are the real ones; only the provider's words are scripted.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

import uvicorn
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from securesystemslib.signer import CryptoSigner

from bulkhead.blobs import BlobMissing
from bulkhead.client import Mesh, Task
from bulkhead.evaluation.statement import public_key_of
from bulkhead.runtime.context import Context
from bulkhead.runtime.decider.history import TaskHistory, collect_history
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.plan import ASK_PERSON
from bulkhead_contracts.result import ContentRef
from bulkhead_infra.offline_model.http.server import build_app
from bulkhead_infra.offline_model.settings import Settings as OfflineSettings
from bulkhead_services.budget import app as budget
from bulkhead_services.budget.settings import Settings as BudgetSettings
from bulkhead_services.checker.app import LOGICS as CHECKER
from bulkhead_services.gateway import app as gateway
from bulkhead_services.gateway.settings import PublisherSettings
from bulkhead_services.gateway.settings import Settings as GatewaySettings
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.model_gateway.settings import Settings as ModelGatewaySettings
from bulkhead_services.planner.app import LOGICS as PLANNER
from bulkhead_services.rag import app as rag
from bulkhead_services.rag.settings import Settings as RagSettings
from bulkhead_services.registry import app as registry
from bulkhead_services.registry.settings import Settings as RegistrySettings
from bulkhead_services.signer import app as signer
from bulkhead_services.signer.settings import Settings as SignerSettings
from bulkhead_services.tool_executor import app as tool_executor
from bulkhead_services.tool_executor.boundary.gate import RulingFunction
from bulkhead_services.tool_executor.settings import Settings as ToolExecutorSettings
from bulkhead_services.worker.app import LOGICS as WORKER
from tests.counter_server import CounterServer
from tests.eventually import until
from tests.open_policy import permitted
from tests.unit.services.model_gateway.scripted_provider import Exchange, Script, ScriptedProvider, calls, says

TENANT, OTHER = "demo", "acme"
OPERATOR, APPROVER = "bk_olga_of_demo", "bk_bob_of_demo"
AUDITOR, OTHER_OPERATOR = "bk_aud_of_demo", "bk_otto_of_acme"
EDITOR, EVALUATOR = "bk_pia_of_demo", "bk_eva_of_demo"
STATEMENT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""The key that signs statements for the label `staging`."""
KEYS = {
    "bk_ann_of_demo": (TENANT, "ann"),
    "bk_eve_of_acme": (OTHER, "eve"),
    OPERATOR: (TENANT, "olga"),
    APPROVER: (TENANT, "bob"),
    AUDITOR: (TENANT, "aud"),
    EDITOR: (TENANT, "pia"),
    EVALUATOR: (TENANT, "eva"),
    OTHER_OPERATOR: (OTHER, "otto"),
}
ROLES = {
    OPERATOR: "operator",
    APPROVER: "approver",
    AUDITOR: "auditor",
    EDITOR: "prompt_editor",
    EVALUATOR: "evaluator",
    OTHER_OPERATOR: "operator",
}
TOOLS = (
    "search_documents",
    "calculate",
    "counter_increment",
    "counter_increment_unkeyed",
    "date_difference",
    "date_add",
)
WAITS = ("ask_steps", "answer_step", "acquire_lease", "release_lease")
LOGICS = {"planner": PLANNER, "worker": WORKER, "checker": CHECKER}
STEP = re.compile(r'\[\[part kind=step id=\w+ step_id="([\w-]+)"')
QUIET_S, FACT_TIMEOUT_S = 0.15, 30.0


@dataclass
class Model:
    """What is said to whom: the next script of a list, its last one over and over."""

    plans: list[Script] = field(default_factory=list)
    steps: dict[str, list[Script]] = field(default_factory=dict)
    judges: dict[str, list[Script]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def will(self, *plans: Script, judges: dict[str, list[Script]] | None = None, **steps: list[Script]) -> None:
        """The scripts of the next task. A judge without one accepts."""
        self.plans, self.steps, self.judges, self.asked = list(plans), steps, judges or {}, []

    def count(self, role: str, step: str = "") -> int:
        """How often it was asked."""
        return sum(one[:2] == (role, step) for one in self.asked)

    async def __call__(self, x: Exchange) -> None:
        """Answer one request."""
        form = x.body.get("response_format", {}).get("json_schema", {}).get("name", "")
        found = STEP.search(x.body["messages"][1]["content"])
        step = found.group(1) if found and form != "plan" else ""
        role = {"plan": "plan", "verdict": "judge"}.get(form, "work")
        self.asked.append((role, step, x.body))
        left = {"plan": self.plans, "judge": self.judges.get(step, [accept()]), "work": self.steps.get(step, [])}[role]
        assert left, f"no script for {role} {step}"
        await (left.pop(0) if len(left) > 1 else left[0])(x)


def plan(*steps: dict[str, Any]) -> Script:
    """A drafted plan; `id` alone makes a whole step."""
    rows = [
        {
            "title": one["id"].upper(),
            "instruction": f"Do {one['id']}.",
            "tools": [],
            "inputs": [],
            "acceptance": "It is done.",
            **one,
        }
        for one in steps
    ]
    return says(json.dumps({"steps": rows}))


def accept() -> Script:
    """A judge's yes."""
    return says(json.dumps({"verdict": "accept", "score": 1.0, "reasons": []}))


def reject(reason: str) -> Script:
    """A judge's no."""
    return says(json.dumps({"verdict": "reject", "score": 0.0, "reasons": [reason]}))


def call(name: str, number: int = 1, /, **arguments: Any) -> dict[str, Any]:
    """A tool call as a model makes it."""
    return {"id": f"call_{name}_{number}", "name": name, "arguments": json.dumps(arguments)}


def use(*made: dict[str, Any]) -> Script:
    """A turn of tool calls."""
    return calls(*made)


async def silent(x: Exchange) -> None:
    """Headers, and then nothing until the client gives up."""
    await x.begin()
    await x.hung_up()


class Ended(TypedDict):
    """The part of a task's document that scenes read."""

    task_id: str
    status: str


@dataclass
class Stage:
    """A running mesh and its model."""

    mesh: MemoryMesh
    model: Model
    counter: CounterServer
    starts: dict[str, int]
    """`logic`: the version that starts tasks, as the gateway learns when it is started."""
    logics: dict[str, Any]
    """The decision logics of every decider, as its next replica gets them."""
    url: str = ""

    def client(self, key: str = "bk_ann_of_demo") -> Mesh:
        """The gateway, as a person."""
        return Mesh(self.url, key)

    async def run(self, objective: str = "Find it out.", key: str = "bk_ann_of_demo", **wanted: Any) -> Ended:
        """Submit a task and wait for its end; what `show` says of it."""
        async with self.client(key) as client:
            task: Task = await client.submit(objective, **wanted)
            return cast(Ended, await task.wait_until_ended(FACT_TIMEOUT_S))

    async def restart(self, *names: str) -> None:
        """Replace the replica of each service: the old one dies, the new one is built anew."""
        for name in names:
            for service, instance in [one for one in self.mesh.running if one[0] == name]:
                self.mesh.kill_replica(service, instance)
            await self.mesh.start(name)
        if "gateway" in names:
            await self.find_gateway()

    async def find_gateway(self) -> None:
        """Where the gateway listens now."""
        component = self.mesh.running["gateway", "0"].service.component
        assert isinstance(component, gateway.GatewayService)
        await until(lambda: component.port, timeout_s=FACT_TIMEOUT_S)
        self.url = f"http://127.0.0.1:{component.port}"

    async def history(self, task: str, tenant: str = TENANT) -> TaskHistory:
        """The task's history, once nothing more is said about it."""
        before = -1
        while before != (before := len(await self.mesh.messages("JOURNAL"))):
            await asyncio.sleep(QUIET_S)
        journal = [one for one in await self.mesh.messages("JOURNAL") if (one.tenant, one.task) == (tenant, task)]
        blobs = self.mesh.context("checker").blobs

        async def read(ref: ContentRef) -> bytes | None:
            try:
                return await blobs.get(tenant, ref)
            except BlobMissing:
                return None

        return await collect_history(journal, read)


def _decider(logics: dict[str, Any], name: str, context: Context) -> Any:
    return logics[name]  # Looked up at each start: a test may put others there.


@asynccontextmanager
async def offline_model() -> AsyncIterator[str]:
    """The offline model on a free port of this process; its URL."""
    app = build_app(OfflineSettings(token_delay_ms=0, admin=True))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    await serving


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    logic: int = 1,
    logics: Any = LOGICS,
    rule: RulingFunction | None = permitted,
    executor: dict[str, Any] | None = None,
    rag_settings: dict[str, Any] | None = None,
    quotas: dict[str, Any] | None = None,
    **model: Any,
) -> AsyncIterator[Stage]:
    """A whole mesh in `folder`. logic: which version starts tasks. logics: what deciders have. rule: the policy of
    calls; None for the files of the executor's `policy_dir`. executor, rag_settings, model: settings of those. quotas:
    by tenant."""
    (folder / "tenants.yaml").write_text(
        yaml.safe_dump(
            {
                "tenants": {
                    name: {
                        "tools": [*TOOLS, *WAITS, ASK_PERSON],
                        "default_writes": [name for name in TOOLS if name.startswith("counter_increment")],
                        "task": {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000},
                        "day": {"cost_usd_micros": 10**9, "tokens": 10**9},
                        "quota": (quotas or {}).get(name, {}),
                        "gates": {
                            "staging": {"sets": {"answers": None}, "keys": [public_key_of(CryptoSigner(STATEMENT_KEY))]}
                        },
                    }
                    for name in (TENANT, OTHER)
                }
            }
        )
    )
    rows = [
        {
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "tenant": tenant,
            "person": person,
            "role": ROLES.get(key, "submitter"),
        }
        for key, (tenant, person) in KEYS.items()
    ]
    (folder / "keys.json").write_text(json.dumps({"keys": rows}))
    said, starts, logics = Model(), {"logic": logic}, dict(logics)
    with CounterServer() as counter:
        async with ScriptedProvider() as provider:
            provider.will(said)
            builds: dict[str, Callable[[Context], Any]] = {
                "budget": lambda c: budget.build(c, BudgetSettings(redis_url=SecretStr("memory://"), data_dir=folder)),
                "model_gateway": lambda c: model_gateway.build(
                    c,
                    ModelGatewaySettings(
                        openai_api_key=SecretStr("scripted"),
                        backoff_first_ms=1,
                        data_dir=folder,
                        **{"model": "offline-rules-1", "openai_base_url": provider.url, **model},
                    ),
                ),
                "rag": lambda c: rag.build(c, RagSettings(data_dir=folder, **(rag_settings or {}))),
                "tool_executor": lambda c: tool_executor.build(
                    c,
                    ToolExecutorSettings(
                        counter_url=counter.url, retry_backoff_s=0.01, data_dir=folder, **(executor or {})
                    ),
                    rule=rule,
                ),
                "registry": lambda c: registry.build(
                    c, RegistrySettings(data_dir=folder, tenants_file=folder / "tenants.yaml")
                ),
                "signer": lambda c: signer.build(
                    c, SignerSettings(tenants_file=folder / "tenants.yaml", counter_url=counter.url, data_dir=folder)
                ),
                "gateway": lambda c: gateway.build(
                    c,
                    GatewaySettings(
                        http_port=0,
                        tenants_file=folder / "tenants.yaml",
                        api_keys_file=folder / "keys.json",
                        logic=starts["logic"],
                        heartbeat_s=60,
                        publishers={"pub_demo": PublisherSettings(tenant=TENANT, person="shop")},
                        data_dir=folder,
                    ),
                ),
                **{name: partial(_decider, logics, name) for name in LOGICS},
            }
            async with MemoryMesh(builds, ack_wait_ms=2_000) as mesh:
                found = Stage(mesh, said, counter, starts, logics)
                await found.find_gateway()
                yield found
