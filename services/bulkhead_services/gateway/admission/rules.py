"""A tenant's rules for what comes in: whether a request may run at all. Pure."""

import unicodedata

from bulkhead.grounding.personal_data import find_personal_data
from bulkhead.grounding.rules import find_forbidden_phrase
from bulkhead_contracts import subjects
from bulkhead_contracts.output import DRAFT, InputPolicy, OutputPolicy
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.task import TaskRequested

LAYOUT = dict.fromkeys(map(ord, "\t\n\v\f\r"), " ")


def unreadable_reason(objective: str) -> str:
    """Why nobody can read an objective; "" when somebody can."""
    kinds = {unicodedata.category(char) for char in objective.translate(LAYOUT)}
    if kinds & {"Cc", "Cs"}:
        return "the objective holds control characters"
    return "" if any(kind[0] not in "CZ" for kind in kinds) else "the objective says nothing: it has blanks alone"


def refuse_misplaced_plan(sender: str, request: TaskRequested) -> tuple[str, str, str] | None:
    """Why this sender may not ask for such a plan: adopted steps are for doors, which may ask for one, and no more."""
    steps = request.plan.steps if request.plan is not None else ()
    if sender != subjects.DOORS:
        if not any(step.adopted for step in steps):
            return None
        message = "a step of the plan is adopted, and only doors may ask for one"
        return "forbidden", message, "leave `adopted` out; an agent of yours opens its task by calling doors"
    plan_alone = not (request.check or request.fork or request.tools) and request.replan == "none"
    if plan_alone and len(steps) == 1 and _is_bare(steps[0]):
        return None
    message = "doors may ask for a plan of one adopted step alone, without check, fork or another plan"
    return "forbidden", message, "this is a bug or an attack: look at the log of doors"


def _is_bare(step: PlanStep) -> bool:
    return step.adopted and step.kind == "noop" and not (step.inputs or step.flows)


def _has_rules(policy: InputPolicy | None, output: OutputPolicy) -> bool:
    of_answers = output.model_copy(update={"unverified": DRAFT.unverified}) != DRAFT
    return of_answers or (policy is not None and policy != InputPolicy())


def find_broken_rule(
    request: TaskRequested, policy: InputPolicy | None, output: OutputPolicy
) -> tuple[str, str, str] | None:
    """Code, message and hint of the rule that a request breaks; None when it may run."""
    if reason := unreadable_reason(request.objective):
        return "unreadable_objective", reason, "say in plain text what is wanted"
    steps = request.plan.steps if request.plan is not None else ()
    if any(step.adopted for step in steps) and _has_rules(policy, output):
        # What an agent asks after its objective, and what it is answered, passes nobody who knows these rules.
        message = "this tenant has rules for what is asked or answered, and nobody holds an outside agent to them"
        return "check_needed", message, "call with a key of another tenant, or have this one's policy changed"
    if output.delivery != "draft" and not request.check:
        message = f"answers of this tenant are delivered `{output.delivery}`, and a task without a check cannot be"
        return "check_needed", message, "submit it with its check"
    if output.delivery != "draft" and request.fork is not None:
        message = f"the answer would be delivered `{output.delivery}`; results of another task were not checked for it"
        return "fork_not_checked", message, "submit the objective anew"
    if policy is None:
        return None
    text = "\n".join((request.objective, *(f"{step.title}\n{step.instruction}\n{step.acceptance}" for step in steps)))
    if policy.forbidden and find_forbidden_phrase(text, policy.forbidden):
        message = "a rule of the tenant forbids what the objective or the plan says"
        return "forbidden_input", message, "say it in other words, or have the tenant's policy changed"
    if policy.personal_data == "refuse" and find_personal_data(text):
        message = "the objective or the plan holds personal data (an address, an account, card or telephone number)"
        return "personal_data", message, "leave it out, or refer to a document that holds it"
    return None
