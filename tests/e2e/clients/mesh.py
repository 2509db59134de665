"""The mesh as its clients see it: an address for each API, keys, and the models' names.

In: a running mesh and its provider. Out: what a client is configured with; then what the mesh recorded of its run.
"""

import json
from typing import Any

import httpx

from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.clients.scripted_provider import KEY, ScriptedProvider

CHAT, ANTHROPIC, RESPONSES = "by-chat", "by-anthropic", "by-responses"
"""Models of the mesh, each at a provider of another API."""
_APIS = {CHAT: "openai-chat", ANTHROPIC: "anthropic", RESPONSES: "openai-responses"}
_MODELS = {CHAT: "gpt-4.1-mini-2025-04-14", ANTHROPIC: "claude-sonnet-4-5-20250929", RESPONSES: "gpt-5-mini-2025-08-07"}


def environ_of(provider_url: str) -> dict[str, str]:
    """Settings of a mesh whose models are all at this address. Prices are those of the vendors."""
    providers = {
        name: {
            "api": api,
            "base_url": f"{provider_url}/v1",
            "api_key": KEY,
            "price_provider": "anthropic" if name == ANTHROPIC else "openai",
        }
        for name, api in _APIS.items()
    }
    routes = {name: {"provider": name, "model": model} for name, model in _MODELS.items()}
    routes["default"] = routes[CHAT]
    return {
        "BULKHEAD_PROVIDERS": json.dumps(providers),
        "BULKHEAD_ROUTES": json.dumps(routes),
        "BULKHEAD_UNKNOWN_MODELS": "default",
        "BULKHEAD_ABANDON_S": "1",
    }


class ClientMesh:
    """See the module."""

    def __init__(self, mesh: LocalMesh, provider: ScriptedProvider) -> None:
        self.local, self.provider = mesh, provider
        self.openai_url, self.anthropic_url = f"{mesh.doors_url}/openai/v1", f"{mesh.doors_url}/anthropic"

    def make_key(self, person: str, tenant: str = "demo", role: str = "submitter") -> str:
        """A key of a person of their own, so that each client's runs are told apart."""
        return self.local.add_api_key(tenant, person, role)

    async def list_tasks(self, key: str) -> list[dict[str, Any]]:
        """Runs of a key's person, newest first, as the gateway lists them."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http:
            answer = await http.get(f"{self.local.url}/v1/tasks")
            assert answer.status_code == 200, answer.text
            tasks: list[dict[str, Any]] = answer.json()["tasks"]
            return tasks
