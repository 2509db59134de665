"""Texts that people read when budget refuses: the limit, what is spent, what was asked, what to do. Pure.

In: a ceiling, a level, an error. Out: the reason that stands in the reply, the halt or the alert.
"""

from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Overran
from bulkhead_services.budget.ledger.model import CeilingLevel, MetCeiling, Unit, UnitSums

CODE, HELD = "budget_exceeded", "charged_above_reservation"
"""Codes of budget's halts: at a ceiling, and after a call that cost many times what was reserved for it."""


def format_amount(value: int, unit: Unit) -> str:
    """`$0.5012`, `12,000 tokens`, `1 model call`, `90.5 s of calls`."""
    if unit == "wall_ms":
        return f"{value / 1000:,.1f} s of calls"
    if unit != "cost_usd_micros":
        return f"{value:,} {unit.replace('_', ' ').removesuffix('s' if value == 1 else '')}"
    dollars, micros = divmod(value, 1_000_000)
    digits = f"{micros:06d}".rstrip("0").ljust(2, "0")
    return f"${dollars:,}.{digits}"


_BUDGET, _USED_UP, _UTC = "The budget of ", " is used up", "(UTC)"


def _account_phrase(ceiling: MetCeiling | CeilingLevel) -> str:
    kind, tenant, name = ceiling.scope.split(":", 2)
    match kind:
        case "task":
            return f"task {name} of tenant {tenant}"
        case "step":
            task, _, step = name.partition("/")
            return f"step {step} of task {task} (tenant {tenant})"
        case "day":
            return f"tenant {tenant}'s day {name} {_UTC}"
        case "month":
            return f"tenant {tenant}'s month {name} {_UTC}"
        case "mesh":
            return f"the whole mesh on {name} {_UTC}"
        case _:
            owner, _, day = name.rpartition(":")
            return f"{kind} {owner} of tenant {tenant} on {day} {_UTC}"


def _remedy_text(ceiling: MetCeiling) -> str:
    kind, tenant, name = ceiling.scope.split(":", 2)
    needed, unit = ceiling.spent + ceiling.asked, ceiling.unit
    match kind:
        case "task" if unit in ("tokens", "cost_usd_micros"):
            option = "--limit-tokens" if unit == "tokens" else "--limit-usd"
            value = str(needed) if unit == "tokens" else f"{needed / 1_000_000:.6f}"
            return (
                f"Submit it again with a higher limit: {option} {value} is what it takes to make this next call; the "
                "calls after it need more, so leave room"
            )
        case "task" | "step":
            return f"Have an operator raise it: {_raise_command(kind, ceiling)}; then submit it again"
        case "day":
            return (
                f"Submit again after 00:00 UTC, or have an operator raise it: `{_raise_command(kind, ceiling)}` where "
                f"`bulkhead limits get` shows a limit of the day, else raise day.{unit} of tenant {tenant} to at least "
                f"{needed} in the tenants file"
            )
        case "mesh":
            return "Submit again after 00:00 UTC, or have who runs the mesh raise BULKHEAD_MESH_DAY_* of budget"
        case _:
            when = "in the next month" if kind == "month" else "after 00:00 UTC"
            target = kind if kind == "month" else f"{kind}/{name.rpartition(':')[0]}"
            return f"Submit again {when}, or have an operator raise it: {_raise_command(target, ceiling)}"


_OPTIONS = {"tokens": "--tokens", "model_calls": "--model-calls", "tool_calls": "--tool-calls"}


def _raise_command(target: str, ceiling: MetCeiling) -> str:
    return f"bulkhead limits set {target} {_limit_option(ceiling.unit, ceiling.spent + ceiling.asked)}"


def _limit_option(unit: Unit, amount: int) -> str:
    match unit:
        case "cost_usd_micros":
            return f"--usd {amount / 1_000_000:.6f}"
        case "wall_ms":
            return f"--wall {amount // 1000 + 1}s"
        case _:
            return f"{_OPTIONS[unit]} {amount}"


