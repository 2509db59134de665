"""An outside agent, what the mesh says of its run, and what the provider's own log counts."""

import json
from typing import Any

import httpx
from openai import AsyncOpenAI

from tests.e2e.fixtures.world import World, until

MODEL = "offline-rules-1"


class Agent:
    """One outside agent, in a tenant of its own. run: the name that it gives its run."""

    def __init__(self, world: World, tenant: str, run: str, **headers: str) -> None:
        self.world, self.tenant = world, tenant
        self.key = world.mesh.add_api_key(tenant, f"{tenant}-agent", "submitter")
        self.client = AsyncOpenAI(
            base_url=f"{world.mesh.doors_url}/openai/v1",
            api_key=self.key,
            max_retries=8,
            timeout=60,
            default_headers={"X-Bulkhead-Run": run, **headers},
        )
        self.task = ""

    async def ask(self, messages: list[Any], **more: Any) -> Any:
        """One call; the run's id is kept."""
        answer = await self.client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, **more)
        self.task = answer.headers["x-bulkhead-task"]
        return answer.parse()

    async def end(self) -> None:
        """The run is over."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.key}"}) as http:
            answer = await http.delete(f"{self.world.mesh.doors_url}/v1/runs/{self.task}")
            assert answer.status_code == 200, answer.text

    async def shown(self) -> dict[str, Any]:
        """What `bulkhead show` prints of the run."""
        return await self.said("show", self.task)

    async def said(self, *words: str, role: str = "operator") -> dict[str, Any]:
        """What a command prints, as this tenant's operator."""
        key = self.world.mesh.add_api_key(self.tenant, f"{self.tenant}-{role}", role)
        code, out, error = await self.world.command(*words, "--json", "--url", self.world.mesh.url, "--api-key", key)
        assert code == 0, (out, error)
        found: dict[str, Any] = json.loads(out)
        return found

    async def spent(self, held: int = 0) -> tuple[int, int]:
        """Calls and tokens of the run, as `bulkhead spend` sums them up once all is settled but what is still held."""

        async def settled() -> tuple[int, int] | None:
            rows = (await self.said("spend", "--by", "task"))["rows"]
            row = next((one for one in rows if one["name"] == self.task), None)
            if row is None or row["held"]["calls"] != held:
                return None
            return row["spent"]["calls"], row["spent"]["tokens"]

        found: tuple[int, int] = await until(settled, "the run's spending is settled")
        return found


async def provider_counted(world: World, since: int) -> tuple[int, int]:
    """Calls and tokens that the provider's own log counts since its entry of that number."""
    rows = [one for one in await world.model_requests() if one["number"] > since]
    tokens = sum(one["usage"]["total_tokens"] for one in rows if one["usage"])
    return len(rows), tokens


async def log_stands(world: World) -> int:
    """The number of the provider's newest entry."""
    return max((one["number"] for one in await world.model_requests()), default=0)
