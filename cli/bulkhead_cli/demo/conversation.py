"""The conversation of the demo: documents in, a question, the answer compared with the expected one."""

from pathlib import Path
from typing import Any

from bulkhead.client import Mesh
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import Exit
from bulkhead_cli.screen import SafeConsole, err, out
from bulkhead_cli.tasks import answer, follow
from bulkhead_infra.demo.corpus import Demo, write_documents
from bulkhead_infra.demo.verdict import AnswerComparison, compare_answer


def print_introduction(demo: Demo, screen: SafeConsole, *, model: str) -> None:
    """Print the case and the model; "" for the offline one."""
    screen.print(f"[bold]Bulkhead demo[/bold], case {demo.seed}: {demo.airline}")
    screen.print(f"  model: {model or 'the offline one: rule-based, deterministic, no LLM'}", style="dim", markup=False)


async def run_conversation(
    demo: Demo, url: str, api_key: str, folder: Path, screen: SafeConsole
) -> tuple[Exit, dict[str, Any]]:
    """Add the documents, ask, print the progress; returns how the task ended, and its document."""
    files = write_documents(demo, folder)
    async with Mesh(url, api_key) as client:
        for path in files:
            receipt = await client.add_document(path)
            line = f"  {receipt['outcome']} {receipt['name']} ({format_count(receipt['chunks'], 'chunk')})"
            screen.print(line, style="dim", markup=False)
        screen.print(f"\n{demo.objective}\n", markup=False, soft_wrap=True)
        task = await client.submit(demo.objective, idempotency_key=f"demo-{demo.seed}")
        await follow.print_progress(task, screen)
        ended = await task.show()
        return follow.exit_of(ended), ended


def _compare_answer(demo: Demo, document: dict[str, Any]) -> AnswerComparison:
    cited = {citation["document"] for citation in (document.get("result") or {}).get("citations", ())}
    return compare_answer(demo, document.get("answer") or "", cited)


def comparison_report(demo: Demo, document: dict[str, Any]) -> dict[str, Any]:
    """The task's document beside the expected answer, for programs."""
    comparison = _compare_answer(demo, document)
    expected = {
        "amount": str(demo.expected.amount),
        "currency": demo.expected.currency,
        "must_cite": demo.expected.must_cite,
    }
    return {
        "seed": demo.seed,
        "right": comparison.ok,
        "differences": comparison.differences,
        "expected": expected,
        "task": document,
    }


def print_verdict(demo: Demo, document: dict[str, Any], screen: SafeConsole = out) -> bool:
    """Print the answer and compare it with the one that the generator of the case expects."""
    screen.print("\n[bold]Answer[/bold]")
    answer.print_answer(screen, document)
    comparison = _compare_answer(demo, document)
    expected = demo.expected
    if comparison.ok:
        screen.print(
            f"\n[bold green]right[/bold green]: {expected.currency} {expected.amount}, citing "
            f"{', '.join(expected.must_cite)} - as the generator of the case expects"
        )
        return True
    err.print("\n[bold red]the answer is not the expected one[/bold red]")
    must_cite = ", ".join(expected.must_cite)
    err.print(f"  expected: {expected.currency} {expected.amount}, citing {must_cite}", markup=False)
    err.print(f"  given:    {document.get('answer') or document.get('failure')}", markup=False)
    for difference in comparison.differences:
        err.print(f"  - {difference}", markup=False)
    return False