def denied_text(ceiling: MetCeiling) -> str:
    """A call that does not fit under what is left."""
    unit = ceiling.unit
    return (
        f"The budget of {_account_phrase(ceiling)} does not cover the next call: limit "
        f"{format_amount(ceiling.limit, unit)}, "
        f"spent {format_amount(ceiling.spent, unit)}, and the call may cost up to "
        f"{format_amount(ceiling.asked, unit)}. "
        f"{_remedy_text(ceiling)}."
    )


def beyond_limit_text(ceiling: MetCeiling, task: str) -> str:
    """A call of an outside agent that would not fit under its run's limit if nothing had been spent."""
    unit, over = ceiling.unit, ceiling.asked - ceiling.limit
    less = f"by {over:,} or more" if unit == "tokens" else f"to {ceiling.limit * 100 // ceiling.asked} % of it or less"
    return (
        f"This call may cost up to {format_amount(ceiling.asked, unit)}, more than the whole limit of its run, "
        f"{format_amount(ceiling.limit, unit)}. Lower its max_tokens {less}, or send a shorter "
        "conversation; or an operator "
        f"gives the run more: `bulkhead topup {task} {_limit_option(unit, over)} --reason TEXT`. Nothing was halted."
    )


def parked_text(ceiling: MetCeiling, task: str) -> str:
    """A task that is halted at a ceiling, and what lets it go on. Why it is halted, in the present tense."""
    unit = ceiling.unit
    if ceiling.spent > ceiling.limit:
        amounts = f"limit {format_amount(ceiling.limit, unit)}, spent {format_amount(ceiling.spent, unit)}"
    else:
        amounts = (
            f"limit {format_amount(ceiling.limit, unit)}, spent {format_amount(ceiling.spent, unit)}, "
            "and the next call may cost "
            f"up to {format_amount(ceiling.asked, unit)}"
        )
    return f"{_BUDGET}{_account_phrase(ceiling)}{_USED_UP}: {amounts}. {_resume_text(ceiling, task)}"


def may_concern_target(reason: str, target: str) -> bool:
    """True when what `parked_text` said may be of an account whose ceiling a limit of this target is;
    in doubt it may.
    """
    (kind, _, name), who = target.partition("/"), reason.partition(_USED_UP)[0].removeprefix(_BUDGET)
    if not reason.startswith(_BUDGET):
        return True
    if kind in ("day", "month"):
        return f"'s {kind} " in who
    return who.startswith((f"{kind} {name} of ", f"{kind} {name}.") if name else f"{kind} ")


def ends_with_period(reason: str) -> bool:
    """True when what `parked_text` said is of an account that begins anew with its day or month, not of the
    task's own.
    """
    return _UTC in reason.partition(_USED_UP)[0]


def _resume_text(ceiling: MetCeiling, task: str) -> str:
    kind, tenant, name = ceiling.scope.split(":", 2)
    until = "when it is idle, or at its deadline" if subjects.is_of_doors(task) else "at its deadline"
    where = f"it goes on where it stands; if nobody does that, it ends {until}"
    match kind:
        case "task":
            missing = max(1, ceiling.spent + ceiling.asked - ceiling.limit)
            return (
                f"An operator gives it more: `bulkhead topup {task} "
                f"{_limit_option(ceiling.unit, missing)} --reason TEXT` "
                f"is enough for that one call; {where}"
            )
        case "day":
            return (
                f"An operator raises the day: `{_raise_command(kind, ceiling)}` where `bulkhead "
                "limits get` shows a limit "
                f"of the day, else day.{ceiling.unit} of tenant {tenant} in the tenants file; {where}"
            )
        case "mesh":
            return f"Who runs the mesh raises BULKHEAD_MESH_DAY_* of budget; {where}"
        case "step" | "month":
            target = str(kind)
        case _:
            target = f"{kind}/{name.rpartition(':')[0]}"
    return f"An operator raises it: `{_raise_command(target, ceiling)}`; {where}"


