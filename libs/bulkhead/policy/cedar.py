"""Policies in Cedar: the files of a folder, checked when they are loaded, asked about each call.

In: `default.cedar` (the house's) and `<tenant>.cedar`, which are read together; the tools. Out: permit, ask or forbid,
with the rule that decided. Of the rules that apply, the first of these counts:

    forbid                       nobody may, whatever else permits it
    @effect("ask") forbid        a person must agree, whatever else permits it
    permit                       it is made
    @effect("ask") permit        a person must agree
    none                         it is forbidden
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from bulkhead.bounded_dict import BoundedDict
from bulkhead.policy import schema
from bulkhead.policy.ruling import Effect, Proposal
from bulkhead_contracts.tool import ToolSpec

HOUSE = "default"
SUFFIX = ".cedar"
MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 4_096
MAX_RULE_CHARS = 64
MAX_KNOWN = 4_096
"""Answers that are remembered, by the digest of the request."""
_ANNOTATED = re.compile(r"[A-Za-z0-9_.: -]{1,40}", re.ASCII)


class PolicyError(ValueError):
    """A policy that cannot be used; names file and line and says what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One statement of a file. name: its @id, with the file's; else its line."""

    name: str
    file: str
    line: int
    effect: str
    asks: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules say, and which decided. why: for people. broken: rules that could not be evaluated."""

    effect: Effect
    rule: str
    why: str
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of one tenant. ordinary: all but those that demand a person whatever permits."""

    ordinary: tuple[Rule, ...]
    demands: tuple[Rule, ...]
    ordinary_set: cedarpy.PolicySet
    demands_set: cedarpy.PolicySet | None


class Policy:
    """All policies of a mesh, ready to be asked. sha256: of all files."""

    def __init__(self, files: Mapping[str, str], tools: Iterable[ToolSpec]) -> None:
        """files: texts by name (`default.cedar`). Raises PolicyError for the first mistake."""
        if f"{HOUSE}{SUFFIX}" not in files:
            raise PolicyError(f"there is no {HOUSE}{SUFFIX}; it holds what is permitted in every tenant")
        try:
            self.schema = schema.render(tools)
        except ValueError as error:
            raise PolicyError(str(error)) from error
        self.files = dict(sorted(files.items()))
        self.sha256 = hashlib.sha256(json.dumps(self.files).encode()).hexdigest()
        parsed = cedarpy.Schema.from_str(self.schema)
        self.rules = {name: tuple(_rules(name, text, parsed)) for name, text in self.files.items()}
        self._tenants = {
            tenant: self._joined(tenant) for name in self.files if (tenant := name.removesuffix(SUFFIX)) != HOUSE
        }
        self._house = self._joined(HOUSE)
        self._answers: BoundedDict[str, Answer] = BoundedDict(MAX_KNOWN)
        self._trusted: BoundedDict[tuple[str, ...], bool] = BoundedDict(MAX_KNOWN)

    @classmethod
    def load(cls, folder: Path, tools: Iterable[ToolSpec]) -> "Policy":
        """The files of a folder. Raises PolicyError."""
        files: dict[str, str] = {}
        try:
            for path in sorted(folder.glob(f"*{SUFFIX}"))[: MAX_FILES + 1]:
                raw = path.read_bytes()
                if len(raw) > MAX_FILE_BYTES or len(files) == MAX_FILES:
                    raise PolicyError(f"{path}: at most {MAX_FILE_BYTES} bytes and {MAX_FILES} files are read")
                files[path.name] = raw.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"{folder}: {error}; policies are UTF-8 files that the service may read") from error
        if not files:
            raise PolicyError(f"{folder} holds no *{SUFFIX}; give the folder with {HOUSE}{SUFFIX}")
        return cls(files, tools)

    def call(self, proposal: Proposal, context: Mapping[str, Any]) -> Answer:
        """What the rules of the tenant say of a call."""
        request = schema.request(proposal, context)
        tool = proposal.tool
        who = json.dumps([schema.person(proposal), request, tool.effect, tool.egress, proposal.task.document_scopes])
        key = hashlib.sha256(who.encode()).hexdigest()
        if (known := self._answers.use(key)) is None:
            known = self._answers[key] = self._ask(proposal.task.tenant, request, schema.entities(proposal))
        return known

    def trusts(self, tenant: str, source: str, name: str, context: Mapping[str, str]) -> bool:
        """Whether a value of this source may be that argument, and nobody needs to be asked."""
        key = (tenant, source, name, *context.values())
        if (known := self._trusted.use(key)) is None:
            request = schema.flow_request(source, name, tenant, context)
            answer = self._ask(tenant, request, schema.flow_entities(source, name, tenant))
            known = self._trusted[key] = answer.effect == "permit"
        return known

    def rules_of(self, tenant: str) -> tuple[Rule, ...]:
        """The rules that apply in a tenant, the house's first."""
        own = self.rules.get(f"{tenant}{SUFFIX}", ()) if tenant != HOUSE else ()
        return (*self.rules[f"{HOUSE}{SUFFIX}"], *own)

    def _joined(self, tenant: str) -> _Rules:
        found = self.rules_of(tenant)
        twice = {rule.name for rule in found if sum(other.name == rule.name for other in found) > 1}
        if twice:
            second = [rule for rule in found if rule.name in twice][-1]
            raise PolicyError(
                f"{second.file}:{second.line}: a rule {second.name} stands here twice; give it another @id"
            )
        demands = tuple(rule for rule in found if rule.asks and rule.effect == "forbid")
        ordinary = tuple(rule for rule in found if rule not in demands)
        return _Rules(ordinary, demands, _set(ordinary), _set(demands) if demands else None)

    def _ask(self, tenant: str, request: dict[str, Any], entities: list[dict[str, Any]]) -> Answer:
        loaded = cedarpy.Entities.from_json_str(json.dumps(entities))
        return _answer(self._tenants.get(tenant, self._house), request, loaded)


