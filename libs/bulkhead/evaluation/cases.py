"""Cases of an evaluation: objectives, their documents, and the checks that a right answer passes.

In: a file (YAML: a list, or an object with `cases`; JSONL: one case per line). Out: cases, or a CaseError that names
the case and the field.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import re2
import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bulkhead.grounding.personal_data import PersonalData
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds

MAX_CASES = 1_000
MAX_CHECKS = 32
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_NAMES = 64
MAX_TAGS = 16
Words = Annotated[str, Field(min_length=1, max_length=bounds.MAX_OBJECTIVE_CHARS)]
Names = Annotated[tuple[Words, ...], Field(min_length=1, max_length=MAX_NAMES)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class CaseError(ValueError):
    """A case file that cannot be used; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def compile_pattern(pattern: str) -> Any:
    """A pattern of RE2, whose time grows with the text alone. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


class ExpectedNumber(BaseModel):
    """A number that the answer names, give or take `tolerance`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Annotated[float, Field(allow_inf_nan=False)]
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class LengthBounds(BaseModel):
    """Length of an answer, without the markers of its citations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_words: Annotated[int, Field(ge=0)] = 0
    max_words: Annotated[int, Field(ge=0)] | None = None
    min_chars: Annotated[int, Field(ge=0)] = 0
    max_chars: Annotated[int, Field(ge=0)] | None = None


class ExpectedCall(BaseModel):
    """A call of a tool that the task makes. arguments: those that some call of it has, among others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: Words
    arguments: dict[str, Any] = {}


class Check(BaseModel):
    """One check of an answer: exactly one of the fields.

    contains, not_contains: a text, whatever its case and blanks. regex: of RE2, found anywhere. equals_number: one of
    the numbers in the answer. json_schema: of the answer as JSON, bare or in one fenced block. cites: a document's
    name. entities: names that all stand in the answer as whole words; forbidden: words that do not. personal_data:
    kinds that may stand in the answer. tool_called: a call that was made, and not refused; tool_not_called: a tool
    that was not even asked for. max_cost_usd, max_latency_s: of the task. answered: the mesh's own verdict, at least
    so good. judge: the name of one in `judges.yaml` beside the file of cases, or `grounded`, the shipped one, which
    passes the answer. reference_overlap: F1 of the words in common with the nearest reference (Rajpurkar 2016).
    python: `file.py:function` beside the file of cases; the function takes a CaseAnswer and returns True or "", or why
    the answer does not pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contains: Words | None = None
    not_contains: Words | None = None
    regex: Words | None = None
    equals_number: float | ExpectedNumber | None = None
    json_schema: dict[str, Any] | None = None
    cites: Words | None = None
    entities: Names | None = None
    forbidden: Names | None = None
    length: LengthBounds | None = None
    personal_data: tuple[PersonalData, ...] | None = None
    tool_called: Words | ExpectedCall | None = None
    tool_not_called: Words | None = None
    max_cost_usd: Positive | None = None
    max_latency_s: Positive | None = None
    answered: Literal["yes", "partly"] | None = None
    judge: Label | None = None
    reference_overlap: Annotated[float, Field(gt=0, le=1)] | None = None
    python: Annotated[str, Field(pattern=r"^[^:]{1,400}\.py:[A-Za-z_]\w{0,99}$")] | None = None

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        if len(self.model_fields_set) != 1 or self.kind == "":
            raise ValueError(f"must have exactly one of {', '.join(Check.model_fields)}")
        if self.regex is not None:
            try:
                compile_pattern(self.regex)
            except re2.error as error:
                reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
                raise ValueError(
                    f"regex {self.regex!r} is none: {reason}; RE2 has no lookaround and no backreferences"
                ) from error
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
        value_text = (
            value
            if isinstance(value, str)
            else json.dumps(self.model_dump(exclude_none=True, exclude_defaults=True)[self.kind])
        )
        return f"{self.kind}: {value_text}"[: bounds.MAX_SUMMARY_CHARS]


class EvaluationCase(BaseModel):
    """One objective (in a golden set `input`) and its checks.

    documents: paths, beside the case file, of what the tenant has to have. references: right answers, for people and
    for `reference_overlap`. tags: parts of the set that are told apart. origin: where the case is from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Label
    objective: Annotated[Words, Field(validation_alias=AliasChoices("objective", "input"))]
    documents: tuple[str, ...] = ()
    references: Annotated[tuple[Words, ...], Field(max_length=MAX_NAMES)] = ()
    checks: Annotated[tuple[Check, ...], Field(min_length=1, max_length=MAX_CHECKS)]
    tags: Annotated[tuple[Label, ...], Field(max_length=MAX_TAGS)] = ()
    origin: Annotated[str, Field(max_length=bounds.MAX_REASON_CHARS)] = ""

    @model_validator(mode="after")
    def _require_reference(self) -> Self:
        if not self.references and any(check.reference_overlap is not None for check in self.checks):
            raise ValueError("reference_overlap needs references, and there are none")
        return self

    @property
    def wants_judge(self) -> bool:
        """True when one of its checks is a judge's."""
        return any(check.judge is not None for check in self.checks)