def exceeded_text(ceiling: MetCeiling) -> str:
    """A call that cost more than its reservation and passed the limit."""
    unit = ceiling.unit
    return (
        f"The budget of {_account_phrase(ceiling)} is exceeded: limit {format_amount(ceiling.limit, unit)}, "
        f"spent {format_amount(ceiling.spent, unit)}; a call cost more than was reserved for it. "
        f"{_remedy_text(ceiling)}."
    )


def near_limit_text(level: CeilingLevel) -> str:
    """An account that comes near its limit."""
    unit = level.unit
    return (
        f"{_account_phrase(level)} has spent {format_amount(level.spent, unit)} of {format_amount(level.limit, unit)} "
        f"({level.spent * 100 // level.limit} %)"
    )


def raise_hint(level: CeilingLevel) -> str:
    """A command that doubles the limit, for use before it is reached."""
    kind, tenant, name = level.scope.split(":", 2)
    doubled = MetCeiling(level.scope, level.unit, level.limit, 0, level.limit, level.limit)
    effect = "nothing is stopped yet" if level.spent < level.limit else "the next call is held back"
    match kind:
        case "mesh":
            return f"{effect}; who runs the mesh raises BULKHEAD_MESH_DAY_* of budget"
        case "day":
            return (
                f"{effect}; an operator gives it more with `{_raise_command(kind, doubled)}` where `bulkhead "
                f"limits get` shows a limit of the day, else by day.{level.unit} of tenant {tenant} in the tenants "
                "file"
            )
        case "task":
            topup = f"bulkhead topup {name} {_limit_option(level.unit, level.limit)} --reason TEXT"
            return f"{effect}; an operator gives it more with `{topup}`"
        case "step" | "month":
            target = str(kind)
        case _:
            target = f"{kind}/{name.rpartition(':')[0]}"
    return f"{effect}; an operator gives it more with `{_raise_command(target, doubled)}`"


def overrun_text(used: UnitSums, held: UnitSums) -> str:
    """A call that used more than its reservation."""
    overruns = [
        f"{format_amount(mine, unit)} where {format_amount(theirs, unit)} was reserved"
        for unit in ("cost_usd_micros", "tokens", "model_calls", "tool_calls")
        if (mine := getattr(used, unit)) > (theirs := getattr(held, unit))
    ]
    return f"it used {', and '.join(overruns)}"


def held_text(overrun: Overran, times: int) -> str:
    """A task that is halted since a call of it cost many times its reservation."""
    used, reserved = (
        format_amount(amount.cost_usd_micros, "cost_usd_micros") for amount in (overrun.used, overrun.reserved)
    )
    return (
        f"call {overrun.call_id} of {overrun.resource} cost {used} by its provider's own figures, and {reserved} was "
        f"reserved: more than {times} times as much (BULKHEAD_HOLD_ABOVE_TIMES). It is charged in full. Look at what "
        "was sent, and at the provider's bill, before the task goes on"
    )


def waiting_text(ceiling: MetCeiling) -> str:
    """A call that fits under what is spent, but not beside what is held."""
    unit = ceiling.unit
    return (
        f"Open calls of {_account_phrase(ceiling)} hold {format_amount(ceiling.reserved, unit)}; with "
        f"{format_amount(ceiling.spent, unit)} "
        f"spent, {format_amount(ceiling.asked, unit)} more does not fit under "
        f"{format_amount(ceiling.limit, unit)} until they settle."
    )


def conflict_text(requested: UnitSums, held: UnitSums) -> str:
    """A known reservation id with a larger amount."""
    return (
        f"This reservation id is known with {format_amount(held.cost_usd_micros, 'cost_usd_micros')} and "
        f"{format_amount(held.tokens, 'tokens')}; {format_amount(requested.cost_usd_micros, 'cost_usd_micros')} and "
        f"{format_amount(requested.tokens, 'tokens')} are asked now. Ask for the larger amount under a new id."
    )
