"""The agent card. Pure. In: the address under which a client has come, and a tenant's tools. Out: the card.

The public card says how to come in; who has come in is shown the tools and ceilings of his tenant.
"""

from collections.abc import Iterable, Sequence

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    APIKeySecurityScheme,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)

from bulkhead_contracts.task import TaskLimits

PATH = "/a2a"
OUTPUT_MODES = ("text/plain", "application/json")
VERSIONS = ("1.0", "0.3")
BINDINGS = ("JSONRPC", "HTTP+JSON")
SKILL, TASK, ROLE = "skill", "task", "role."
"""Name of a message's metadata in which it asks for a skill; the skill of every tenant; beginning of a role's."""


def public_card(address: str, push: bool = False) -> AgentCard:
    """The card that everybody may read. address: scheme and host, without a path. push: whether any tenant has push
    notifications."""
    interfaces = [
        AgentInterface(url=address + PATH, protocol_binding=binding, protocol_version=version)
        for version in VERSIONS
        for binding in BINDINGS
    ]
    return AgentCard(
        name="Bulkhead",
        description="Agents that plan a task, work on it within ceilings of money, tokens and time, check the answer "
        "and cite its sources.",
        version="1",
        supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=True, push_notifications=push, extended_agent_card=True),
        security_schemes={
            "bearer": SecurityScheme(
                http_auth_security_scheme=HTTPAuthSecurityScheme(
                    scheme="bearer", description="An API key of the mesh, or a JWT."
                )
            ),
            "apiKey": SecurityScheme(api_key_security_scheme=APIKeySecurityScheme(location="header", name="X-API-Key")),
        },
        security_requirements=[SecurityRequirement(schemes={name: StringList()}) for name in ("bearer", "apiKey")],
        default_input_modes=["text/plain"],
        default_output_modes=list(OUTPUT_MODES),
        skills=[
            _task_skill("Says in plain words what is to be done; the answer is text with its citations.", ["task"])
        ],
    )


def extended_card(
    address: str, tools: Sequence[str] | None, roles: Sequence[str], most: TaskLimits, push: bool = False
) -> AgentCard:
    """The card for one tenant. tools: None where no policy names them. roles: those that a message may ask for. most:
    ceilings of one of its tasks. push: whether it has push notifications."""
    card = public_card(address, push)
    named = ", ".join(tools) if tools else "none" if tools is not None else "those that the mesh allows"
    usd, minutes = most.cost_usd_micros / 1_000_000, most.deadline_ms / 60_000
    ceilings = f"At most {usd:g} USD, {most.tokens:,} tokens and {minutes:g} minutes for one task."
    description = f"Works on what a text says, with tools: {named}. {ceilings}"
    del card.skills[:]
    card.skills.append(_task_skill(description, ["task", *(tools or ())]))
    card.skills.extend(map(_role_skill, roles))
    return card


def _task_skill(told: str, tags: Iterable[str]) -> AgentSkill:
    example = "Which of our suppliers raised prices this year, and by how much?"
    return AgentSkill(id=TASK, name="Carry out a task", description=told, tags=list(tags), examples=[example])


def _role_skill(role: str) -> AgentSkill:
    name = ROLE + role
    description = f"One step, carried out by {role} and checked: send `{SKILL}: {name}` in the message's metadata."
    return AgentSkill(id=name, name=f"Ask {role}", description=description, tags=["role", role])
