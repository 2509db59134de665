"""A tool's result, looked at before anybody believes it: a size, a schema, a declared error, secrets, personal data.

Enters: what the tool returned. Leaves: the same, or the failure that it is, by name. Pure.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import jsonschema_rs

from bulkhead.flow.json_pointer import unescape_segment
from bulkhead.grounding.personal_data import find_personal_data
from bulkhead.telemetry.redaction import has_keys
from bulkhead.text.accounts import is_iban
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.catalog import ToolRow
from bulkhead_contracts.tool import Sensitive

MALFORMED, TOO_LARGE, ERROR_BODY = "malformed_output", "output_too_large", "error_body"
OWNER_HINT = "whoever wrote the tool must look: its answer cannot be relied on"
RETRY_HINT = "try again in 15 s; its operator sees more with `bulkhead doctor`"
"""Of what is away. Who pauses so long between calls is no loop to the watcher (LoopThresholds.look_gap_ms)."""
_REPLACEMENT = "[credential {}]"
_MARK = "[credential "
MIN_SECRET_CHARS = 4
MAX_TOLD_CHARS = 500


class SecretGuard:
    """The secrets of one call, by name: replaced in whatever leaves it, plainly written and as URLs, JSON and base64
    write them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        replacements: dict[str, str] = {}
        for name, secret in secrets.items():
            if len(secret) >= MIN_SECRET_CHARS:
                packed = base64.b64encode(secret.encode()).decode()
                ways = (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], packed)
                replacements |= dict.fromkeys(
                    (*ways, packed.rstrip("="), repr(secret)[1:-1]), _REPLACEMENT.format(name)
                )
        self._replacements = sorted(replacements.items(), key=lambda way: len(way[0]), reverse=True)

    @property
    def has_any(self) -> bool:
        """True when the call has secrets at all."""
        return bool(self._replacements)

    def redact_text(self, text: str) -> str:
        """The text without them."""
        for way, instead in self._replacements:
            if way in text:
                text = text.replace(way, instead)
        return text

    def redact_outcome(self, outcome: Done | Failed) -> Done | Failed:
        """The outcome without them."""
        if isinstance(outcome, Done):
            return replace(outcome, text=self.redact_text(outcome.text), missing=self.redact_text(outcome.missing))
        return replace(outcome, message=self.redact_text(outcome.message), hint=self.redact_text(outcome.hint))

    def redact_frame(self, value: Any) -> Any:
        """A frame from the process of a tool, without them."""
        if isinstance(value, str):
            return self.redact_text(value)
        return {name: self.redact_frame(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def judge_result(row: ToolRow, outcome: Done | Failed) -> Done | Failed:
    """The result, or why it is none. A tool that returns JSON (by its schema or its rule of errors) is held to it."""
    if isinstance(outcome, Failed) or not (row.spec.output_json or row.error_if):
        return outcome
    name = row.spec.name
    if outcome.truncated or len(outcome.text.encode("utf-8", "replace")) > row.max_output_bytes:
        message = f"{name} returned more than {row.max_output_bytes} bytes, and a part of its JSON cannot be read"
        return Failed(TOO_LARGE, message, "ask for less", effect="unknown")
    try:
        document = json.loads(outcome.text)
    except (ValueError, RecursionError) as error:
        return Failed(
            MALFORMED, f"{name} returned what is no JSON: {error}"[:MAX_TOLD_CHARS], OWNER_HINT, effect="unknown"
        )
    if row.error_if is not None:
        error_value = _value_at(document, row.error_if.pointer)
        wrong = error_value == row.error_if.equals if row.error_if.equals is not None else bool(error_value)
        if wrong:
            reason = _value_at(document, row.error_if.message) if row.error_if.message else error_value
            words = reason if isinstance(reason, str) else json.dumps(reason)
            message = f"{name} answered with an error: {words}"[:MAX_TOLD_CHARS]
            return Failed(ERROR_BODY, message, "what it answered says what to change", effect="unknown")
    if row.spec.output_json:
        for unfit in _schema_validator(row.spec.output_json).iter_errors(document):
            where = "/".join(str(part) for part in unfit.instance_path) or "its result"
            message = f"{name} returned what does not fit its output schema: {where}: {unfit.message}"[:MAX_TOLD_CHARS]
            return Failed(MALFORMED, message, OWNER_HINT, effect="unknown")
    return outcome


def find_sensitive_kinds(text: str) -> tuple[Sensitive, ...]:
    """Kinds of sensitive data in a text. Accounts and cards count where their checksums are right."""
    sensitive_kinds: set[Sensitive] = {
        kind for start, end, kind in find_personal_data(text) if kind != "iban" or is_iban(text[start:end])
    }
    sensitive_kinds |= {"key"} if has_keys(text) else set()
    sensitive_kinds |= {"secret"} if _MARK in text else set()
    return tuple(sorted(sensitive_kinds))


@lru_cache(maxsize=256)
def _schema_validator(text: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(text))


def _value_at(value: Any, pointer: str) -> Any:
    """The value at a pointer (RFC 6901); None where there is none."""
    for raw_part in pointer.split("/")[1:]:
        part = unescape_segment(raw_part)
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
