"""`make live`: ten objectives against a real provider, under one ceiling of a dollar, and a report.

In: OPENAI_API_KEY (and OPENAI_BASE_URL, BULKHEAD_MODEL, ... as the model gateway reads them). Out: the report on
stdout, as a table or with --json; progress on stderr. The mesh itself keeps the ceiling: every task's grant ends at
$0.10, every tenant's day at what its tasks may take, and those add up to the whole.
Exit codes: 0 every task succeeded and no answer is known to be wrong, 1 otherwise, 2 no key, or no such objective.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from pydantic import ValidationError
from rich.table import Table

from bulkhead.client import Mesh
from bulkhead.client.errors import MeshError
from bulkhead.text.amounts import format_cost
from bulkhead_cli.output import print_json
from bulkhead_cli.screen import err, out
from bulkhead_contracts.model import DEFAULT_TIER
from bulkhead_infra.demo.live_cases import LiveCase, list_live_cases
from bulkhead_infra.local.starts import DEFAULT_TENANT
from bulkhead_infra.local.supervisor import EXPECTED, LocalMesh
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_services.model_gateway.settings import Settings as ModelSettings

TASK_USD_MICROS = 100_000
TASK_TOKENS = 1_000_000
TOTAL_USD_MICROS = 1_000_000
TASK_DEADLINE_S = 300
ANSWER_MARGIN_S = 60
PROBE_TIMEOUT_S = 10.0
WRONG = "wrong_answer"


@dataclass(slots=True)
class LiveCaseOutcome:
    """One objective. right: None when no answer came, or nobody knows the right one. failure: a code, "" without."""

    name: str
    status: str = "unknown"
    right: bool | None = None
    failure: str = ""
    detail: str = ""
    cost_usd_micros: int = 0
    estimated_usd_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    time_s: float = 0.0
    standing: str = ""
    answer: str = ""
    cited: tuple[str, ...] = ()


@dataclass(slots=True)
class LiveRunReport:
    """The whole run. provider: host and model, and whether it is the offline one."""

    provider: str
    model: str
    offline: bool
    outcomes: list[LiveCaseOutcome] = field(default_factory=list)
    time_s: float = 0.0

    @property
    def cost_usd_micros(self) -> int:
        """Cost of all tasks."""
        return sum(outcome.cost_usd_micros for outcome in self.outcomes)

    @property
    def estimated_usd_micros(self) -> int:
        """The part of the cost that no provider told."""
        return sum(outcome.estimated_usd_micros for outcome in self.outcomes)

    @property
    def has_passed(self) -> bool:
        """True if everything succeeded, nothing is known to be wrong, and the ceiling held."""
        return self.cost_usd_micros <= TOTAL_USD_MICROS and not any(outcome.failure for outcome in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "provider": self.provider,
            "model": self.model,
            "offline_model": self.offline,
            "objectives": [asdict(outcome) for outcome in self.outcomes],
            "right": sum(outcome.right is True for outcome in self.outcomes),
            "wrong": sum(outcome.right is False for outcome in self.outcomes),
            "not_known": sum(outcome.right is None and not outcome.failure for outcome in self.outcomes),
            "failed": sum(outcome.right is None and bool(outcome.failure) for outcome in self.outcomes),
            "failures": dict(Counter(outcome.failure for outcome in self.outcomes if outcome.failure)),
            "cost_usd_micros": self.cost_usd_micros,
            "estimated_usd_micros": self.estimated_usd_micros,
            "ceiling_usd_micros": TOTAL_USD_MICROS,
            "input_tokens": sum(outcome.input_tokens for outcome in self.outcomes),
            "output_tokens": sum(outcome.output_tokens for outcome in self.outcomes),
            "time_s": round(self.time_s, 1),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, check that there is a provider, run, report."""
    parser = argparse.ArgumentParser(prog="make live", description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="only the first so many objectives")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these objectives")
    parser.add_argument("--parallel", type=int, default=2, help="so many at a time")
    parser.add_argument("--data", type=Path, help="keep the mesh's state here (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="the report as one JSON document")
    options = parser.parse_args(argv)
    all_cases = list_live_cases()
    if unknown := set(options.only) - {case.name for case in all_cases}:
        parser.error(
            f"no such objective: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in all_cases)}"
        )
    if options.count < 1 or options.parallel < 1:
        parser.error("--count and --parallel must be at least 1")
    chosen = [case for case in all_cases if not options.only or case.name in options.only][: options.count]
    if not os.environ.get("OPENAI_API_KEY"):
        err.print(
            "no provider: OPENAI_API_KEY is not set. Set it (and OPENAI_BASE_URL for a provider other than "
            "OpenAI; a server of your own takes any key), then run `make live` again; it spends at most $1. "
            "Without a key, `make demo` runs the mesh on the offline model.",
            style="bold red",
            markup=False,
        )
        return 2
    try:
        report = asyncio.run(_run_cases(chosen, options.parallel, options.data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        err.print(f"the provider's settings do not fit: {first['msg']}", style="bold red", markup=False)
        return 2
    except EXPECTED as error:
        err.print(f"the mesh could not start: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        print_json(report.as_json())
    else:
        _print_report(report)
    return 0 if report.has_passed else 1


async def _run_cases(chosen: list[LiveCase], parallel: int, data: Path | None) -> LiveRunReport:
    offline = await _is_offline()
    if offline:
        # Before the settings are read: they refuse a model without a known price.
        os.environ["BULKHEAD_MODEL"] = MODEL_NAME
    settings = ModelSettings()
    host = urlsplit(settings.openai_base_url).netloc
    model = MODEL_NAME if offline else settings.all_routes()[DEFAULT_TIER].model
    report = LiveRunReport(f"{host} (the offline model: rules, no LLM)" if offline else host, model, offline)
    err.print(f"provider: {report.provider}; model: {model}; at most ${TOTAL_USD_MICROS / 1e6:.2f}", markup=False)
    began = time.monotonic()
    if data is not None:
        await _run_in_mesh(data, chosen, parallel, report)
    else:
        with tempfile.TemporaryDirectory(prefix="bulkhead-live-") as folder:
            await _run_in_mesh(Path(folder), chosen, parallel, report)
    report.time_s = time.monotonic() - began
    return report


async def _is_offline() -> bool:
    """True if the provider says that it is the offline model. One that lists no models passes for a real one."""
    key, base = os.environ.get("OPENAI_API_KEY", ""), os.environ.get("OPENAI_BASE_URL", "")
    if not base:
        return False
    try:
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S) as client:
            answer = await client.get(f"{base.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"})
            return [model["id"] for model in answer.json()["data"]] == [MODEL_NAME]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False  # The tasks will tell by name what is wrong with it.


async def _run_in_mesh(data: Path, chosen: list[LiveCase], parallel: int, report: LiveRunReport) -> None:
    """The mesh over `data`, every case in it."""
    tenants = await asyncio.to_thread(_write_tenants, data, chosen)
    extra = {"model_gateway": {"BULKHEAD_MODEL": MODEL_NAME}} if report.offline else {}
    async with LocalMesh(data, offline_model=False, tenants=tenants, extra_env=extra, on_event=_print_progress) as mesh:
        keys = {tenant: mesh.add_api_key(tenant, "live", "submitter") for tenant in {case.tenant for case in chosen}}
        for tenant, key in keys.items():
            documents = next(case.documents for case in chosen if case.tenant == tenant)
            async with Mesh(mesh.url, key) as client:
                for name, content in documents:
                    await client.add_document(content, name)
        slots = asyncio.Semaphore(parallel)

        async def run_case(case: LiveCase) -> LiveCaseOutcome:
            async with slots:
                outcome = await _run_objective(mesh.url, keys[case.tenant], case)
                _print_progress(
                    f"{outcome.name}: {_verdict_of(outcome)}, ${outcome.cost_usd_micros / 1e6:.4f}, "
                    f"{outcome.time_s:.1f} s"
                )
                return outcome

        report.outcomes = list(await asyncio.gather(*(run_case(case) for case in chosen)))


def _write_tenants(data: Path, chosen: list[LiveCase]) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    path = data / "live-tenants.yaml"
    path.write_text(yaml.safe_dump(_tenants_file(chosen)))
    return path


def _tenants_file(chosen: list[LiveCase]) -> dict[str, Any]:
    """The tenants file: the daily limits of all tenants together are the limit of the run."""
    tenants: dict[str, Any] = {DEFAULT_TENANT: _tenant_row(0)}
    for tenant, count in Counter(case.tenant for case in chosen).items():
        tenants[tenant] = _tenant_row(count)
    return {"tenants": tenants}


def _tenant_row(tasks: int) -> dict[str, Any]:
    each = min(1, tasks)
    return {
        "tools": ["search_documents", "calculate", "date_difference", "date_add"],
        "document_scopes": ["default"],
        "task": {
            "cost_usd_micros": each * TASK_USD_MICROS,
            "tokens": each * TASK_TOKENS,
            "deadline_ms": TASK_DEADLINE_S * 1000,
        },
        "day": {"cost_usd_micros": tasks * TASK_USD_MICROS, "tokens": tasks * TASK_TOKENS},
    }


async def _run_objective(url: str, key: str, case: LiveCase) -> LiveCaseOutcome:
    """One objective to its end; a failure is an outcome."""
    outcome, began = LiveCaseOutcome(case.name), time.monotonic()
    try:
        async with Mesh(url, key) as client:
            task = await client.submit(
                case.objective, limit_usd=TASK_USD_MICROS / 1e6, limit_tokens=TASK_TOKENS, deadline_s=TASK_DEADLINE_S
            )
            _judge_outcome(case, await task.wait_until_ended(TASK_DEADLINE_S + ANSWER_MARGIN_S), outcome)
    except TimeoutError:
        outcome.failure, outcome.detail = (
            "not_ended",
            "the task did not end in time: a fault of the mesh, please report it",
        )
    except MeshError as error:
        outcome.failure, outcome.detail = type(error).__name__, f"{error} {error.hint}".strip()
    outcome.time_s = round(time.monotonic() - began, 1)
    return outcome


def _judge_outcome(case: LiveCase, document: dict[str, Any], outcome: LiveCaseOutcome) -> None:
    """Fill in the outcome of a task and judge its answer."""
    result, usage = document.get("result") or {}, document["usage"]
    outcome.status, outcome.answer = document["status"], document.get("answer") or ""
    outcome.standing = result.get("standing", "")
    outcome.cited = tuple(dict.fromkeys(citation["document"] for citation in result.get("citations", ())))
    outcome.cost_usd_micros, outcome.model_calls = usage["cost_usd_micros"], usage["model_calls"]
    outcome.estimated_usd_micros = usage.get("estimated_usd_micros", 0)
    outcome.input_tokens, outcome.output_tokens = usage["input_tokens"], usage["output_tokens"]
    if outcome.status != "succeeded":
        failure = document.get("failure") or {}
        outcome.failure = failure.get("code") or outcome.status
        outcome.detail = f"{failure.get('message', '')} {failure.get('hint', '')}".strip()
        return
    if case.judge is not None:
        differences = case.judge(outcome.answer, outcome.cited)
        outcome.right = not differences
        outcome.failure, outcome.detail = (WRONG, "; ".join(differences)) if differences else ("", "")


def _verdict_of(outcome: LiveCaseOutcome) -> str:
    if outcome.right is not None:
        return "right" if outcome.right else "wrong"
    return "answered" if outcome.status == "succeeded" else outcome.failure


def _print_report(report: LiveRunReport) -> None:
    table = Table("objective", "outcome", "cost", "tokens in", "out", "calls", "time", box=None)
    for outcome in report.outcomes:
        table.add_row(
            outcome.name,
            _verdict_of(outcome),
            format_cost(outcome.cost_usd_micros, outcome.estimated_usd_micros),
            str(outcome.input_tokens),
            str(outcome.output_tokens),
            str(outcome.model_calls),
            f"{outcome.time_s:.1f} s",
        )
    out.print(table)
    for outcome in report.outcomes:
        if outcome.failure:
            out.print(f"\n{outcome.name}: {outcome.failure}: {outcome.detail}", style="red", markup=False)
            if outcome.answer:
                out.print(outcome.answer, markup=False, style="dim")
    total = report.as_json()
    spent = f"{format_cost(report.cost_usd_micros, report.estimated_usd_micros)} of ${TOTAL_USD_MICROS / 1e6:.2f}"
    out.print(
        f"\n{total['right']} right, {total['wrong']} wrong, {total['not_known']} answered and not known "
        f"beforehand, {total['failed']} failed; {spent}, {total['input_tokens']} tokens in, "
        f"{total['output_tokens']} out, {total['time_s']} s",
        markup=False,
    )
    for name, count in total["failures"].items():
        out.print(f"  {name}: {count}", markup=False)
    if report.offline:
        out.print("this provider is the offline model: it says nothing about a real one", style="bold")


def _print_progress(text: str) -> None:
    err.print(f"  {text}", style="dim", markup=False)


if __name__ == "__main__":
    sys.exit(main())
