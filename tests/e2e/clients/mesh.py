"""The mesh as its clients see it: an address for each API, keys, and the models' names.

In: a running mesh and its provider. Out: what a client is configured with; then what the mesh recorded of its run.
"""

import json

import httpx

from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.clients import page
from tests.e2e.clients.scripted_provider import KEY, ScriptedProvider
from tests.e2e.fixtures.world import until

CHAT, ANTHROPIC, RESPONSES = "gpt-4.1-mini", "claude-sonnet-4-5", "gpt-5-mini"
"""Models of the page's routes, each at a provider of another API."""


def environ_of(provider_url: str) -> dict[str, str]:
    """The settings of the page on coding agents, with all providers at this address, at the vendors' prices."""
    apis = {"openai": "openai-chat", "anthropic": "anthropic", "responses": "openai-responses"}
    providers = {
        name: {
            "api": api,
            "base_url": f"{provider_url}/v1",
            "api_key": KEY,
            "price_provider": "anthropic" if name == "anthropic" else "openai",
        }
        for name, api in apis.items()
    }
    return {
        "BULKHEAD_PROVIDERS": json.dumps(providers),
        "BULKHEAD_ROUTES": page.read_variable("BULKHEAD_ROUTES"),
        "BULKHEAD_UNKNOWN_MODELS": page.read_variable("BULKHEAD_UNKNOWN_MODELS"),
        "BULKHEAD_ABANDON_S": "1",
    }


class ClientMesh:
    """See the module."""

    def __init__(self, mesh: LocalMesh, provider: ScriptedProvider) -> None:
        self.local, self.provider = mesh, provider
        self.openai_url, self.anthropic_url = f"{mesh.doors_url}/openai/v1", f"{mesh.doors_url}/anthropic"

    def make_key(self, person: str, role: str = "submitter") -> str:
        """A key of a person of their own, so that each client's runs are told apart."""
        return self.local.add_api_key("demo", person, role)

    async def read_spending(self, person: str) -> tuple[int, int]:
        """Calls and tokens that the mesh has charged to a person, once nothing is held any more."""
        key = self.make_key("operator-of-clients", "operator")
        async with httpx.AsyncClient(base_url=self.local.url, headers={"Authorization": f"Bearer {key}"}) as http:

            async def settled() -> tuple[int, int] | None:
                answer = await http.get("/v1/spend", params={"by": "user"})
                row = next((row for row in answer.json()["rows"] if row["name"] == person), None)
                if row is None or row["held"]["calls"]:
                    return None
                return row["spent"]["calls"], row["spent"]["tokens"]

            spending: tuple[int, int] = await until(settled, f"the calls of {person} are settled")
            return spending