def _set(rules: tuple[Rule, ...]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str("\n".join(rule.text for rule in rules))


def _answer(rules: _Rules, request: dict[str, Any], entities: cedarpy.Entities) -> Answer:
    decided = cedarpy.is_authorized(request, rules.ordinary_set, entities)
    matched = _named(rules.ordinary, decided.diagnostics.reasons)
    broken = _broken(rules.ordinary, decided.diagnostics.errors)
    if broken:
        # Cedar passes over a rule that it cannot evaluate, and a forbid that is passed over forbids nothing.
        return Answer("forbid", broken[0][:MAX_RULE_CHARS], "a rule cannot be evaluated on this call; mend it", broken)
    if not decided.allowed:
        if matched:
            return Answer("forbid", matched[0].name, f"rule {matched[0].name} forbids it")
        return Answer("forbid", "no_permit", "no rule permits it")
    if rules.demands_set is not None:
        demanded = cedarpy.is_authorized(request, rules.demands_set, entities)
        broken = _broken(rules.demands, demanded.diagnostics.errors)
        if asking := _named(rules.demands, demanded.diagnostics.reasons):
            return Answer("ask", asking[0].name, f"rule {asking[0].name} demands that a person agrees")
        if broken:
            return Answer("forbid", broken[0], "a rule cannot be evaluated on this call; mend it", broken)
    for rule in matched:
        if not rule.asks:
            return Answer("permit", rule.name, f"rule {rule.name} permits it")
    return Answer("ask", matched[0].name, f"rule {matched[0].name} permits it when a person agrees")


def _named(rules: tuple[Rule, ...], ids: Iterable[str]) -> list[Rule]:
    """Rules by Cedar's ids, `policy0` and on in the order of the text; the tenant's own before the house's."""
    return [rules[at] for at in sorted((int(one.removeprefix("policy")) for one in ids), reverse=True)]


def _broken(rules: tuple[Rule, ...], errors: Iterable[str]) -> tuple[str, ...]:
    found = [re.search(r"policy(\d+)", error) for error in errors]
    return tuple(rules[int(match[1])].name if match else "unknown" for match in found)


def _rules(file: str, text: str, parsed: cedarpy.Schema) -> Iterator[Rule]:
    for line, statement in statements(text):
        where = f"{file}:{line}"
        try:
            read = json.loads(cedarpy.policies_to_json_str(statement))
        except ValueError as error:
            raise PolicyError(f"{where}: {_said(error)}") from error
        if len(read["staticPolicies"]) != 1:
            raise PolicyError(f"{where}: a template is no rule; write principal and resource out")
        (rule,) = read["staticPolicies"].values()
        annotations = rule.get("annotations", {})
        if annotations.get("effect", "ask") != "ask":
            raise PolicyError(
                f'{where}: @effect({json.dumps(annotations["effect"])}) is unknown; @effect("ask") is known'
            )
        identity = annotations.get("id", f"line {line}")
        if not _ANNOTATED.fullmatch(identity):
            raise PolicyError(f"{where}: @id is 1 to 40 letters, digits and _ . : -")
        checked = cedarpy.validate_policies(statement, parsed)
        if not checked.validation_passed:
            raise PolicyError(f"{where}: {_said(checked.errors[0].error)}")
        name = f"{file.removesuffix(SUFFIX)[: MAX_RULE_CHARS - len(identity) - 1]}:{identity}"
        yield Rule(name, file, line, rule["effect"], "effect" in annotations, statement)


def _said(error: object) -> str:
    return re.sub(r"^(Policy parse error: |for policy `policy\d+`, )+", "", " ".join(str(error).split()))[:500]


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a policy file, with the line at which each begins."""
    token = re.compile(r'"(?:[^"\\]|\\.)*+"|//[^\n]*|;|[^\s"/;]+|\s+|.', re.S)
    begins, line, parts = 0, 1, list[str]()
    for match in token.finditer(text):
        piece = match[0]
        if not begins and not piece.isspace() and not piece.startswith("//"):
            begins = line
        if begins:
            parts.append(piece)
        line += piece.count("\n")
        if piece == ";":
            yield begins, "".join(parts)
            begins, parts = 0, []
    if begins:
        yield begins, "".join(parts)
