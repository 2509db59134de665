"""Prompts as files, so that a repository of one's own can be their source.

In: `<prompt>.md`: YAML between two lines of ---, with owner and, where there are any, review_by, variables, model,
parameters and output_schema; then the text. Out: the content of a version, or a CommandError that names file and field.
"""

from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from bulkhead.text.validation_errors import find_misfits
from bulkhead_cli.output import CommandError, Exit
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import PromptContent

CONTENT_FIELDS = ("variables", "model", "parameters", "output_schema")
FORM = (
    "a prompt's file begins with YAML between two lines of ---, with `owner:` and perhaps `review_by:`, "
    f"{', '.join(f'`{name}:`' for name in CONTENT_FIELDS)}; then the text"
)
MAX_FILE_BYTES = 4 * bounds.MAX_PROMPT_CHARS


class PromptFile(NamedTuple):
    """A file as it was read. review_by: "" where it names no day."""

    content: PromptContent
    owner: str
    review_by: str


def read_prompt_file(path: Path) -> PromptFile:
    """The content of a file, and who answers for it. Raises CommandError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommandError(Exit.USAGE, f"{path} is larger than {MAX_FILE_BYTES:,} bytes", "shorten the prompt")
        opening, front, text = path.read_text().split("---\n", 2)
        head = yaml.safe_load(front) or {}
        if opening or not isinstance(head, dict) or set(head) - {"owner", "review_by", *CONTENT_FIELDS}:
            raise ValueError(f"the head has other fields than owner, review_by, {', '.join(CONTENT_FIELDS)}")
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}", "check its path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise CommandError(Exit.USAGE, f"{path} is no prompt: {error}", FORM) from error
    try:
        fields = {name: head[name] for name in CONTENT_FIELDS if head.get(name)}
        content = PromptContent.model_validate({"text": text.strip() + "\n", **fields})
    except ValidationError as error:
        raise CommandError(Exit.USAGE, f"{path}: {find_misfits(error, PromptContent)[0]}", FORM) from error
    return PromptFile(content, str(head.get("owner") or ""), str(head.get("review_by") or ""))


def write_prompt_file(content: dict[str, Any], owner: str, review_by: str = "") -> str:
    """The file of a version."""
    head = {"owner": owner} | ({"review_by": review_by} if review_by else {})
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}{render_settings(content)}---\n{content['text']}"


def render_settings(content: dict[str, Any]) -> str:
    """Settings of a version beside its text, as YAML; "" where that is nothing."""
    head = {name: content[name] for name in CONTENT_FIELDS if content.get(name)}
    if "variables" in head:
        head["variables"] = [
            {name: value for name, value in variable.items() if value} for variable in content["variables"]
        ]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True) if head else ""
