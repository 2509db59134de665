"""Workflows as files of YAML, so that people can read, change and keep them; and their JSON schema, for editors.

In: the text of a file. Out: the content of a version, or the reason why it is none. The arguments of a call stand as
YAML there, and not as JSON within a text.
"""

import json
from typing import Any

import yaml
from pydantic import ValidationError

from bulkhead.flow import bounded
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import ACTION_FIELDS
from bulkhead_contracts.workflow import WorkflowContent

MAX_FILE_BYTES = 2 * bounds.MAX_WORKFLOW_BYTES
SCHEMA_ID = "bulkhead-workflow.schema.json"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stand as such."""


class _Loader(yaml.SafeLoader):
    """Without aliases, which a few lines can make gigabytes of; and without a key that is there twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias stands in line {self.line + 1}: write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise yaml.YAMLError(f"{repeated} is there twice, in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def read_workflow(text: str) -> WorkflowContent:
    """The content of a file. Raises ValueError, which names the place."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that takes less
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())[:300]}") from error
    try:
        return WorkflowContent.model_validate(_with_json_arguments(document))
    except ValidationError as error:
        raise ValueError("; ".join(str(misfit) for misfit in find_misfits(error, WorkflowContent)[:5])) from error


def write_workflow(content: WorkflowContent) -> str:
    """The file of a content; read again it is the same content."""
    document = content.to_document()
    for step, written in zip(document["steps"], content.steps, strict=True):
        if any(step.get(name) for name in ACTION_FIELDS):
            step.pop("kind", None)
        if written.called_tool and written.tools == (written.called_tool,):
            del step["tools"]
        if "call" in step:
            arguments = json.loads(step["call"].pop("arguments_json", "{}"))
            step["call"] |= {"arguments": arguments} if arguments else {}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def workflow_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a file."""
    schema = WorkflowContent.model_json_schema()
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False  # What a reader would ignore is a slip in a file.
    call = schema["$defs"]["StepCall"]
    del call["properties"]["arguments_json"]
    call["properties"]["arguments"] = {"type": "object", "description": "Arguments, in which parameters may stand."}
    call["description"] = call["description"].replace("arguments_json: an object", "arguments: an object")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID} | schema


def _with_json_arguments(document: Any) -> Any:
    """The document with the arguments of its calls as canonical JSON."""
    steps = document.get("steps") if isinstance(document, dict) else None
    for step in steps if isinstance(steps, list) else ():
        call = step.get("call") if isinstance(step, dict) else None
        if isinstance(call, dict) and "arguments_json" in call:
            raise ValueError(f"step {step.get('id')}: write `arguments`, as YAML, and no `arguments_json`")
        if isinstance(call, dict):
            arguments = call.pop("arguments", {})
            if not isinstance(arguments, dict):
                raise ValueError(f"step {step.get('id')}: `arguments` holds no names and values")
            try:
                text = json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            except TypeError as error:
                raise ValueError(f"step {step.get('id')}: write days and times between quotes: {error}") from error
            bounded.load_json(text)
            call["arguments_json"] = text
    return document
