"""Cases of an evaluation: objectives, their documents, and the checks that a right answer passes.

In: a file (YAML: a list, or an object with `cases`; JSONL: one case per line). Out: cases, or a CaseError that names
the case and the field.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds

MAX_CASES = 1_000
MAX_CHECKS = 32
MAX_FILE_BYTES = 16 * 1024 * 1024
Words = Annotated[str, Field(min_length=1, max_length=bounds.MAX_OBJECTIVE_CHARS)]


class CaseError(ValueError):
    """A case file that cannot be used; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class ExpectedNumber(BaseModel):
    """A number that the answer names, give or take `tolerance`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Annotated[float, Field(allow_inf_nan=False)]
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Check(BaseModel):
    """One check of an answer: exactly one of the fields.

    contains, not_contains: a text, whatever its case and blanks. regex: found anywhere. equals_number: one of the
    numbers in the answer. json_schema: of the answer as JSON, bare or in one fenced block. cites: a document's name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contains: Words | None = None
    not_contains: Words | None = None
    regex: Words | None = None
    equals_number: float | ExpectedNumber | None = None
    json_schema: dict[str, Any] | None = None
    cites: Words | None = None

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        if len(self.model_fields_set) != 1 or self.kind == "":
            raise ValueError(f"must have exactly one of {', '.join(Check.model_fields)}")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is none: {error}") from error
        if self.json_schema is not None:
            import jsonschema_rs

            try:
                jsonschema_rs.validator_for(self.json_schema)
            except ValueError as error:
                raise ValueError(f"json_schema is no schema: {str(error).splitlines()[0][:200]}") from error
        return self

    @property
    def kind(self) -> str:
        """The name of the field that is set."""
        return next((name for name in Check.model_fields if getattr(self, name) is not None), "")

    def __str__(self) -> str:
        value = getattr(self, self.kind)
        value_text = value if isinstance(value, str) else json.dumps(self.model_dump(exclude_none=True)[self.kind])
        return f"{self.kind}: {value_text}"[: bounds.MAX_SUMMARY_CHARS]


class EvaluationCase(BaseModel):
    """One objective and its checks. documents: paths, beside the case file, of what the tenant has to have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    objective: Words
    documents: tuple[str, ...] = ()
    checks: Annotated[tuple[Check, ...], Field(min_length=1, max_length=MAX_CHECKS)]


FORM = 'write `- {name: late, objective: "What is refunded?", documents: [terms.md], checks: [{contains: "40 EUR"}]}`'


def load_cases(path: Path) -> tuple[EvaluationCase, ...]:
    """The cases of a file, with the paths of their documents as they are from here. Raises CaseError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CaseError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes", "split it")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read: {error}", "name a YAML or JSONL file of cases") from error
    rows = _parse_json_lines(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _parse_yaml(path, text)
    if not 1 <= len(rows) <= MAX_CASES:
        raise CaseError(f"{path} has {len(rows)} cases", f"give 1 to {MAX_CASES:,}; {FORM}")
    cases = tuple(_parse_case(f"{path}, {where}", row) for where, row in rows)
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(f"{path}: several cases are called {', '.join(twice)}", "give each a name of its own")
    beside = path.parent
    return tuple(
        case.model_copy(update={"documents": tuple(str(beside / document) for document in case.documents)})
        for case in cases
    )


def _parse_yaml(path: Path, text: str) -> list[tuple[str, object]]:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise CaseError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}", FORM) from error
    rows = document.get("cases") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise CaseError(f"{path} holds no list of cases", FORM)
    return [(f"case {number}", row) for number, row in enumerate(rows, 1)]


def _parse_json_lines(path: Path, text: str) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append((f"line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise CaseError(
                f"{path}, line {number} is no JSON: {error}", "write one case as JSON on each line"
            ) from error
    return rows


def _parse_case(where: str, row: object) -> EvaluationCase:
    try:
        return EvaluationCase.model_validate(row)
    except ValidationError as error:
        named = f" ({row['name']})" if isinstance(row, dict) and isinstance(row.get("name"), str) else ""
        raise CaseError(f"{where}{named}: {find_misfits(error, EvaluationCase)[0]}", FORM) from error
