"""An agent's card, as it stands now.

Enters: an agent of the file. Leaves: its card as it came, or CardUnreadable. A client of the SDK is made of
the pinned one.
"""

import asyncio
import copy
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.card_resolver import parse_agent_card
from a2a.types import AgentCard
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH, PROTOCOL_VERSION_1_0, VERSION_HEADER, TransportProtocol
from google.protobuf.json_format import ParseError

from bulkhead.tools.agent_cards import UnfitCard, card_of
from bulkhead_contracts import bounds

READ_TIMEOUT_S = 5.0
BINDINGS = [TransportProtocol.JSONRPC, TransportProtocol.HTTP_JSON]
OUTPUT_MODES = ["text/plain", "application/json"]
READ_HEADERS = {VERSION_HEADER: PROTOCOL_VERSION_1_0}
"""Said at every look: an agent may show each version its own card, the SDK's clients set the version of the connection
they share, and a card is compared with the one that was pinned."""


class CardUnreadable(Exception):
    """A card that could not be read; the message says why."""


def card_url(url: str) -> str:
    """Address of an agent's card."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + AGENT_CARD_WELL_KNOWN_PATH


async def read_card(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """The card at a URL. Raises CardUnreadable."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S), http.stream("GET", card_url(url), headers=READ_HEADERS) as response:
            if response.status_code != 200:
                raise CardUnreadable(f"{card_url(url)} answered HTTP {response.status_code}")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > bounds.MAX_CARD_BYTES:
                    break
        return card_of(body)
    except TimeoutError as error:
        raise CardUnreadable(f"{card_url(url)} did not answer within {READ_TIMEOUT_S:.0f} s") from error
    except httpx.HTTPError as error:
        raise CardUnreadable(f"{card_url(url)}: {type(error).__name__}: {error}".rstrip(": ")) from error
    except UnfitCard as error:
        raise CardUnreadable(f"{card_url(url)}: {error}") from error


def parse_card(card: Mapping[str, Any]) -> AgentCard:
    """The card as the SDK has it. Raises UnfitCard where it breaks the protocol."""
    try:
        return parse_agent_card(copy.deepcopy(dict(card)))  # The SDK changes what it is given.
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnfitCard(f"its card breaks the protocol: {str(error)[:300]}") from error


def client_of(card: Mapping[str, Any], http: httpx.AsyncClient) -> Client:
    """A client for the agent of a card. Raises UnfitCard where it speaks nothing that the mesh speaks."""
    parsed_card = parse_card(card)
    config = ClientConfig(
        httpx_client=http,
        polling=not parsed_card.capabilities.streaming,
        supported_protocol_bindings=list(BINDINGS),
        use_client_preference=True,
        accepted_output_modes=list(OUTPUT_MODES),
    )
    try:
        return ClientFactory(config).create(parsed_card)
    except ValueError as error:
        raise UnfitCard("its card names no interface by JSON-RPC or HTTP+JSON of A2A 1.0 or 0.3") from error


def describe_endpoints(card: Mapping[str, Any]) -> list[str]:
    """Addresses at which a card says that it is called, for people. Raises UnfitCard."""
    return [
        f"{interface.url} ({interface.protocol_binding} {interface.protocol_version or '?'})"
        for interface in parse_card(card).supported_interfaces
    ]
