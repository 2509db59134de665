"""A client's message, read. Pure. In: an A2A message. Out: an objective or a decision about a call that waits for a
person, or an A2AError that names the field.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from a2a.types import Message, Part, Role, SendMessageConfiguration
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict

from bulkhead.flow import bounded
from bulkhead.text.plain_text import escape_controls
from bulkhead_contracts import bounds
from bulkhead_services.doors.a2a import card

MAX_PARTS = 64
MAX_ID_CHARS = 256
_CONTEXT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ACCEPTED = frozenset({*card.OUTPUT_MODES, "text", "text/*", "*/*"})
_DECISION = ("approval_id", "arguments_sha256", "decision", "reason")


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """A person's word about a call that waits for it; the fields are those of POST /v1/approvals/{approval_id}."""

    approval_id: str
    arguments_sha256: str
    decision: str
    reason: str


def check_message(message: Message, configuration: SendMessageConfiguration) -> None:
    """Check what every message must have. Raises A2AError."""
    if not message.message_id or len(message.message_id) > MAX_ID_CHARS:
        raise InvalidParamsError(f"messageId must have 1 to {MAX_ID_CHARS} characters; send a fresh UUID")
    if message.role == Role.ROLE_AGENT:
        raise InvalidParamsError("role is ROLE_AGENT; a client's message has ROLE_USER")
    if not 1 <= len(message.parts) <= MAX_PARTS:
        raise InvalidParamsError(f"parts has {len(message.parts)} entries; send 1 to {MAX_PARTS}, each with a text")
    if message.context_id and not _CONTEXT.fullmatch(message.context_id):
        raise InvalidParamsError("contextId must be 1 to 64 of A-Z a-z 0-9 _ . -; send a UUID, or none to be given one")
    if configuration.accepted_output_modes and not _ACCEPTED & set(configuration.accepted_output_modes):
        raise ContentTypeNotSupportedError(
            f"acceptedOutputModes has none of {', '.join(card.OUTPUT_MODES)}; add one of them"
        )


def read_objective(message: Message) -> str:
    """The text of a message that begins a task. Raises A2AError."""
    texts = [_part_text(number, part) for number, part in enumerate(message.parts)]
    joined = "\n\n".join(text for text in texts if text.strip())
    if not joined:
        raise InvalidParamsError("the parts hold no text; say what is to be done in a text part")
    if len(joined) > bounds.MAX_OBJECTIVE_CHARS:
        problem = f"the text of all parts has {len(joined):,} characters, of {bounds.MAX_OBJECTIVE_CHARS:,} allowed"
        raise InvalidParamsError(f"{problem}; add long material as a document (POST /v1/documents of the gateway)")
    return joined


def _part_text(number: int, part: Part) -> str:
    kind = part.WhichOneof("content")
    if kind == "text":
        # Written out: what nobody sees is no instruction of the person who sends it.
        return escape_controls(part.text.replace("\r\n", "\n"))
    named = {"raw": "a file", "url": "a file by its URL", "data": "data"}.get(kind or "", "nothing")
    raise ContentTypeNotSupportedError(f"parts[{number}] holds {named}; only text parts are taken (text/plain)")


def read_decision(message: Message) -> ApprovalDecision | None:
    """The decision in the only part of a message; None where it holds none. Raises A2AError."""
    if len(message.parts) != 1 or message.parts[0].WhichOneof("content") != "data":
        return None
    fields = MessageToDict(message.parts[0].data)
    if (
        not isinstance(fields, dict)
        or set(fields) != set(_DECISION)
        or not all(isinstance(v, str) for v in fields.values())
    ):
        raise InvalidParamsError(f"the data part must be an object of the texts {', '.join(_DECISION)}, and no more")
    return ApprovalDecision(**{name: escape_controls(value) for name, value in fields.items()})


def read_role(message: Message, roles: Sequence[str]) -> str:
    """The role that a message asks for as a skill; "" for a task that the mesh plans. roles: of the tenant. Raises
    A2AError."""
    skill = MessageToDict(message.metadata).get(card.SKILL, card.TASK)
    skills = {card.TASK: ""} | {card.ROLE + name: name for name in roles}
    if not isinstance(skill, str) or skill not in skills:
        raise InvalidParamsError(f"metadata.{card.SKILL} is no skill of your extended card: {', '.join(skills)}")
    return skills[skill]


def read_workflow(message: Message) -> str:
    """The workflow that a message asks for as a skill; "" where it asks for none."""
    skill = MessageToDict(message.metadata).get(card.SKILL, card.TASK)
    is_workflow = isinstance(skill, str) and skill.startswith(card.WORKFLOW)
    return str(skill).removeprefix(card.WORKFLOW) if is_workflow else ""


def read_parameters(text: str, names: Sequence[str]) -> dict[str, str]:
    """Values by name: of an object of JSON, or the text itself where there is one parameter. names: of the parameters
    that a run has to give. Raises A2AError."""
    try:
        fields = bounded.load_json(text)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and all(isinstance(value, str | int | float) for value in fields.values()):
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
    if len(names) == 1:
        return {names[0]: text}
    raise InvalidParamsError(f"the text must be a JSON object with values of {', '.join(names) or 'no parameter'}")


def plan_for_role(objective: str, role: str) -> dict[str, Any]:
    """The plan of a task that one role carries out. Raises A2AError."""
    if len(objective) > bounds.MAX_INSTRUCTION_CHARS:
        problem = f"the text has {len(objective):,} characters; a role takes {bounds.MAX_INSTRUCTION_CHARS:,}"
        raise InvalidParamsError(f"{problem}; say less, or leave metadata.{card.SKILL} away")
    step_fields = {
        "title": f"Ask {role}",
        "instruction": objective,
        "acceptance": "It does what the instruction asks for.",
    }
    return {"steps": [{"id": "ask", "role": role, **step_fields}]}


def idempotency_key(message: Message, objective: str) -> str:
    """The same for the same message of the same person: a repeat is the same task. Its content counts, too, for clients
    that number their messages begin at 1 again."""
    skill = str(MessageToDict(message.metadata).get(card.SKILL, ""))
    named = "\0".join((message.message_id, message.context_id, objective, *([skill] if skill else [])))
    return "a2a-" + hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[:48]
