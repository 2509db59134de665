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
from threading import Lock
from typing import Any

import cedarpy

from bulkhead.bounded_dict import BoundedDict
from bulkhead.policy import schema
from bulkhead.policy.rule_files import MAX_FILE_BYTES, MAX_FILES, MESH_POLICY, SUFFIX
from bulkhead.policy.ruling import CallProposal, Effect
from bulkhead_contracts.tool import ToolSpec

MAX_RULE_CHARS = 64
MAX_CACHED_ANSWERS = 4_096
"""Answers that are remembered, by the digest of the request."""
_OF_CALL = re.compile(r'"Var": "(principal|resource|context)"')
"""In the conditions of a rule as JSON: what is not the same for all calls of a tool."""
_SHOWN = re.compile(r"\bshown\b")
_ANNOTATED = re.compile(r"[A-Za-z0-9_.: -]{1,40}", re.ASCII)


class CedarPolicyError(ValueError):
    """A policy that cannot be used; names file and line and says what to do."""


@dataclass(frozen=True, slots=True)
class CedarRule:
    """One statement of a file. name: its @id, with the file's; else its line. actions: tools, groups of tools or `flow`
    that its head names; empty for all. is_conditional: it holds for some calls of one tool, and not for others."""

    name: str
    file: str
    line: int
    effect: str
    asks: bool
    text: str
    actions: frozenset[str] = frozenset()
    is_conditional: bool = False


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """Answer of the rules, and the rule that decided. why: for people. broken: rules that could not be evaluated."""

    effect: Effect
    rule: str
    why: str
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _TenantRules:
    """The rules of one tenant. ordinary: all but those that demand a person whatever permits. read_shown: one of them
    looks at the sources that an agent was shown."""

    ordinary: tuple[CedarRule, ...]
    demands: tuple[CedarRule, ...]
    ordinary_set: cedarpy.PolicySet
    demands_set: cedarpy.PolicySet | None
    read_shown: bool


