"""A workflow made of a task that went well: its plan as adopted, values in its texts replaced by parameters. Pure.

In: the task's document, the steps of its last plan, names with the values that become parameters. Out: a content.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead_contracts.task_options import TaskOptions
from bulkhead_contracts.workflow import FILLED_FIELDS, WorkflowContent

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_OF_RUN = frozenset({"workflow", "conversation", "written_by", "replan", "prompt_release"})


def save_task(
    task: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], parameters: Mapping[str, str]
) -> WorkflowContent:
    """The content. task: as GET /v1/tasks/{id} answers. Raises ValueError where it did not succeed, has no plan, or a
    value stands nowhere in it."""
    if task["status"] != "succeeded":
        raise ValueError(f"task {task['task_id']} has {task['status']}: save one that succeeded")
    if not steps:
        raise ValueError(f"task {task['task_id']} had no plan")
    if any(not step["instruction"] and step.get("kind") == "agent" for step in steps):
        raise ValueError("the words of its plan are kept back by the tenant's output policy")
    if not all(parameters.values()):
        raise ValueError(f"the value of {next(name for name, text in parameters.items() if not text)} is empty")
    # The longest first: a value may be a part of another.
    replaced = dict(sorted(parameters.items(), key=lambda row: -len(row[1])))
    document = {
        "objective": _replace_values(task["objective"], replaced),
        "steps": [{name: _replace_field(name, value, replaced) for name, value in step.items()} for step in steps],
        "parameters": [
            {"name": name, "kind": "number" if _NUMBER.fullmatch(text) else "text", "default": text}
            for name, text in parameters.items()
        ],
        "limits": task.get("limits") or {},
    }
    document |= {name: task[name] for name in TaskOptions.model_fields if task.get(name) and name not in _OF_RUN}
    document |= {} if task.get("check", True) else {"check": False}
    content = WorkflowContent.model_validate(document)
    if problems := content.list_problems():
        raise ValueError("; ".join(problems))
    return content


def _replace_field(field: str, value: Any, parameters: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replace_field(name, inner, parameters) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replace_field(field, inner, parameters) for inner in value]
    if field == "arguments_json":
        return json.dumps(_replace_argument(json.loads(value), parameters), ensure_ascii=False, sort_keys=True)
    return _replace_values(value, parameters) if isinstance(value, str) and field in FILLED_FIELDS else value


def _replace_argument(value: Any, parameters: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replace_argument(inner, parameters) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replace_argument(inner, parameters) for inner in value]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if isinstance(value, str):
        return _replace_values(value, parameters)
    return next((f"{{{{{name}}}}}" for name, text in parameters.items() if text == str(value)), value)


def _replace_values(text: str, parameters: Mapping[str, str]) -> str:
    """The text with each value replaced where it stands as a whole word; what was replaced is looked at no more."""
    if not parameters:
        return text
    names = {value: name for name, value in parameters.items()}
    pattern = "|".join(rf"(?<!\w){re.escape(value)}(?!\w)" for value in parameters.values())
    return re.sub(pattern, lambda match: f"{{{{{names[match[0]]}}}}}", text)
