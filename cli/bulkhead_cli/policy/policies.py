"""The work of `bulkhead policy`.

In: a folder of policies, a file of tools, records. Out: text or JSON on standard output, and an exit code.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import bulkhead_infra
from bulkhead.policy.cedar import CedarPolicy, CedarPolicyError, CedarRule
from bulkhead.policy.decision import decide
from bulkhead.policy.records import (
    MAX_RECORD_BYTES,
    DecisionRecord,
    RecordError,
    build_proposal,
    read_record,
    ruling_document,
)
from bulkhead.policy.ruling import CallRuling
from bulkhead.tools import catalog
from bulkhead_cli.output import CommandError, Done, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_cli.tools.listing import named_packs
from bulkhead_contracts.provenance import Origin
from bulkhead_contracts.tool import ToolSpec
from bulkhead_infra.identity.config_folder import CONFIG_VARIABLE, POLICY

SHIPPED = Path(bulkhead_infra.__file__).parent / "policy"
Tools = Mapping[str, ToolSpec]
PAGE = "docs/how-to/policy.md shows the form"


@dataclass(frozen=True, slots=True)
class LoadedPolicies:
    """Policies with the tools that they were held against."""

    policy: CedarPolicy
    tools: Mapping[str, ToolSpec]


def tools_of(file: Path | None, packs: tuple[str, ...]) -> Tools:
    """Tools of the mesh, of packages (those of BULKHEAD_PACKS where none is named), and of a file. Raises
    CommandError.
    """
    try:
        rows = (*catalog.tool_rows(named_packs(packs)), *(catalog.file_rows(file) if file else ()))
    except ValueError as error:
        raise CommandError(Exit.USAGE, str(error), "mend the file of tools, or the name of the package") from error
    return {row.spec.name: row.spec for row in rows}


def own_policies() -> Path | None:
    """Folder of rules among files of one's own; None where there is none."""
    if not (named := os.environ.get(CONFIG_VARIABLE)):
        return None
    folder = Path(named) / POLICY
    return folder if folder.is_dir() else None


def load_policies(folder: Path | None, tools: Tools) -> LoadedPolicies:
    """Raises CommandError for a file that cannot be used."""
    try:
        return LoadedPolicies(
            CedarPolicy.load_folder(folder or own_policies() or SHIPPED, tools.values(), SHIPPED), tools
        )
    except CedarPolicyError as error:
        raise CommandError(Exit.FAILED, str(error), "mend the rule and check again", name="policy_error") from error


def read_records(path: Path) -> Iterator[DecisionRecord]:
    """The records of a file. Raises CommandError for the first line that is none."""
    for number, line in _read_lines(path):
        try:
            yield read_record(line)
        except RecordError as error:
            raise CommandError(Exit.USAGE, f"{path}:{number}: {error}", PAGE) from error


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_RECORD_BYTES + 1):
                number += 1
                if line.strip():
                    yield number, line
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}", "name a file of records") from error


def _decide_record(policies: LoadedPolicies, record: DecisionRecord) -> CallRuling:
    try:
        return decide(build_proposal(record, policies.tools), policies.policy)
    except RecordError as error:
        raise CommandError(Exit.USAGE, f"record {record.id or '?'}: {error}", PAGE) from error


def check_policies(policies: LoadedPolicies, *, as_json: bool) -> Done:
    """List the rules."""
    files = policies.policy.rules
    if as_json:
        rows = [{"file": name, "rules": [_rule_row(rule) for rule in rules]} for name, rules in files.items()]
        print_json({"ok": True, "policy_sha256": policies.policy.sha256, "tools": len(policies.tools), "files": rows})
        return None
    for name, rules in files.items():
        out.print(name, style="bold", markup=False)
        for rule in rules:
            asks = " (asks)" if rule.asks else ""
            out.print(f"  line {rule.line}: {rule.effect}{asks}  {rule.name}", markup=False)
    count = sum(map(len, files.values()))
    out.print(f"{count} rules fit {len(policies.tools)} tools; digest {policies.policy.sha256[:12]}", style="dim")
    return None


def compare_with_expected(policies: LoadedPolicies, records: Iterable[DecisionRecord], *, as_json: bool) -> Done:
    """Decide, and compare with what is expected."""
    rows = []
    for number, record in enumerate(records, 1):
        ruling = _decide_record(policies, record)
        ok = record.expect == ruling.effect or _rule_named(policies.policy, record) == ruling.rule
        rows.append({**ruling_document(ruling, record.id or str(number)), "expect": record.expect, "ok": ok})
    wrong = [row for row in rows if not row["ok"]]
    if as_json:
        print_json({"records": len(rows), "different": wrong})
    else:
        for row in wrong:
            out.print(
                f"{row['id']}: {row['effect']} by {row['rule']}, expected {row['expect'] or 'nothing'}", markup=False
            )
            out.print(f"  {row['reasons'][0] if row['reasons'] else ''}", style="dim", markup=False)
        out.print(f"{len(rows) - len(wrong)} of {len(rows)} records are decided as expected")
    return Exit.FAILED if wrong or not rows else None