class CedarPolicy:
    """All policies of a mesh, ready to be asked. sha256: of all files."""

    def __init__(self, files: Mapping[str, str], tools: Iterable[ToolSpec]) -> None:
        """files: texts by name (`default.cedar`). Raises CedarPolicyError for the first mistake."""
        if f"{MESH_POLICY}{SUFFIX}" not in files:
            raise CedarPolicyError(f"there is no {MESH_POLICY}{SUFFIX}; it holds what is permitted in every tenant")
        try:
            self.schema = schema.render_schema(tools)
        except ValueError as error:
            raise CedarPolicyError(str(error)) from error
        self.files = dict(sorted(files.items()))
        self.sha256 = hashlib.sha256(json.dumps(self.files).encode()).hexdigest()
        parsed = cedarpy.Schema.from_str(self.schema)
        self.rules = {name: tuple(_parse_rules(name, text, parsed)) for name, text in self.files.items()}
        self._tenants = {
            tenant: self._join_rules(tenant)
            for name in self.files
            if (tenant := name.removesuffix(SUFFIX)) != MESH_POLICY
        }
        self._mesh_rules = self._join_rules(MESH_POLICY)
        self._answers: BoundedDict[str, PolicyAnswer] = BoundedDict(MAX_CACHED_ANSWERS)
        self._trusted: BoundedDict[tuple[str, ...], bool] = BoundedDict(MAX_CACHED_ANSWERS)
        self._cache_lock = Lock()
        """Rulings on large calls are made in a thread."""

    @classmethod
    def load_folder(cls, folder: Path, tools: Iterable[ToolSpec], shipped: Path) -> "CedarPolicy":
        """The files of a folder; without a default.cedar, beside those of `shipped`, in whose place they stand by name.
        Raises CedarPolicyError."""
        files: dict[str, str] = {}
        try:
            paths = sorted(folder.glob(f"*{SUFFIX}"))[: MAX_FILES + 1]
            if paths and not (folder / f"{MESH_POLICY}{SUFFIX}").exists():
                own_names = {path.name for path in paths}
                paths += (path for path in sorted(shipped.glob(f"*{SUFFIX}")) if path.name not in own_names)
            for path in paths:
                raw = path.read_bytes()
                if len(raw) > MAX_FILE_BYTES or len(files) == MAX_FILES:
                    raise CedarPolicyError(f"{path}: at most {MAX_FILE_BYTES} bytes and {MAX_FILES} files are read")
                files[path.name] = raw.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise CedarPolicyError(f"{folder}: {error}; policies are UTF-8 files that the service may read") from error
        if not files:
            raise CedarPolicyError(f"{folder} holds no *{SUFFIX}; give the folder with the rules")
        return cls(files, tools)

    def rule_on_call(self, proposal: CallProposal, context: Mapping[str, Any]) -> PolicyAnswer:
        """Answer of the tenant's rules about a call."""
        request = schema.call_request(proposal, context)
        tool = proposal.tool
        who = json.dumps(
            [schema.person_attributes(proposal), request, tool.effect, tool.egress, proposal.task.document_scopes]
        )
        key = hashlib.sha256(who.encode()).hexdigest()
        with self._cache_lock:
            answer = self._answers.get_refreshed(key)
        if answer is None:
            answer = self._evaluate_rules(proposal.task.tenant, request, schema.call_entities(proposal))
            with self._cache_lock:
                self._answers[key] = answer
        return answer

    def trusts_source(self, tenant: str, source: str, name: str, context: Mapping[str, str]) -> bool:
        """True when a value of this source may be that argument, and nobody needs to be asked."""
        key = (tenant, source, name, *context.values())
        with self._cache_lock:
            is_trusted = self._trusted.get_refreshed(key)
        if is_trusted is None:
            request = schema.flow_request(source, name, tenant, context)
            answer = self._evaluate_rules(tenant, request, schema.flow_entities(source, name, tenant))
            is_trusted = answer.effect == "permit"
            with self._cache_lock:
                self._trusted[key] = is_trusted
        return is_trusted

    def reads_shown(self, tenant: str) -> bool:
        """True where a rule of the tenant looks at the sources that an agent was shown."""
        return self._joined_rules(tenant).read_shown

    def rules_of(self, tenant: str) -> tuple[CedarRule, ...]:
        """The rules that apply in a tenant, the house's first."""
        tenant_rules = self.rules.get(f"{tenant}{SUFFIX}", ()) if tenant != MESH_POLICY else ()
        return (*self.rules[f"{MESH_POLICY}{SUFFIX}"], *tenant_rules)

    def rules_about(self, tenant: str, tool: ToolSpec) -> tuple[CedarRule, ...]:
        """The tenant's rules that may decide about calls of a tool, and those on flows into its arguments."""
        actions = {tool.name, *schema.action_groups(tool)}
        return tuple(
            rule
            for rule in self.rules_of(tenant)
            if not rule.actions
            or actions & rule.actions
            or (schema.FLOW in rule.actions and tool.is_consequential and _names_tool(rule, tool))
        )

    def _join_rules(self, tenant: str) -> _TenantRules:
        rules = self.rules_of(tenant)
        twice = {rule.name for rule in rules if sum(candidate.name == rule.name for candidate in rules) > 1}
        if twice:
            second = [rule for rule in rules if rule.name in twice][-1]
            raise CedarPolicyError(
                f"{second.file}:{second.line}: a rule {second.name} stands here twice; give it another @id"
            )
        demands = tuple(rule for rule in rules if rule.asks and rule.effect == "forbid")
        ordinary = tuple(rule for rule in rules if rule not in demands)
        read_shown = any(_SHOWN.search(rule.text) for rule in rules)
        demands_set = _policy_set(demands) if demands else None
        return _TenantRules(ordinary, demands, _policy_set(ordinary), demands_set, read_shown)

    def _joined_rules(self, tenant: str) -> _TenantRules:
        return self._tenants.get(tenant, self._mesh_rules)

    def _evaluate_rules(self, tenant: str, request: dict[str, Any], entities: list[dict[str, Any]]) -> PolicyAnswer:
        loaded = cedarpy.Entities.from_json_str(json.dumps(entities))
        return _answer_request(self._joined_rules(tenant), request, loaded)


def _names_tool(rule: CedarRule, tool: ToolSpec) -> bool:
    """True of a rule on flows that speaks of no tool, or of this one."""
    return "context.tool" not in rule.text or json.dumps(tool.name) in rule.text


