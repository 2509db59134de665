"""The decision about a call: one pure function of a proposal and a policy.

In: a CallProposal. Out: a CallRuling. The stages, of which the first that forbids ends it: the grants and their bounds,
the isolation that the tool wants, the rules in Cedar, the values in sinks. What none forbids is asked about when one
of the last two asks, and permitted otherwise.
"""

from typing import get_args

from bulkhead.policy.cedar import CedarPolicy, PolicyAnswer
from bulkhead.policy.constraints import Constraint, ConstraintError, find_violated
from bulkhead.policy.ruling import CallProposal, CallRuling, Effect, Risk
from bulkhead.policy.schema import RESERVED, UnfitArguments, arguments_of, declared_arguments
from bulkhead.policy.sinks import Taint, find_taint, sinks_of
from bulkhead_contracts.plan import ASK_PERSON
from bulkhead_contracts.provenance import Isolation
from bulkhead_contracts.tool import ToolSpec

ISOLATION: tuple[Isolation, ...] = get_args(Isolation)
_GRAVE = frozenset(("account", "amount", "code"))


def decide(proposal: CallProposal, policy: CedarPolicy) -> CallRuling:
    """The ruling on a call: whether it is made, asked about, or refused, and why."""
    risk = risk_of(proposal.tool)

    def forbid_call(rule: str, code: str, why: str) -> CallRuling:
        return CallRuling("forbid", rule, policy.sha256, risk, code, (why,))

    if refusal := _beyond_grants(proposal, policy):
        return forbid_call("grant", *refusal)
    tool = proposal.tool
    if ISOLATION.index(proposal.isolation) < ISOLATION.index(tool.isolation):
        shortfall = f"{tool.name} wants isolation {tool.isolation} at least, and there is {proposal.isolation} here"
        return forbid_call("isolation", "isolation_too_low", f"{shortfall}; `bulkhead doctor` says what is missing")
    call_taint = find_taint(proposal, policy)
    try:
        context = _cedar_context(proposal, call_taint, risk)
    except UnfitArguments as error:
        return forbid_call("arguments", "unfit_arguments", f"the arguments of {tool.name} do not fit: {error}")
    answer = policy.rule_on_call(proposal, context)
    return _combine_rulings(answer, call_taint, policy, risk, proposal)


def risk_of(tool: ToolSpec) -> Risk:
    """low: a read in the house. high: a write that cannot be repeated or moves money, and code. medium: others."""
    if tool.effect == "read" and not tool.egress and not any(sink.kind == "code" for sink in tool.sinks):
        return "low"
    grave = any(sink.kind in _GRAVE for sink in tool.sinks)
    return "high" if grave or tool.four_eyes or (tool.effect == "write" and not tool.idempotent) else "medium"


def _beyond_grants(proposal: CallProposal, policy: CedarPolicy) -> tuple[str, str] | None:
    """Code and reason where the call is more than the grants allow."""
    tool, name = proposal.tool, proposal.tool.name
    granted = set(proposal.task.tools) & set(proposal.step.tools if proposal.step is not None else proposal.task.tools)
    if name not in granted or name in RESERVED:
        granted_names = ", ".join(sorted(granted)) or "no tool"
        return "not_granted", f"the grant does not name {name}; it names {granted_names}"
    if tool.most_calls and proposal.calls_before >= tool.most_calls:
        begun_calls = f"{proposal.calls_before} calls of {name} were begun in this task"
        return "too_many_calls", f"{begun_calls}, and {tool.most_calls} are allowed"
    try:
        of_step = proposal.step.constraints if proposal.step is not None else ()
        texts = dict.fromkeys((*proposal.task.constraints, *of_step, *proposal.constraints))
        constraints = [Constraint.parse(text) for text in texts]
    except ConstraintError as error:
        return "malformed_grant", f"a constraint of the grant cannot be read: {error}"
    if broken := find_violated(constraints, proposal, policy):
        return "constraint", f"the grant demands `{broken}`"
    return None


def _cedar_context(proposal: CallProposal, taint: Taint, risk: Risk) -> dict[str, object]:
    declared = declared_arguments(proposal.tool)
    return {
        "arguments": arguments_of(proposal.tool, proposal.arguments),
        "sources": {name: sorted(origins) for name, origins in taint.sources.items() if name in declared},
        "tainted": sorted(taint.pointers),
        "risk": risk,
        "isolation": proposal.isolation,
        "least": proposal.least_trusted,
        "shown": sorted(proposal.shown),
        "spent_usd_micros": proposal.spent_usd_micros,
        "calls_before": proposal.calls_before,
    }


def _combine_rulings(
    answer: PolicyAnswer, taint: Taint, policy: CedarPolicy, risk: Risk, proposal: CallProposal
) -> CallRuling:
    tool, step = proposal.tool, proposal.step
    values = tuple(finding.why for finding in taint.findings)
    effect: Effect = answer.effect
    rule, code, reasons = answer.rule, "", [answer.why]
    if effect == "forbid":
        code = "policy"
        reasons = [f"{tool.name}: {answer.why}", *values]
    elif taint.code:
        effect, rule, code, reasons = "forbid", "taint", "tainted_code", list(values)
    elif tool.name == ASK_PERSON:
        # It is made to be asked about: no rule of a tenant answers in a person's place.
        rule = "question" if effect == "permit" else rule
        effect = "ask"
        reasons = [f"{'the plan' if step is not None and step.question_sha256 else 'an agent'} asks a person", *values]
    elif taint.findings:
        if effect == "permit":
            rule = "taint"
        effect, reasons = "ask", [*values, answer.why]
    if effect == "ask":
        reasons += taint.chosen
    return CallRuling(effect, rule, policy.sha256, risk, code, tuple(reasons[:32]), taint.findings)


__all__ = ["decide", "risk_of", "sinks_of"]
