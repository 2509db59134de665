"""Rows of a call: values of one record together, and each record in one row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bulkhead.policy.attribution import SourceText, attribute_values
from bulkhead.policy.decision import decide
from bulkhead.policy.planned_values import PlannedRules
from bulkhead.policy.ruling import CallRuling
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue, Selector
from bulkhead_contracts.result import digest_of
from bulkhead_contracts.tool import ToolSpec
from tests.unit.policy.proposals import MAIL, NUMBER, PAY, TEXT, TOOLS, policy, proposal, said, tool

FIRST, SECOND, THIRD = "DE89370400440532013000", "NL91ABNA0417164300", "AT611904300234573201"
PAYMENT = {"type": "object", "properties": {"iban": TEXT, "amount": NUMBER, "reference": TEXT}}
BATCH = tool("pay_batch", {"payments": {"type": "array", "items": PAYMENT}}, effect="write", idempotent=False)
SHARE = tool("pay_shares", {"shares": {"type": "object"}}, effect="write", idempotent=False)
TRANSFER = tool(
    "transfer", {"origin": TEXT, "goal": TEXT}, effect="write", sinks={"origin": "account", "goal": "account"}
)
POLICY = policy(tools=(*TOOLS, BATCH, SHARE, TRANSFER))
ASKED = said("Pay the bills.")


def result(document: object, tool_name: str = "get_bill") -> SourceText:
    text = json.dumps(document)
    return SourceText(text, "tool", digest_of(text), tool_name, "s0")


def flow(argument: str, field: str, tool_name: str = "get_bill", into: str = "pay_batch", **changes: Any) -> Flow:
    return Flow(tool=into, argument=argument, step_id="s0", from_tool=tool_name, field=field, **changes)


def batch(*rows: tuple[str, float]) -> dict[str, Any]:
    return {"payments": [{"iban": iban, "amount": amount} for iban, amount in rows]}


def ruling_of(
    spec: ToolSpec,
    arguments: Mapping[str, Any],
    *sources: SourceText,
    flows: tuple[Flow, ...] = (),
    planned: tuple[PlannedCall, ...] = (),
) -> CallRuling:
    values, _ = attribute_values(arguments, sources, PlannedRules(spec.name, flows, planned))
    granted = (spec.name,)
    call = proposal(spec, arguments, *sources, values=values, flows=flows, planned=planned, granted=granted)
    return decide(call, POLICY)


BILLS = (result({"iban": FIRST, "total": 70}), result({"iban": SECOND, "total": 52}))
BY_CALL = (flow("/payments/*/iban", "/iban"), flow("/payments/*/amount", "/total"))
LISTED = result({"bills": [{"iban": FIRST, "total": 70}, {"iban": SECOND, "total": 52}, {"iban": THIRD, "total": 70}]})
BY_ROW = (flow("/payments/*/iban", "/bills/*/iban"), flow("/payments/*/amount", "/bills/*/total"))


@pytest.mark.parametrize(("sources", "flows"), [(BILLS, BY_CALL), ((LISTED,), BY_ROW)])
@pytest.mark.parametrize(
    ("rows", "effect"),
    [
        ([(FIRST, 70), (SECOND, 52)], "permit"),
        ([(SECOND, 52), (FIRST, 70)], "permit"),
        ([(SECOND, 52)], "permit"),
        ([(FIRST, 52), (SECOND, 70)], "ask"),
        ([(FIRST, 70), (SECOND, 70)], "ask"),
        ([(FIRST, 70), (FIRST, 70)], "ask"),
        ([(FIRST, 70), (SECOND, 52), (FIRST, 70)], "ask"),
    ],
)
def test_a_row_takes_its_values_of_one_record_which_serves_no_other_row(
    sources: Sequence[SourceText], flows: tuple[Flow, ...], rows: Sequence[tuple[str, float]], effect: str
) -> None:
    ruling = ruling_of(BATCH, batch(*rows), ASKED, *sources, flows=flows)
    assert ruling.effect == effect
    assert effect == "permit" or "beside other values of its record" in ruling.reasons[0]


def test_one_call_takes_its_values_of_one_record() -> None:
    flows = (flow("/iban", "/bills/*/iban", into="pay"), flow("/amount", "/bills/*/total", into="pay"))
    for iban, amount, effect in ((FIRST, 70, "permit"), (THIRD, 70, "permit"), (SECOND, 70, "ask")):
        assert ruling_of(PAY, {"iban": iban, "amount": amount}, ASKED, LISTED, flows=flows).effect == effect
    invoices = (flow("/iban", "/iban", into="pay"), flow("/amount", "/total", into="pay"))
    for amount, effect in ((52, "permit"), (70, "ask")):
        assert ruling_of(PAY, {"iban": SECOND, "amount": amount}, ASKED, *BILLS, flows=invoices).effect == effect


def test_a_record_within_a_record_goes_with_what_stands_above_it() -> None:
    accounts = (
        result({"total": 70, "accounts": [{"iban": FIRST}, {"iban": THIRD}]}),
        result({"total": 52, "accounts": [{"iban": SECOND}]}),
    )
    flows = (flow("/iban", "/accounts/*/iban", into="pay"), flow("/amount", "/total", into="pay"))
    for iban, amount, effect in ((THIRD, 70, "permit"), (SECOND, 52, "permit"), (SECOND, 70, "ask")):
        assert ruling_of(PAY, {"iban": iban, "amount": amount}, ASKED, *accounts, flows=flows).effect == effect


def test_equal_values_of_several_records_stand_in_any_of_them() -> None:
    """More records than origins are told of one value."""
    ibans = [f"{100_000 + number}" for number in range(30)]
    dues = result({"bills": [{"iban": iban, "total": 50} for iban in ibans]})
    assert ruling_of(BATCH, batch(*((iban, 50) for iban in ibans)), ASKED, dues, flows=BY_ROW).effect == "permit"
    same = result({"bills": [{"iban": FIRST, "total": 50}, {"iban": FIRST, "total": 50}]})
    for times, effect in ((2, "permit"), (3, "ask")):
        assert ruling_of(BATCH, batch(*[(FIRST, 50)] * times), ASKED, same, flows=BY_ROW).effect == effect
    single = [result({"iban": iban, "total": 50}) for iban in ibans]
    assert ruling_of(BATCH, batch(*((iban, 50) for iban in ibans)), ASKED, *single, flows=BY_CALL).effect == "permit"
    # The first row could take either record, and the second one of them alone.
    mixed = result({"bills": [{"iban": FIRST, "total": 50}, {"iban": FIRST, "total": 60}]})
    only_iban = (BY_ROW[0],)
    rows = {"payments": [{"iban": FIRST}, {"iban": FIRST, "amount": 60}]}
    assert ruling_of(BATCH, rows, ASKED, mixed, flows=BY_ROW).effect == "permit"
    assert ruling_of(BATCH, {"payments": [{"iban": FIRST}] * 3}, ASKED, mixed, flows=only_iban).effect == "ask"


def test_one_record_serves_rows_that_the_asker_tells_apart() -> None:
    fee, flows = result({"fee": 12}), (flow("/payments/*/amount", "/fee"),)
    asked = said(f"Pay the fee to {FIRST} and {SECOND}.")
    assert ruling_of(BATCH, batch((FIRST, 12), (SECOND, 12)), asked, fee, flows=flows).effect == "permit"
    assert ruling_of(BATCH, batch((FIRST, 12), (FIRST, 12)), asked, fee, flows=flows).effect == "ask"


def test_places_of_an_object_are_rows_where_the_plan_has_a_star() -> None:
    flows = (flow("/shares/*", "/bills/*/total", into="pay_shares"),)
    asked = said("Pay ann and bob.")
    shares = {"ann": 70, "bob": 52}
    assert ruling_of(SHARE, {"shares": shares}, asked, LISTED, flows=flows).effect == "permit"


def test_flows_that_name_several_records_are_of_several() -> None:
    """One field goes to two arguments, or each argument has conditions of its own."""
    both = (flow("/origin", "/iban", into="transfer"), flow("/goal", "/iban", into="transfer"))
    assert ruling_of(TRANSFER, {"origin": FIRST, "goal": SECOND}, ASKED, *BILLS, flows=both).effect == "permit"
    people = result({"people": [{"name": "Ann", "iban": FIRST}, {"name": "Bo", "account": SECOND}]})
    named = tuple(
        flow(argument, field, into="transfer", where=(Selector(test="is", field="/name", text=name),))
        for argument, field, name in (("/origin", "/people/*/iban", "Ann"), ("/goal", "/people/*/account", "Bo"))
    )
    assert ruling_of(TRANSFER, {"origin": FIRST, "goal": SECOND}, ASKED, people, flows=named).effect == "permit"


def test_a_selected_record_goes_with_its_own_fields() -> None:
    every = (Selector(test="at_least", field="/total", text="50"), Selector(test="every"))
    flows = tuple(one.model_copy(update={"where": every}) for one in BY_ROW)
    assert ruling_of(BATCH, batch((FIRST, 70), (SECOND, 52)), ASKED, LISTED, flows=flows).effect == "permit"
    assert ruling_of(BATCH, batch((FIRST, 52), (SECOND, 70)), ASKED, LISTED, flows=flows).effect == "ask"


def test_a_text_may_tell_of_many_records() -> None:
    pages = (result({"link": "https://a.example/1"}), result({"link": "https://b.example/2"}))
    flows = (flow("/body", "/link", into="send_mail"),)
    arguments = {"to": "ann@example.com", "body": "See https://a.example/1 and https://b.example/2"}
    assert ruling_of(MAIL, arguments, said("Mail ann@example.com the links."), *pages, flows=flows).effect == "permit"


TOLD = said(f"Pay 110 EUR to {FIRST} and 95.50 EUR to {SECOND}; {THIRD} got 30 EUR.")


def literals(*rows: tuple[str, str]) -> PlannedCall:
    return PlannedCall(
        tool="pay_batch", values=tuple(PlannedValue(argument=f"/payments/*/{name}", text=text) for name, text in rows)
    )


PAIRED = literals(("iban", FIRST), ("amount", "110"), ("iban", SECOND), ("amount", "95.50"))


@pytest.mark.parametrize(
    "planned", [PAIRED, literals(("iban", FIRST), ("iban", SECOND), ("amount", "110"), ("amount", "95.50"))]
)
@pytest.mark.parametrize(
    ("rows", "effect"),
    [
        ([(FIRST, 110), (SECOND, 95.5)], "permit"),
        ([(SECOND, 95.5), (FIRST, 110)], "permit"),
        ([(FIRST, 95.5), (SECOND, 110)], "ask"),
        ([(FIRST, 110), (FIRST, 110), (SECOND, 95.5)], "ask"),
        ([(FIRST, 110), (SECOND, 95.5), (THIRD, 30)], "ask"),
    ],
)
def test_values_that_a_plan_writes_for_a_list_belong_together_in_their_order(
    planned: PlannedCall, rows: Sequence[tuple[str, float]], effect: str
) -> None:
    assert ruling_of(BATCH, batch(*rows), TOLD, planned=(planned,)).effect == effect


def test_a_shorter_list_of_the_plan_goes_with_each_row() -> None:
    each = literals(("iban", FIRST), ("iban", SECOND), ("amount", "50"))
    asked = said(f"Pay 50 EUR each to {FIRST} and {SECOND}.")
    assert ruling_of(BATCH, batch((SECOND, 50), (FIRST, 50)), asked, planned=(each,)).effect == "permit"
    rows = batch((FIRST, 50), (FIRST, 50), (SECOND, 50))
    assert ruling_of(BATCH, rows, asked, planned=(each,)).effect == "ask"


def test_of_the_calls_that_a_plan_foresees_the_one_that_says_most_counts() -> None:
    plan = (literals(("iban", FIRST), ("amount", "110")), PAIRED)
    assert ruling_of(BATCH, batch((FIRST, 110), (SECOND, 95.5)), TOLD, planned=plan).effect == "permit"
    assert ruling_of(BATCH, batch((FIRST, 110)), TOLD, planned=plan).effect == "permit"


def test_rows_that_a_plan_writes_stand_beside_rows_that_flow() -> None:
    plan = (literals(("iban", FIRST), ("amount", "110")),)
    asked = said(f"Pay 110 EUR to {FIRST}, and the bill.")
    for rows, effect in (
        ([(FIRST, 110), (SECOND, 52)], "permit"),
        ([(FIRST, 52), (SECOND, 110)], "ask"),
        ([(FIRST, 110), (SECOND, 52), (SECOND, 52)], "ask"),
    ):
        assert ruling_of(BATCH, batch(*rows), asked, BILLS[1], flows=BY_CALL, planned=plan).effect == effect
