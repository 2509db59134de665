"""A task's timeline by step: each request, its receiver, its start, duration and cost.

In: entries of the journal with their spans. Out: a tree for people; `rows` has the list for programs.
"""

from rich.text import Text
from rich.tree import Tree

from bulkhead.journal import approvals
from bulkhead.journal.history import JournalEntry, Span, each_fact
from bulkhead.journal.lines import describe_outcome
from bulkhead.journal.rows import as_json as as_json
from bulkhead.journal.rows import describe_body, spending_by_step, step_of
from bulkhead.journal.story.calls import Texts, by_last_request, find_calls
from bulkhead.journal.story.model import Call
from bulkhead.telemetry import names
from bulkhead.text.amounts import format_cost, format_duration, format_tokens
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import PlanAdopted
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import StepEnded, StepStarted, TaskEnded, TaskRejected

SPAN_LABELS = (names.PROMPT_ID, names.OUTCOME, names.FAILURE_CODE)
MAX_ARGUMENTS_CHARS = 100
MAX_WHY_CHARS = 160


def build_tree(task: str, entries: list[JournalEntry], stored: int = 0, texts: Texts | None = None) -> Tree:
    """Messages grouped by step, in order; a request and its reply are one line. stored: how many they are with
    repeats. texts: contents by digest, to be shown below the calls."""
    top = Tree(_task_heading(task, entries, stored - len(entries)))
    entries = each_fact(entries)
    began = entries[0].at_unix_ms
    titles: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry.body, PlanAdopted):
            titles |= {step.id: step.title for step in entry.body.plan.steps}
        elif isinstance(entry.body, StepStarted):
            titles.setdefault(entry.body.step_id, entry.body.title)
    branches: dict[str, Tree] = {}
    paid = spending_by_step(entries)
    calls_by_message = by_last_request(entries, find_calls(entries, texts or {}))
    questions = approvals.find_questions(entries)
    hidden = approvals.covered_entries(entries, questions.values())
    hidden |= {id(entry.reply) for entry in entries if entry.reply is not None and id(entry) not in hidden}
    for entry in entries:
        if id(entry) in hidden or isinstance(entry.body, Reserved | Settled):
            continue  # Money stands with the calls that it was for; --json has every message.
        step = step_of(entry)
        if step and step not in branches:
            branches[step] = top.add(_step_heading(step, titles.get(step, ""), entries, paid))
        question = questions.get(entry.id)
        call = calls_by_message.get(entry.id) if question is None else None
        line = _entry_line(entry, began, call) if question is None else _question_line(question, entry, began)
        leaf = branches.get(step, top).add(line)
        if call is not None and texts is not None:
            for name, detail in (("the model says why", call.why), ("asked", call.arguments), ("result", call.result)):
                if detail:
                    leaf.add(Text(f"{name}: {detail}"))
        for span in entry.spans:
            if names.OPERATION in span.attributes:
                leaf.add(_span_line(span))
    settled = [entry.body for entry in entries if isinstance(entry.body, Settled)]
    if settled:
        usage = sum((settlement.usage for settlement in settled), Usage())
        top.add(Text(f"{len(settled)} reservations settled: {_render_cost(usage)}", "dim"))
    return top


def _task_heading(task: str, entries: list[JournalEntry], repeats: int) -> Text:
    end = next((entry for entry in entries if isinstance(entry.body, TaskEnded | TaskRejected)), None)
    ended = end.body if end is not None and isinstance(end.body, TaskEnded) else None
    took = (end or entries[-1]).at_unix_ms - entries[0].at_unix_ms  # Late timers come after the end.
    status = ended.status if ended else "rejected" if end is not None else "running"
    waits = status == "running" and any(row.state == "waiting" for row in approvals.find_questions(entries).values())
    style = {"succeeded": "bold green", "running": "bold blue"}.get(status, "bold red")
    # What was settled is what was spent: the end does not know of calls that were in the works then.
    settled = [entry.body.usage for entry in each_fact(entries) if isinstance(entry.body, Settled)]
    usage = sum(settled, Usage()) if settled else ended.usage if ended else None
    return Text.assemble(
        (task, "bold"),
        " ",
        (status, style),
        (" (waiting for a person)", "yellow") if waits else "",
        f"  {format_duration(took)}, {len(entries)} messages",
        f" ({repeats} of them stored twice)" if repeats > 0 else "",
        f", {_render_cost(usage)}" if usage else "",
    )


