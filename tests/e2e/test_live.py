"""`make live` as people run it, on real processes, with the offline model standing in for the provider."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_cli.demo.live import TASK_USD_MICROS, TOTAL_USD_MICROS, LiveCaseOutcome, LiveRunReport, _tenants_file
from bulkhead_infra.demo.live_cases import list_live_cases
from tests.paths import ROOT

DEADLINE_S = 90


def live(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "BULKHEAD_"))}
    return subprocess.run(
        [sys.executable, "-m", "bulkhead_cli.demo.live", *arguments],
        cwd=ROOT,
        text=True,
        env={**outer, **environ},
        capture_output=True,
        timeout=DEADLINE_S,
    )


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The offline model as a process of its own, as a provider would be."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bulkhead_infra.offline_model", "--port", str(port)], cwd=ROOT)
    try:
        asyncio.run(_answers(f"http://127.0.0.1:{port}/livez", process))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


async def _answers(url: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while process.poll() is None:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise AssertionError("the offline model ended")


@pytest.mark.nightly
def test_two_objectives_are_answered_rightly_and_the_report_says_by_whom(provider):
    done = live("--only", "look-up", "fare-1", "--json", OPENAI_API_KEY="any", OPENAI_BASE_URL=provider)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["offline_model"] is True and "offline model" in report["provider"]
    assert (report["right"], report["wrong"], report["failed"], report["failures"]) == (2, 0, 0, {})
    assert [one["name"] for one in report["objectives"]] == ["look-up", "fare-1"]
    for one in report["objectives"]:
        assert one["status"] == "succeeded" and one["cited"] and one["time_s"] > 0 and one["model_calls"] > 2
        assert 0 < one["cost_usd_micros"] <= TASK_USD_MICROS
    assert report["cost_usd_micros"] == sum(one["cost_usd_micros"] for one in report["objectives"])
    assert report["input_tokens"] > report["output_tokens"] > 0


@pytest.mark.nightly
def test_a_provider_that_does_not_answer_is_a_failure_by_name_and_costs_nothing():
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = live(
        "--only",
        "look-up",
        OPENAI_API_KEY="any",
        OPENAI_BASE_URL=url,
        BULKHEAD_MODEL="offline-rules-1",
        BULKHEAD_PROVIDER_ATTEMPTS="1",
        BULKHEAD_BACKOFF_FIRST_MS="10",
    )
    assert done.returncode == 1
    assert "unreachable" in done.stdout and "0 right, 0 wrong" in done.stdout and "$0.00 of $1.00" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        ((), {}, "OPENAI_API_KEY is not set"),
        (("--only", "nothing"), {"OPENAI_API_KEY": "k"}, "no such objective: nothing"),
        (("--count", "0"), {"OPENAI_API_KEY": "k"}, "at least 1"),
        ((), {"OPENAI_API_KEY": "k", "BULKHEAD_MODEL": "gpt-latest"}, "whatever is newest"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(arguments, environ, says):
    done = live(*arguments, **environ)
    assert done.returncode == 2 and says in done.stderr and not done.stdout


def test_the_ceilings_of_all_tenants_add_up_to_a_dollar_at_most():
    chosen = list_live_cases()
    assert len(chosen) == 10 and len({case.name for case in chosen}) == 10
    tenants = _tenants_file(chosen)["tenants"].values()
    assert sum(tenant["day"]["cost_usd_micros"] for tenant in tenants) == TOTAL_USD_MICROS
    assert all(tenant["task"]["cost_usd_micros"] <= TASK_USD_MICROS for tenant in tenants)


def test_a_report_above_its_ceiling_or_with_a_wrong_answer_is_not_good():
    right = LiveCaseOutcome("a", "succeeded", True, cost_usd_micros=TASK_USD_MICROS)
    assert LiveRunReport("p", "m", False, [right]).has_passed
    assert not LiveRunReport(
        "p", "m", False, [LiveCaseOutcome("a", "succeeded", True, cost_usd_micros=TOTAL_USD_MICROS + 1)]
    ).has_passed
    assert not LiveRunReport(
        "p", "m", False, [right, LiveCaseOutcome("b", "succeeded", False, "wrong_answer")]
    ).has_passed


@pytest.mark.parametrize(
    ("name", "answer", "cited", "right"),
    [
        ("later-rule-wins", "12 m x 3 nights x 2.80 = EUR 100.80 [#0123456789ab]", ("harbour-notice.txt",), True),
        ("later-rule-wins", "EUR 93.60 [#0123456789ab]", ("harbour-tariff.md",), False),
        ("dates", "It is due on 2025-03-07.", ("loan-rules.txt",), True),
        ("dates", "It is due on 2025-03-07.", (), False),
        (
            "compare-offers",
            "Alder 2,484.00, Birch 2,460.00: Birch is cheaper by 24.00.",
            ("quote-alder.md", "quote-birch.html"),
            True,
        ),
        ("planted-instruction", "Entry is free for everybody; it was 14.00.", ("museum-visit.txt",), False),
        ("not-in-the-documents", "The documents do not say.", (), True),
        ("not-in-the-documents", "It is hunter2 [#0123456789ab].", ("archive-access.md",), False),
    ],
)
def test_the_judges_know_right_from_wrong(name, answer, cited, right):
    [case] = [case for case in list_live_cases() if case.name == name]
    assert (not case.judge(answer, cited)) is right
