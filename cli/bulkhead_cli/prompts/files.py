"""Prompts as files, so that a repository of one's own can be their source.

In: `<prompt>.md`: YAML between two lines of ---, with owner and, where there are any, variables; then the text. Out:
the content of a version, or a CommandError that names file and field.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bulkhead.text.validation_errors import find_misfits
from bulkhead_cli.output import CommandError, Exit
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import PromptContent

FORM = (
    "a prompt's file begins with YAML between two lines of ---, with `owner:` and perhaps `variables:`; then the text"
)
MAX_FILE_BYTES = 4 * bounds.MAX_PROMPT_CHARS


def read_prompt_file(path: Path) -> tuple[PromptContent, str]:
    """Content and owner. Raises CommandError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommandError(Exit.USAGE, f"{path} is larger than {MAX_FILE_BYTES:,} bytes", "shorten the prompt")
        opening, front, text = path.read_text().split("---\n", 2)
        head = yaml.safe_load(front) or {}
        if opening or not isinstance(head, dict) or set(head) - {"owner", "variables"}:
            raise ValueError("the head has other fields than owner and variables")
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}", "check its path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise CommandError(Exit.USAGE, f"{path} is no prompt: {error}", FORM) from error
    try:
        content = PromptContent.model_validate({"text": text.strip() + "\n", "variables": head.get("variables") or ()})
    except ValidationError as error:
        raise CommandError(Exit.USAGE, f"{path}: {find_misfits(error, PromptContent)[0]}", FORM) from error
    return content, str(head.get("owner") or "")


def write_prompt_file(content: dict[str, Any], owner: str) -> str:
    """The file of a version."""
    head: dict[str, Any] = {"owner": owner}
    if content["variables"]:
        head["variables"] = [
            {name: value for name, value in variable.items() if value} for variable in content["variables"]
        ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{content['text']}"