def _step_heading(step: str, title: str, entries: list[JournalEntry], paid: dict[str, tuple[Usage, bool]]) -> Text:
    mine = [entry for entry in entries if step_of(entry) == step]
    ends = [entry.body for entry in mine if isinstance(entry.body, StepEnded)]
    usage, is_complete = paid.get(step) or (sum((end.usage for end in ends), Usage()), True)
    least = "" if is_complete else "at least "
    going_on = "stopped" if any(isinstance(entry.body, TaskEnded) for entry in entries) else "running"
    outcome = ends[-1].outcome if ends else going_on
    style = {"accepted": "green", "running": "blue"}.get(outcome, "red")
    return Text.assemble(
        (step, "bold"),
        f" {title} ",
        (outcome, style),
        (f"  {format_duration(mine[-1].at_unix_ms - mine[0].at_unix_ms)}, {least}{_render_cost(usage)}", "dim"),
    )


def _question_line(row: approvals.AskedApproval, entry: JournalEntry, began: int) -> Text:
    """A question and its answer, for people."""
    request = row.asked
    reasons = "; ".join(request.why)
    reasons = reasons if len(reasons) <= MAX_WHY_CHARS else reasons[:MAX_WHY_CHARS] + "…"
    text = Text.assemble(
        _offset_label(entry, began),
        ("a person is asked: ", "bold yellow"),
        f"{request.tool} ({request.risk} risk)",
        f": {reasons}" if reasons else "",
    )
    text.append(
        f"  ⇒ {approvals.describe_answer(row)}", {"waiting": "bold yellow", "granted": "green"}.get(row.state, "red")
    )
    return text


def _offset_label(entry: JournalEntry, began: int) -> tuple[str, str]:
    return f"+{(entry.at_unix_ms - began) / 1000:.3f}s ", "dim"


def _entry_line(entry: JournalEntry, began: int, call: Call | None = None) -> Text:
    name = _short_type(entry.type) or "unreadable"
    line = Text.assemble(_offset_label(entry, began), (f"{entry.sender} → {entry.receiver} ", "cyan"), name)
    description = describe_body(entry.body)
    if description:
        line.append(f" {description}")
    if call is not None and call.kind == "tool" and call.arguments:
        line.append(f" {cut_line(call.arguments, MAX_ARGUMENTS_CHARS)}")
    if entry.problem:
        line.append(f" {entry.problem}", "red")
    if entry.reply is not None:
        usage = getattr(entry.reply.body, "usage", None)
        paid = f", {_render_cost(usage)}" if isinstance(usage, Usage) and usage != Usage() else ""
        answered = describe_body(entry.reply.body) or _short_type(entry.reply.type)
        took = format_duration(entry.reply.at_unix_ms - entry.at_unix_ms)
        line.append(f"  ⇒ {answered} {took}{_describe_model(entry.reply.body)}{paid}", "dim")
    if call is not None:
        line.append(describe_outcome(call), "dim")
    return line


def _describe_model(body: object) -> str:
    """Model of a route that answered where it was not the first, and how long the call waited for providers."""
    if not isinstance(body, ModelCallReplied):
        return ""
    chosen = f" by {body.model} ({body.chosen_as})" if body.chosen_as not in ("first", "") else ""
    waited = f", {format_duration(body.waited_ms)} of it waiting for {body.waited_for}" if body.waited_ms else ""
    return chosen + waited


def _short_type(ce_type: str) -> str:
    return ce_type.removeprefix("mesh.").rpartition(".v")[0]


def _span_line(span: Span) -> Text:
    labels = " ".join(str(span.attributes[name]) for name in SPAN_LABELS if span.attributes.get(name))
    used, paid, guessed = (
        sum(int(span.attributes.get(name) or 0) for name in keys)
        for keys in ((names.INPUT_TOKENS, names.OUTPUT_TOKENS), (names.COST,), (names.COST_ESTIMATED,))
    )
    text = f"{span.name} {labels} {format_duration(span.duration_ms)}" + (f", {format_tokens(used)}" if used else "")
    return Text(" ".join(text.split()) + (f", {format_cost(paid, guessed)}" if paid else ""), "dim")


def _render_cost(usage: Usage) -> str:
    from_cache = f", {usage.cached_calls:,} from the response cache" if usage.cached_calls else ""
    used = format_tokens(usage.input_tokens + usage.output_tokens, usage.estimated_tokens)
    return f"{used}, {format_cost(usage.cost_usd_micros, usage.estimated_usd_micros)}{from_cache}"
