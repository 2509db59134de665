"""How `bulkhead spend` shows sums, and what it takes for a time."""

import pytest

from bulkhead_cli.limits.commands import spend
from bulkhead_cli.limits.spending import _print_spending
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import CommandError, Exit
from bulkhead_contracts.budget import SpendReplied, SpendRow, Spent

DAY = 1_795_231_204_272
ONE = Spent(
    calls=2,
    input_tokens=1_200,
    output_tokens=34,
    tokens=1_234,
    cost_usd_micros=2_500_000,
    model_calls=2,
    wall_ms=90_000,
)
HELD = Spent(calls=1, tokens=50, cost_usd_micros=7_000)


def shown(capsys: pytest.CaptureFixture[str], **page) -> str:
    _print_spending(SpendReplied(by="agent", since_unix_ms=DAY, until_unix_ms=DAY + 1, **page).model_dump())
    return capsys.readouterr().out


def test_rows_the_rest_and_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (SpendRow(name="worker.writer", spent=ONE, held=HELD), SpendRow(spent=ONE))
    lines = shown(
        capsys, rows=rows, rest=SpendRow(spent=ONE), rest_rows=7, total=SpendRow(spent=ONE, held=HELD)
    ).splitlines()
    assert lines[0].split()[:2] == ["agent", "cost"]
    assert [one.split()[0] for one in lines[1:5]] == ["worker.writer", "(no", "(7", "all"]
    assert "$2.50" in lines[1] and "1,200" in lines[1] and "1 min 30 s" in lines[1] and "$0.007" in lines[1]
    assert "held: at most $0.007 for 1 call" in lines[6]


def test_what_came_from_caches_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    total = SpendRow(spent=ONE.model_copy(update={"cached_input_tokens": 900}))
    assert "900 tokens in (75%) came from providers' caches" in shown(capsys, rows=(total,), total=total)
    assert "caches" not in shown(capsys, rows=(SpendRow(spent=ONE),), total=SpendRow(spent=ONE))


def test_classes_of_usage_are_said_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    classes = {"cache_write_tokens": 1_500, "cache_write_1h_tokens": 200, "reasoning_tokens": 90}
    total = SpendRow(spent=ONE.model_copy(update=classes))
    said = "tokens with a price of their own: 90 reasoning, 1,500 written to caches, 200 of them for an hour"
    assert said in shown(capsys, rows=(total,), total=total)
    assert "price of their own" not in shown(capsys, rows=(SpendRow(spent=ONE),), total=SpendRow(spent=ONE))


def test_what_stands_apart_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    guess = {"estimated": 1, "estimated_usd_micros": 1_000, "estimated_tokens": 500}
    vain = {"failed_calls": 2, "failed_usd_micros": 300, "failed_ms": 8_000}
    rows = (SpendRow(name="[bold]x", spent=ONE.model_copy(update=guess | vain)),)
    said = shown(capsys, rows=rows, total=rows[0], late=ONE, kept_unix_ms=DAY)
    assert "[bold]x" in said, "a name is no markup"
    assert "about $" in said and "($0.001 estimated)" in said, "a guess is never shown as a fact"
    assert "estimated: $0.001 and 500 tokens of 1 call whose provider told no usage" in said
    assert "failed attempts (a retry, a fallback or an error followed): 2 calls for $0.0003 and 8.0 s" in said
    assert "2: $0.0003, 8.0 s" in said and "1,234 tokens of 2 calls were settled since then" in said
    assert "not stored by agent" in said


def test_nothing_spent_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys).startswith("no call was admitted since")


@pytest.mark.parametrize("since", ["", "0h", "1w", "32d", "-1h", "1.5h", "9999999d"])
def test_what_is_no_time_is_wrong_usage(since: str) -> None:
    with pytest.raises(CommandError) as ended:
        spend(GatewayOptions(), since=since)
    assert ended.value.code is Exit.USAGE and "31d" in ended.value.hint
