"""The doors in a mesh of real services in this process; only the provider's words are scripted.

In: scripts of a provider. Out: a client of OpenAI's own SDK that knows nothing but a URL and a key.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from openai import AsyncOpenAI
from pydantic import SecretStr

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.step import StepPaused
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.types import Body
from bulkhead_services.budget import app as budget
from bulkhead_services.budget.settings import Settings as BudgetSettings
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings as DoorsSettings
from bulkhead_services.gateway import app as gateway
from bulkhead_services.gateway.settings import Settings as GatewaySettings
from bulkhead_services.gateway.settings import SubscriberSettings
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.model_gateway.settings import Settings as ModelGatewaySettings
from bulkhead_services.planner.app import LOGICS as PLANNER
from bulkhead_services.signer import app as signer
from bulkhead_services.signer.settings import Settings as SignerSettings
from tests.eventually import until
from tests.settlements import settlements
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

TENANT, PERSON, KEY = "demo", "ann", "bk_ann_of_demo"
OPERATOR_KEY = "bk_oz_of_demo"
MODEL = "offline-rules-1"
TASK_LIMITS = {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000}


@dataclass
class Whole:
    """What a test holds in its hands."""

    mesh: MemoryMesh
    provider: ScriptedProvider

    @property
    def doors(self) -> Doors:
        """The newest replica of doors."""
        component = [row for (name, _), row in self.mesh.running.items() if name == "doors"][-1].service.component
        assert isinstance(component, Doors)
        return component

    @property
    def gateway_url(self) -> str:
        """Where people ask."""
        component = self.mesh.running["gateway", "0"].service.component
        assert isinstance(component, gateway.GatewayService)
        return f"http://127.0.0.1:{component.port}"

    def client(self, **more: Any) -> AsyncOpenAI:
        """OpenAI's SDK."""
        url = f"http://127.0.0.1:{self.doors.port}/openai/v1"
        return AsyncOpenAI(base_url=url, api_key=KEY, **{"timeout": 30.0, **more})

    async def bodies(self, kind: type[Body], to: str) -> list[Any]:
        """All messages of a kind in a service's inbox."""
        stored = await self.mesh.messages(subjects.inbox_stream(to))
        return [kind.model_validate_json(one.body) for one in stored if one.ce_type == kind.ce_type()]

    async def ended(self, status: str) -> TaskEnded:
        """The first run that has ended."""
        found = await until(lambda: self.bodies(TaskEnded, "gateway"))
        assert found[0].status == status, found[0]
        end: TaskEnded = found[0]
        return end

    async def paused(self) -> list[bool]:
        """What doors told the planner of pauses."""
        return [one.active for one in await self.bodies(StepPaused, "planner")]

    async def settled(self) -> list[Settled]:
        """Everything that was paid."""
        return await settlements(self.mesh)


@asynccontextmanager
async def whole_mesh(
    folder: Path,
    *scripts: Any,
    limits: dict[str, int] | None = None,
    watch: bool = False,
    policy: dict[str, Any] | None = None,
    keys_of: tuple[tuple[str, str, str, str], ...] = (),
    more: dict[str, Any] | None = None,
    subscribers: dict[str, SubscriberSettings] | None = None,
    **settings: Any,
) -> AsyncIterator[Whole]:
    """A running mesh. limits: of a task of the tenant. watch: whether budget's watcher is on. policy: of the tenant,
    besides. keys_of: key, tenant, person and role of further rows. more: builds of further services.
    subscribers: rows of the gateway's. settings: of doors."""
    row = {"tools": [], "task": {**TASK_LIMITS, **(limits or {})}, "day": {"cost_usd_micros": 10**9, "tokens": 10**9}}
    row |= policy or {}
    tenants, keys = folder / "tenants.yaml", folder / "keys.json"
    tenants.write_text(yaml.safe_dump({"tenants": {TENANT: row, "acme": row}}))
    people = ((KEY, TENANT, PERSON, "submitter"), (OPERATOR_KEY, TENANT, "oz", "operator"), *keys_of)
    rows = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "person": person, "role": role}
        for key, tenant, person, role in people
    ]
    keys.write_text(json.dumps({"keys": rows}))
    async with ScriptedProvider() as provider:
        provider.will(*scripts)
        model = ModelGatewaySettings(
            openai_api_key=SecretStr("scripted"),
            openai_base_url=provider.url,
            model=MODEL,
            backoff_first_ms=1,
            data_dir=folder,
        )
        given = {"http_port": 0, "api_keys_file": keys, "tenants_file": tenants, "data_dir": folder, "hold_s": 1.0}
        builds = {
            "budget": lambda c: budget.build(
                c,
                BudgetSettings(
                    redis_url=SecretStr("memory://"),
                    data_dir=folder,
                    watch="on" if watch else "off",
                    watch_interval_s=0.02,
                ),
            ),
            "model_gateway": lambda c: model_gateway.build(c, model),
            "signer": lambda c: signer.build(c, SignerSettings(tenants_file=tenants, data_dir=folder)),
            "gateway": lambda c: gateway.build(
                c,
                GatewaySettings(
                    http_port=0,
                    api_keys_file=keys,
                    tenants_file=tenants,
                    data_dir=folder,
                    subscribers=subscribers or {},
                ),
            ),
            "planner": lambda c: dict(PLANNER),
            "doors": lambda c: Doors(c, DoorsSettings(**{**given, **settings})),
            **(more or {}),
        }
        async with MemoryMesh(builds, ack_wait_ms=1_000) as mesh:
            found = Whole(mesh, provider)
            await until(lambda: found.doors.port)
            yield found