def _policy_set(rules: tuple[CedarRule, ...]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str("\n".join(rule.text for rule in rules))


def _answer_request(rules: _TenantRules, request: dict[str, Any], entities: cedarpy.Entities) -> PolicyAnswer:
    decided = cedarpy.is_authorized(request, rules.ordinary_set, entities)
    matched = _rules_by_id(rules.ordinary, decided.diagnostics.reasons)
    broken = _broken_rules(rules.ordinary, decided.diagnostics.errors)
    if broken:
        # Cedar passes over a rule that it cannot evaluate, and a forbid that is passed over forbids nothing.
        return PolicyAnswer(
            "forbid", broken[0][:MAX_RULE_CHARS], "a rule cannot be evaluated on this call; mend it", broken
        )
    if not decided.allowed:
        if matched:
            return PolicyAnswer("forbid", matched[0].name, f"rule {matched[0].name} forbids it")
        return PolicyAnswer("forbid", "no_permit", "no rule permits it")
    if rules.demands_set is not None:
        demanded = cedarpy.is_authorized(request, rules.demands_set, entities)
        broken = _broken_rules(rules.demands, demanded.diagnostics.errors)
        if asking := _rules_by_id(rules.demands, demanded.diagnostics.reasons):
            return PolicyAnswer("ask", asking[0].name, f"rule {asking[0].name} demands that a person agrees")
        if broken:
            return PolicyAnswer("forbid", broken[0], "a rule cannot be evaluated on this call; mend it", broken)
    for rule in matched:
        if not rule.asks:
            return PolicyAnswer("permit", rule.name, f"rule {rule.name} permits it")
    return PolicyAnswer("ask", matched[0].name, f"rule {matched[0].name} permits it when a person agrees")


def _rules_by_id(rules: tuple[CedarRule, ...], ids: Iterable[str]) -> list[CedarRule]:
    """Rules by Cedar's ids, `policy0` and on in the order of the text; the tenant's own before the house's."""
    return [
        rules[position] for position in sorted((int(rule_id.removeprefix("policy")) for rule_id in ids), reverse=True)
    ]


def _broken_rules(rules: tuple[CedarRule, ...], errors: Iterable[str]) -> tuple[str, ...]:
    matches = [re.search(r"policy(\d+)", error) for error in errors]
    return tuple(rules[int(match[1])].name if match else "unknown" for match in matches)


def _parse_rules(file: str, text: str, parsed: cedarpy.Schema) -> Iterator[CedarRule]:
    for line, statement in split_statements(text):
        where = f"{file}:{line}"
        try:
            document = json.loads(cedarpy.policies_to_json_str(statement))
        except ValueError as error:
            raise CedarPolicyError(f"{where}: {_error_text(error)}") from error
        if len(document["staticPolicies"]) != 1:
            raise CedarPolicyError(f"{where}: a template is no rule; write principal and resource out")
        (rule,) = document["staticPolicies"].values()
        annotations = rule.get("annotations", {})
        if annotations.get("effect", "ask") != "ask":
            raise CedarPolicyError(
                f'{where}: @effect({json.dumps(annotations["effect"])}) is unknown; @effect("ask") is known'
            )
        identity = annotations.get("id", f"line {line}")
        if not _ANNOTATED.fullmatch(identity):
            raise CedarPolicyError(f"{where}: @id is 1 to 40 letters, digits and _ . : -")
        checked = cedarpy.validate_policies(statement, parsed)
        if not checked.validation_passed:
            raise CedarPolicyError(f"{where}: {_error_text(checked.errors[0].error)}")
        name = f"{file.removesuffix(SUFFIX)[: MAX_RULE_CHARS - len(identity) - 1]}:{identity}"
        actions = _scope_actions(rule["action"])
        scopes = (rule["principal"]["op"], rule["resource"]["op"])
        conditional = scopes != ("All", "All") or bool(_OF_CALL.search(json.dumps(rule["conditions"])))
        yield CedarRule(name, file, line, rule["effect"], "effect" in annotations, statement, actions, conditional)


def _scope_actions(scope: Mapping[str, Any]) -> frozenset[str]:
    """Ids of the actions in the head of a rule; none where it is about all."""
    entities = scope.get("entities") or [entity for entity in (scope.get("entity"),) if entity]
    return frozenset(str((entity.get("__entity") or entity)["id"]) for entity in entities)


def _error_text(error: object) -> str:
    return re.sub(r"^(Policy parse error: |for policy `policy\d+`, )+", "", " ".join(str(error).split()))[:500]


def split_statements(text: str) -> Iterator[tuple[int, str]]:
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
