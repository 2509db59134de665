"""Pins of remote agents: from the card that an agent shows to what the mesh shows of it, and a digest of the whole.

Enters: a card as it came. Leaves: a pin. A card's words are untrusted text: bounded, without invisible characters,
marked as its own.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import rfc8785

from bulkhead.tools.agents_file import CardPin
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_contracts import bounds

SIGNATURES = "signatures"
"""Left out of the digest: they may be made anew each time."""
MAX_SKILLS_SHOWN = 8
MAX_SKILL_CHARS = 80


class UnfitCard(ValueError):
    """A card that cannot be used; the message says why."""


def card_of(raw: bytes) -> dict[str, Any]:
    """The card of a body. Raises UnfitCard."""
    if len(raw) > bounds.MAX_CARD_BYTES:
        raise UnfitCard(f"its card is longer than {bounds.MAX_CARD_BYTES} bytes")
    try:
        card = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnfitCard(f"its card is no JSON: {error}") from error
    if not isinstance(card, dict):
        raise UnfitCard("its card is no JSON object")
    return card


def digest_of(card: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical form (RFC 8785) of all that the card says. Raises UnfitCard."""
    try:
        return hashlib.sha256(rfc8785.dumps({k: v for k, v in card.items() if k != SIGNATURES})).hexdigest()
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise UnfitCard(f"its card has no canonical form: {error}") from error


def pin_card(name: str, card: Mapping[str, Any]) -> CardPin:
    """The pin of an agent. Raises UnfitCard."""
    return CardPin(digest=digest_of(card), description=_describe_agent(name, card), card=dict(card))


def _describe_agent(name: str, card: Mapping[str, Any]) -> str:
    words = clean_line(
        _as_text(card.get("description")) or _as_text(card.get("name")), bounds.MAX_MCP_DESCRIPTION_CHARS
    )
    skills = card.get("skills")
    named = [
        clean_line(_as_text(skill.get("name")), MAX_SKILL_CHARS)
        for skill in (skills if isinstance(skills, list) else ())
        if isinstance(skill, dict)
    ]
    skill_note = f" It names as its skills: {'; '.join(filter(None, named[:MAX_SKILLS_SHOWN]))}." if any(named) else ""
    return f"[the remote agent {name} says of itself, unchecked] {words or '(nothing)'}{skill_note}"


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""
