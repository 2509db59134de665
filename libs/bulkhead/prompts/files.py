"""Prompts that are shipped are versioned files in `shipped/`. Enters: an id, with or without `@version`. Leaves: text
and digest.

`<id>@<n>.md`, there and in packs' `prompts/`, has YAML front matter (id, version, description, owner); the rest is the
system message. A released file never changes: a change is a new number. `<form>.schema.json` are the structured
answers' schemas. `<id>.short@<n>.md` and `<form>.short.schema.json` are variants for small models, in a few lines.
`<id>.roles@<n>.md` and `<id>.roles.short@<n>.md` are for plans that may choose delegated roles, which then stand
in the schema.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulkhead.tools import packs as packages
from bulkhead_contracts.plan import WORKER_ROLE
from bulkhead_contracts.prompt import PromptContent, version_name

PROMPTS = Path(__file__).parent / "shipped"
MAX_PROMPT_BYTES = 32 * 1024
Form = Literal["plan", "verdict"]
Style = Literal["full", "short"]
SHORT, ROLES = ".short", ".roles"


class PromptError(ValueError):
    """A prompt file that cannot be used: names the file and what to mend."""


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z_]+(\.[a-z_]+)*$", max_length=48)
    version: int = Field(ge=1)
    description: str = Field(min_length=1, max_length=200)
    owner: str = Field(min_length=1, max_length=64)


@dataclass(frozen=True, slots=True)
class PromptText:
    """One version of a prompt. digest: sha256 of the whole file, front matter too. released: content of a
    tenant's own, whose digest is that of the content."""

    id: str
    version: int
    description: str
    owner: str
    text: str
    digest: str
    released: PromptContent | None = None

    @property
    def name(self) -> str:
        """`worker.step@1`; of a tenant's own `worker.step@r1`."""
        return version_name(self.id, self.version) if self.released else f"{self.id}@{self.version}"


class Prompts:
    """Every prompt, read once; a damaged file stops the service at start and not in the middle of a task."""

    def __init__(self, folder: Path = PROMPTS, packs: Iterable[str] = ()) -> None:
        """packs: packages whose prompts are taken too. Raises PromptError, PackError (both ValueError)."""
        self._found: dict[str, dict[int, PromptText]] = {}
        folders = [folder, *(packages.folder(name) / packages.PROMPTS_FOLDER for name in packs)]
        folder_of_prompt: dict[str, Path] = {}
        for path in (path for prompt_folder in folders for path in sorted(prompt_folder.glob("*.md"))):
            prompt = _read_prompt(path)
            # A newer version from elsewhere would be taken in place of ours, by every step that names no version.
            if folder_of_prompt.setdefault(prompt.id, path.parent) != path.parent:
                raise PromptError(
                    f"prompt {path}: {folder_of_prompt[prompt.id]} has {prompt.id} already; give it another name"
                )
            self._found.setdefault(prompt.id, {})[prompt.version] = prompt
        if not self._found:
            raise PromptError(f"no prompts in {folder}; the installation is not whole, install it again")
        self.schemas: dict[Form, dict[str, Any]] = {
            form: json.loads((folder / f"{form}.schema.json").read_text()) for form in ("plan", "verdict")
        }
        short = {form: folder / f"{form}{SHORT}.schema.json" for form in self.schemas}
        self._short = {form: json.loads(path.read_text()) for form, path in short.items() if path.is_file()}

    def find_prompt(self, name: str, style: Style = "full", *, roles: bool = False) -> PromptText | None:
        """The named version, or the newest one when the name has none; None when there is no such prompt.

        style `short`: the newest short variant, where there is one and no version is named. roles: so the variant that
        speaks of delegated roles.
        """
        prompt_id, _, version = name.partition("@")
        for is_wanted, variant in ((roles, ROLES), (style == "short", SHORT)):
            if is_wanted and not version and prompt_id + variant in self._found:
                prompt_id += variant
        versions = self._found.get(prompt_id)
        if not versions:
            return None
        if not version:
            return versions[max(versions)]
        return versions.get(int(version)) if version.isdecimal() else None

    def newest_of_each(self) -> tuple[PromptText, ...]:
        """The newest version of every prompt, by id; variants are prompts of their own."""
        return tuple(versions[max(versions)] for _, versions in sorted(self._found.items()))

    def schema_of(self, form: Form, style: Style = "full", *, roles: Sequence[str] = ()) -> dict[str, Any]:
        """The schema of a structured answer; the short one allows less, and leaves out what bounds a step.

        roles: one of which each step of a plan names, or the worker's.
        """
        schema = self._short.get(form, self.schemas[form]) if style == "short" else self.schemas[form]
        return _with_roles(schema, roles) if form == "plan" and roles else schema

    @property
    def largest_bytes(self) -> int:
        """Size of the longest prompt with its schema, as the least that a model must have room for. Variants for
        delegated roles are not counted: a mesh without such roles sends none."""
        schemas = max(len(json.dumps(schema)) for schema in self.schemas.values())
        counted_prompts = (
            prompt
            for name in self._found
            if not name.removesuffix(SHORT).endswith(ROLES) and (prompt := self.find_prompt(name))
        )
        return max(len(prompt.text.encode()) for prompt in counted_prompts) + schemas

    @property
    def names(self) -> tuple[str, ...]:
        """All prompts as `id@version`."""
        return tuple(prompt.name for versions in self._found.values() for prompt in versions.values())


def _with_roles(schema: Mapping[str, Any], roles: Sequence[str]) -> dict[str, Any]:
    """A plan's schema whose steps name a role; strict mode knows no field that may be absent."""
    role_schema: dict[str, Any] = copy.deepcopy(dict(schema))
    step = role_schema["properties"]["steps"]["items"]
    step["required"].append("role")
    step["properties"]["role"] = {"type": "string", "enum": list(dict.fromkeys((WORKER_ROLE, *roles)))}
    return role_schema


def _read_prompt(path: Path) -> PromptText:
    raw = path.read_bytes()
    if len(raw) > MAX_PROMPT_BYTES:
        raise PromptError(f"prompt {path.name} has {len(raw)} bytes; at most {MAX_PROMPT_BYTES} are read")
    try:
        opening, front, body = raw.decode().split("---\n", 2)
        head = _FrontMatter.model_validate(yaml.safe_load(front))
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, ValidationError) as error:
        raise PromptError(
            f"prompt {path.name} is malformed: {error}; it begins with YAML between two lines of ---, with id, "
            "version, description and owner"
        ) from error
    if opening or path.name != f"{head.id}@{head.version}.md":
        raise PromptError(f"prompt {path.name} says it is {head.id}@{head.version}; name and front matter must agree")
    digest = hashlib.sha256(raw).hexdigest()
    return PromptText(head.id, head.version, head.description, head.owner, body.strip() + "\n", digest)
