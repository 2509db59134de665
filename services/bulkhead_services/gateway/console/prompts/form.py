"""The forms of the rooms of prompts, pure: fields become the body of a request, and its faults are told in words.

In: fields of a form. Out: the content of a version with its faults, the values of a release.
"""

import json
import re

from pydantic import ValidationError

from bulkhead.flow import bounded
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import ModelParameters, PromptContent
from bulkhead_services.gateway.console.api import Json

PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]{0,31})\}\}")
"""A place in a text that a variable can be declared for."""
PARAMETERS = tuple(ModelParameters.model_fields)
VARIABLE_FIELDS = ("name", "kind", "choices", "default", "description")
"""Fields of a row; each has the row's number behind it, `name-0`."""


def content_of(form: dict[str, str]) -> Json:
    """A content as it was typed. A row without a name is none."""
    rows = [
        {field: form.get(f"{field}-{number}", "") for field in VARIABLE_FIELDS}
        for number in range(bounds.MAX_PROMPT_VARIABLES)
    ]
    text = form.get("text", "")
    variables = [
        row
        | {
            "kind": row["kind"] or "text",
            "choices": [choice.strip() for choice in row["choices"].split("\n") if choice.strip()]
            if row["kind"] == "choice"
            else [],
        }
        for row in rows
        if row["name"]
    ]
    content: Json = {"text": f"{text}\n" if text else "", "variables": variables}
    parameters = {name: form[name].strip() for name in PARAMETERS if form.get(name, "").strip()}
    settings: Json = {"model": form.get("model", "").strip(), "parameters": parameters}
    if schema := form.get("output_schema", "").strip():
        settings["output_schema"] = _read_schema(schema)
    return content | {name: value for name, value in settings.items() if value}


def _read_schema(text: str) -> object:
    """A schema as it was typed; the text itself, which no content takes, where it is no JSON."""
    try:
        return bounded.load_json(text)
    except ValueError:
        return text


def show_settings(content: Json) -> Json:
    """Model, parameters and schema of a content for the form; "" each where there is none."""
    schema = content.get("output_schema", "")
    settings = {"model": content.get("model", "")} | dict.fromkeys(PARAMETERS, "")
    settings |= content.get("parameters", {})
    return settings | {"output_schema": schema if isinstance(schema, str) else json.dumps(schema, indent=2)}


def rows_of(content: Json) -> list[Json]:
    """Rows of the form for the variables of a content, and one for a new variable where there is room."""
    rows = [variable | {"choices": "\n".join(variable["choices"])} for variable in content["variables"]]
    empty = dict.fromkeys(VARIABLE_FIELDS, "")
    return [*rows, *([empty] if len(rows) < bounds.MAX_PROMPT_VARIABLES else [])]


def find_problems(content: Json) -> list[str]:
    """Faults for which the registry would refuse it; [] without any."""
    try:
        return list(PromptContent.model_validate(content).list_problems())
    except ValidationError as error:
        return [str(misfit) for misfit in find_misfits(error, PromptContent)]


def undeclared_names(content: Json) -> list[str]:
    """Names that stand in the text between braces and that no variable has."""
    declared = {variable["name"] for variable in content["variables"]}
    return sorted(set(PLACEHOLDER.findall(content["text"])) - declared)


def values_of(form: dict[str, str], variables: list[Json]) -> dict[str, str]:
    """Values of the form that are not the variable's default."""
    typed = {variable["name"]: form.get(f"value-{variable['name']}", "") for variable in variables}
    return {
        variable["name"]: typed[variable["name"]]
        for variable in variables
        if typed[variable["name"]] not in ("", variable["default"])
    }


def share_of(form: dict[str, str]) -> Json:
    """The share of a canary, or that everybody gets it."""
    if form.get("share") != "some":
        return {"percent": 0}
    percent = form.get("percent", "")
    number = int(percent) if percent.isascii() and percent.isdigit() and len(percent) < 4 else 0
    # 0 would be everybody: what is no share is refused by the API, as 99 is.
    return {"percent": number or 99, "sticky_by": "person" if form.get("sticky_by") == "person" else "task"}