FORM = 'write `- {name: late, objective: "What is refunded?", documents: [terms.md], checks: [{contains: "40 EUR"}]}`'


def load_rows(path: Path) -> list[tuple[str, object]]:
    """The rows of a file, each with its place in it: 1 to MAX_CASES. Raises CaseError."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _parse_json_lines(path, _read_text(path))
    else:
        document = load_yaml(path)
        listed = document.get("cases") if isinstance(document, dict) else document
        if not isinstance(listed, list):
            raise CaseError(f"{path} holds no list of cases", FORM)
        rows = [(f"case {number}", row) for number, row in enumerate(listed, 1)]
    if not 1 <= len(rows) <= MAX_CASES:
        raise CaseError(f"{path} has {len(rows)} cases", f"give 1 to {MAX_CASES:,}; {FORM}")
    return rows


def load_cases(path: Path) -> tuple[EvaluationCase, ...]:
    """The cases of a file, with the paths of their documents as they are from here. Raises CaseError."""
    cases = tuple(_parse_case(f"{path}, {where}", row) for where, row in load_rows(path))
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(f"{path}: several cases are called {', '.join(twice)}", "give each a name of its own")
    for case in cases:
        require_documents_beside(path, case.name, case.documents)
    return tuple(_with_paths(case, path.parent) for case in cases)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CaseError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes", "split it")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read: {error}", "name a YAML or JSONL file") from error


def require_documents_beside(path: Path, name: str, documents: Iterable[str]) -> None:
    """Documents are added to the tenant: a set of others must not name the user's own files. Raises CaseError."""
    folder = path.parent
    for document in documents:
        try:
            is_beside = (folder / document).resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError, ValueError):  # A circle of links, or a path that no file has.
            is_beside = False
        if Path(document).is_absolute() or not is_beside:
            raise CaseError(
                f"{path}, case {name}: the document {document!r} does not lie in the folder of the set",
                "copy it there, and name it by its path from there",
            )


def read_texts(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Texts of the documents of a set, by their paths from a folder. Raises CaseError for one that is no text."""
    texts = {}
    for name in names:
        try:
            texts[name] = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = "put it beside the file of cases, as UTF-8 text"
            raise CaseError(f"judges cannot read {folder / name}: {type(error).__name__}", hint) from error
    return texts


def _with_paths(case: EvaluationCase, folder: Path) -> EvaluationCase:
    documents = tuple(str(folder / document) for document in case.documents)
    checks = tuple(
        check if check.python is None else check.model_copy(update={"python": str(folder / check.python)})
        for check in case.checks
    )
    return case.model_copy(update={"documents": documents, "checks": checks})


@dataclass(frozen=True, slots=True)
class CaseDigests:
    """SHA-256 of each case by its name. wholes: of all that is judged; inputs: without the checks, which may be changed
    after a task has run, and be judged anew."""

    wholes: dict[str, str]
    inputs: dict[str, str]


def digest_cases(cases: Iterable[EvaluationCase], judges: Mapping[str, str]) -> CaseDigests:
    """Digests of the cases, with the contents of the files that they name; where they lie says nothing. judges: digests
    of their judges by name. Raises CaseError for a file that cannot be read."""
    contents: dict[str, str] = {}

    def digest_file(name: str) -> str:
        if name not in contents:
            try:
                contents[name] = hashlib.sha256(Path(name).read_bytes()).hexdigest()
            except OSError as error:
                raise CaseError(
                    f"{name} cannot be read: {error.strerror}", "put it beside the file of cases"
                ) from error
        return contents[name]

    digests = CaseDigests({}, {})
    for case in cases:
        row = case.model_dump(mode="json", exclude_unset=True, exclude={"documents", "tags", "origin"})
        row["documents"] = [[Path(name).name, digest_file(name)] for name in case.documents]
        inputs = {field: value for field, value in row.items() if field != "checks"}
        for check in row["checks"]:
            if code := check.get("python"):
                path, _, function = code.rpartition(":")
                check["python"] = [digest_file(path), function]
            if name := check.get("judge"):
                check["judge"] = [name, judges[name]]
        digests.wholes[case.name] = _digest_row(row)
        digests.inputs[case.name] = _digest_row(inputs)
    return digests


def _digest_row(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


class _AliasFreeLoader(yaml.SafeLoader):
    """YAML without aliases, few of which stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias, which a set may not have: write it out", mark)
        return super().compose_node(parent, index)


def load_yaml(path: Path) -> object:
    """The document of a YAML file without aliases. Raises CaseError."""
    try:
        return yaml.load(_read_text(path), _AliasFreeLoader)  # noqa: S506  # A SafeLoader.
    except (yaml.YAMLError, RecursionError) as error:
        raise CaseError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}", FORM) from error


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
