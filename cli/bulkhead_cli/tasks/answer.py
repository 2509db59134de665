"""A task's answer for people: markers become numbers, sources stand below, what is wrong with it stands above.

In: the task's document as the gateway gives it. Out: text, sources, warnings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from bulkhead.client.mesh import UNENDED
from bulkhead.client.result import number_markers
from bulkhead.journal.why.doubts import answer_warnings
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_tokens
from bulkhead_infra.offline_model import MODEL_NAME

GOOD = "succeeded"


@dataclass(frozen=True, slots=True)
class NumberedSource:
    """The source of the marker [number]."""

    number: int
    marker: str
    text: str


def number_sources(text: str, result: dict[str, Any]) -> tuple[str, list[NumberedSource]]:
    """The text with [1], [2] in place of its markers, and the sources in that order."""
    cited: dict[str, str] = {}
    for citation in result.get("citations") or ():
        where = f"{citation['document']}, characters {citation['start']}–{citation['end']}"
        cited.setdefault(citation["marker"], where)
    for label in result.get("provenance") or ():
        kind = str(label["kind"]).replace("_", " ")
        cited.setdefault(label["sha256"][:12], f"{kind} {label['source']}".strip())
    numbered_text, markers = number_markers(text)
    rows = enumerate(markers, 1)
    return numbered_text, [NumberedSource(row, marker, cited.get(marker, "unknown source")) for row, marker in rows]


def is_whole_answer(document: dict[str, Any]) -> bool:
    """True if an answer is neither degraded nor incomplete, and answers all that was asked as far as is known."""
    is_complete = document.get("standing") in (None, "ok") and document.get("complete") is not False
    return is_complete and document.get("answered") not in ("partly", "no")


ANSWERED_LABELS = {"no": " [not answered]", "partly": " [partly answered]"}


def doubt_labels(standing: str | None, complete: bool | None, answered: str | None) -> str:
    """Labels beside a status whose result lacks something: ` [not answered] [degraded] [incomplete]`; "" for others."""
    labels = ANSWERED_LABELS.get(answered or "", "") + (f" [{standing}]" if standing not in (None, "ok") else "")
    return labels + (" [incomplete]" if complete is False else "")


def document_doubts(document: dict[str, Any]) -> str:
    """These labels of a task; of one that did not succeed its status says it."""
    answered = document.get("answered") if document["status"] == GOOD else None
    return doubt_labels(document.get("standing"), document.get("complete"), answered)


def render_footer(document: dict[str, Any]) -> str:
    """Cost, tokens, calls and duration, on one line."""
    usage = document["usage"]
    calls = (
        format_count(usage["model_calls"], "model call"),
        format_count(usage["tool_calls"], "tool call"),
        format_count(usage["retrievals"], "retrieval"),
    )
    paid = document.get("charged") or usage
    least = "at least " if document.get("spent_more") or document.get("status") in UNENDED else ""
    guess = f" ({usage['estimated_tokens']:,} estimated)" if usage.get("estimated_tokens") else ""
    used = f"{format_count(usage['input_tokens'], 'token')} in, {usage['output_tokens']:,} out{guess}"
    if (charged := document.get("charged")) is not None:
        # Budget's word on all calls, also those that settled when the task had ended; it does not split the tokens.
        used = format_tokens(charged["tokens"], charged.get("estimated_tokens", 0))
        calls = (
            format_count(charged["model_calls"], "model call"),
            format_count(charged["tool_calls"], "tool call"),
            calls[2],
        )
    money = least + format_cost(paid["cost_usd_micros"], paid.get("estimated_usd_micros", 0))
    if (spending := document.get("spending")) is not None:
        # An agent's step ends with its run: the ledger knows more than the usage.
        money = f"{format_cost(spending['cost_usd_micros'])} spent, {format_cost(spending['held_usd_micros'])} reserved"
        used = f"{format_tokens(spending['tokens'], 0)}, {spending['held_tokens']:,} reserved"
        calls = (
            format_count(spending["model_calls"], "model call"),
            format_count(spending["tool_calls"], "tool call"),
            calls[2],
        )
    cached_replies = usage.get("cached_calls", 0)
    if cached := usage.get("cached_input_tokens", 0):
        used += f" ({cached:,} from the provider's cache)"
    return " · ".join(
        (
            money,
            used,
            ", ".join((*calls, f"{cached_replies:,} from the response cache") if cached_replies else calls),
            format_duration(document["duration_ms"]),
            f"{document['steps_done']} of {format_count(document['steps_total'], 'step')}",
            document["task_id"],
        )
    )


def queue_line(queue: dict[str, Any]) -> str:
    """Why a task does not begin yet: of its `queue`, or of the event that told it."""
    whose = "of your tenant" if queue["full"] == "tenant" else "of the whole mesh"
    before = f", behind {format_count(queue['ahead'], 'other')}" if queue["ahead"] else ""
    return f"waits to run{before}: {queue['running']} of {queue['limit']} tasks {whose} are running"


def left_out_lines(tools: Sequence[str]) -> list[str]:
    """The line that names tools which the task has not got; none where it has all."""
    if not tools:
        return []
    names = ", ".join(tools)
    return [f"not used: {names}. A tool that writes has to be named, with --tool or in the tenant's default_writes"]


def author_line(result: dict[str, Any]) -> str:
    """The author of the answer, by the label that the model gateway signed; "" when no label speaks of this content."""
    sha256 = (result.get("content") or {}).get("sha256")
    for label in result.get("provenance") or ():
        if label["kind"] == "model_reply" and label["sha256"] == sha256 and label.get("source"):
            model = str(label["source"])
            if model.rpartition("/")[2] == MODEL_NAME:
                return f"answered by the offline rules ({MODEL_NAME}), no LLM"
            return f"answered by {model}"
    return ""


def print_answer(console: Console, document: dict[str, Any]) -> None:
    """Print how a task ended: warnings, answer, sources, failure, cost."""
    status = document["status"]
    style = {
        GOOD: "bold green",
        "queued": "bold yellow",
        "paused": "bold yellow",
        "requested": "bold blue",
        "running": "bold blue",
    }.get(status, "bold red")
    doubt = escape(document_doubts(document))
    console.print(f"[{style}]{status}[/{style}][yellow]{doubt}[/yellow]" if doubt else f"[{style}]{status}[/{style}]")
    alerts = answer_warnings(document)
    if alerts and console.is_terminal:
        console.print(Panel("\n".join(escape(line) for line in alerts), title="read this first", border_style="yellow"))
    else:
        for line in alerts:
            console.print(f"WARNING {line}", markup=False)
    failure = document.get("failure")
    if failure:
        console.print(f"{failure['code']}: {failure['message']}", style="red", markup=False)
        if failure.get("hint"):
            console.print(f"what to do: {failure['hint']}", markup=False)
    if document.get("answer"):
        text, sources = number_sources(document["answer"], document.get("result") or {})
        console.print()
        console.print(text, markup=False)
        if sources:
            console.print()
        for source in sources:
            console.print(f"[{source.number}] {source.text}", style="cyan", markup=False)
        if by := author_line(document.get("result") or {}):
            console.print()
            console.print(by, style="dim", markup=False)
    elif (document.get("result") or {}).get("content"):
        console.print("the answer's text cannot be read any more; it may have expired", style="yellow")
    console.print()
    console.print(render_footer(document), style="dim", markup=False)
    if document.get("spent_more"):
        console.print(
            "calls were still running when it ended: `bulkhead timeline` shows their cost", style="dim", markup=False
        )