def _rule_named(policy: CedarPolicy, record: DecisionRecord) -> str:
    """The rule that a record expects: a name without its file is whole where one rule of the tenant's bears it."""
    names = [rule.name for rule in policy.rules_of(record.grant.tenant)]
    bare = [name for name in names if name.partition(":")[2] == record.expect]
    return bare[0] if len(bare) == 1 and record.expect not in names else record.expect


def explain_decisions(policies: LoadedPolicies, records: Iterable[DecisionRecord], *, as_json: bool) -> Done:
    """Say what decided and why."""
    for number, record in enumerate(records, 1):
        call_proposal = build_proposal(record, policies.tools) if record.call.tool in policies.tools else None
        ruling = _decide_record(policies, record)
        rule = next(
            (candidate for candidate in policies.policy.rules_of(record.grant.tenant) if candidate.name == ruling.rule),
            None,
        )
        values = [
            {
                "argument": argument.pointer,
                "value": argument.text,
                "sources": [_describe_origin(origin) for origin in argument.origins],
            }
            for argument in (call_proposal.values if call_proposal else None) or ()
        ]
        if as_json:
            row = {**ruling_document(ruling, record.id or str(number)), "tenant": record.grant.tenant, "values": values}
            print_json({**row, "rule_at": _rule_row(rule) if rule else None})
            continue
        out.print(
            f"{record.id or number}: {record.call.tool} in tenant {record.grant.tenant}: {ruling.effect}, "
            f"risk {ruling.risk}",
            style="bold",
            markup=False,
        )
        where = f" ({rule.file}:{rule.line})" if rule else ""
        out.print(f"  decided by {ruling.rule}{where}{f', code {ruling.code}' if ruling.code else ''}", markup=False)
        for reason in ruling.reasons:
            out.print(f"  {reason}", markup=False)
        for value in values:
            sources = ", ".join(value["sources"]) or "nowhere in what was shown"
            out.print(f"  {value['argument']} = {value['value']}: {sources}", style="dim", markup=False)
    return None


def compare_policies(
    old: LoadedPolicies, new: LoadedPolicies, records: Iterable[DecisionRecord], *, as_json: bool
) -> Done:
    """Compare rules, and decisions about records."""
    before, after = _rules_by_name(old.policy), _rules_by_name(new.policy)
    changes = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in before.keys() & after.keys() if before[name].text != after[name].text),
    }
    decided = []
    for number, record in enumerate(records, 1):
        old_ruling, new_ruling = _decide_record(old, record), _decide_record(new, record)
        if (old_ruling.effect, old_ruling.rule) != (new_ruling.effect, new_ruling.rule):
            decided.append(
                {"id": record.id or str(number), "old": ruling_document(old_ruling), "new": ruling_document(new_ruling)}
            )
    if as_json:
        print_json({**changes, "decisions": decided})
    else:
        for kind, names in changes.items():
            for name in names:
                rule = after.get(name) or before[name]
                out.print(f"{kind} {name} ({rule.file}:{rule.line})", markup=False)
        for row in decided:
            sides = [f"{row[side]['effect']} by {row[side]['rule']}" for side in ("old", "new")]  # type: ignore[index]
            out.print(f"{row['id']}: {sides[0]} becomes {sides[1]}", markup=False)
        if not any(changes.values()) and not decided:
            out.print("no difference")
    return Exit.FAILED if any(changes.values()) or decided else None


def decide_all(policies: LoadedPolicies, path: Path) -> Done:
    """One line of JSON for each record."""
    failed = False
    for number, line in _read_lines(path):
        try:
            record = read_record(line)
            print_json(
                ruling_document(
                    decide(build_proposal(record, policies.tools), policies.policy), record.id or str(number)
                )
            )
        except RecordError as error:
            failed = True
            print_json({"id": str(number), "error": {"code": "malformed", "what": str(error), "hint": PAGE}})
    return Exit.FAILED if failed else None


def _rules_by_name(policy: CedarPolicy) -> dict[str, CedarRule]:
    return {rule.name: rule for rules in policy.rules.values() for rule in rules}


def _rule_row(rule: CedarRule) -> dict[str, object]:
    return {"rule": rule.name, "file": rule.file, "line": rule.line, "effect": rule.effect, "asks": rule.asks}


def _describe_origin(origin: Origin) -> str:
    name = f"{origin.source}:{origin.name}" if origin.name else origin.source
    place = f"{name} field {origin.field}" if origin.match == "field" and origin.field else name
    return f"{place}, found by the plan's rule" if origin.planned else place
