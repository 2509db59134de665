"""Values that a plan states by a rule: selected records, bounds and calculations, over real results."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.policy.attribution import SourceText, attribute_values
from bulkhead.policy.decision import decide
from bulkhead.policy.planned_values import PlannedRules, rule_problem
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue, Selector, SelectorTest
from bulkhead_contracts.result import digest_of
from tests.unit.policy.proposals import COUNT, FETCH, MAIL, PAY, policy, proposal, said

POLICY = policy()
MAILS = {
    "mails": [
        {"from": "kim@client.example", "sender": "Kim Roe", "subject": "Lunch", "at": "2026-03-01", "size": 90},
        {"from": "bo@office.example", "sender": "Bo", "subject": "Invoice 7", "at": "2026-03-04", "size": 1200},
        {"from": "li@office.example", "sender": "Li", "subject": "Invoice 8", "at": "3 March 2026", "size": 800},
    ]
}


def result(document: Any, tool: str = "list_mails", step: str = "s0") -> SourceText:
    text = document if isinstance(document, str) else json.dumps(document)
    return SourceText(text, "tool", digest_of(text), tool, step)


def where(*texts: str) -> tuple[Selector, ...]:
    """`is /sender Bo` as a selector."""
    parts = [text.split(" ", 2) for text in texts]
    return tuple(
        Selector(test=part[0], field="".join(part[1:2]), text="".join(part[2:]))
        for part in parts  # type: ignore[arg-type]
    )


def mails_to(*selectors: str, field: str = "/mails/*/from") -> Flow:
    return Flow(
        tool="send_mail", argument="/to", step_id="s0", from_tool="list_mails", field=field, where=where(*selectors)
    )


def effect_of(spec, arguments, *sources: SourceText, flows: tuple[Flow, ...] = (), planned=(), **changes: Any) -> str:
    values, _ = attribute_values(arguments, sources, PlannedRules(spec.name, flows, planned))
    call = proposal(spec, arguments, *sources, values=values, flows=flows, planned=planned, **changes)
    return decide(call, POLICY).effect


ASKED = said("Write to whoever it is: we are closed.")


@pytest.mark.parametrize(
    ("selectors", "chosen"),
    [
        (("is /sender Bo",), "bo@office.example"),
        (("is /sender kim  roe",), "kim@client.example"),
        (("contains /subject invoice", "largest /size"), "bo@office.example"),
        (("contains /subject invoice", "smallest /size"), "li@office.example"),
        (("largest /at",), "bo@office.example"),
        (("at_most /at 2026-03-02",), "kim@client.example"),
        (("at_least /size 1000",), "bo@office.example"),
        (("starts_with /sender kim",), "kim@client.example"),
        (("ends_with /subject 8",), "li@office.example"),
        (("first",), "kim@client.example"),
        (("last",), "li@office.example"),
        (("contains /subject invoice", "last"), "li@office.example"),
        (("is /sender Bo", "only"), "bo@office.example"),
    ],
)
def test_the_value_that_flows_is_the_one_that_the_plan_selects(selectors: tuple[str, ...], chosen: str) -> None:
    flow = mails_to(*selectors)
    for mail in MAILS["mails"]:
        arguments = {"to": mail["from"], "body": "We are closed."}
        wanted = "permit" if mail["from"] == chosen else "ask"
        assert effect_of(MAIL, arguments, ASKED, result(MAILS), flows=(flow,)) == wanted
    assert effect_of(MAIL, {"to": chosen, "body": "x"}, ASKED, result(MAILS), flows=(mails_to(),)) == "permit"


@pytest.mark.parametrize(
    "selectors",
    [
        ("contains /subject invoice",),  # two records, two addresses
        ("is /sender Nobody",),
        ("is /nothing Bo",),
        ("largest /subject",),  # texts have no order
        ("largest /nothing",),
        ("only",),
        ("at_least /subject 5",),
    ],
)
def test_a_person_is_asked_where_the_selection_is_ambiguous_or_empty(selectors: tuple[str, ...]) -> None:
    for mail in MAILS["mails"]:
        arguments = {"to": mail["from"], "body": "x"}
        assert effect_of(MAIL, arguments, ASKED, result(MAILS), flows=(mails_to(*selectors),)) == "ask"


def test_each_of_the_records_flows_where_the_plan_says_so() -> None:
    flow = mails_to("contains /subject invoice", "every")
    for to, wanted in (("bo@office.example", "permit"), ("li@office.example", "permit"), ("kim@client.example", "ask")):
        assert effect_of(MAIL, {"to": to, "body": "x"}, ASKED, result(MAILS), flows=(flow,)) == wanted


def test_lines_of_a_text_are_records() -> None:
    flow = Flow(
        tool="count",
        argument="/name",
        step_id="s0",
        from_tool="list_files",
        field="/lines/*",
        where=where("ends_with  .tmp", "every"),
    )
    listing = result("work/a.tmp\nwork/plan.txt\n  work/b.tmp\n", "list_files")
    for name, wanted in (
        ("work/a.tmp", "permit"),
        ("work/b.tmp", "permit"),
        ("work/plan.txt", "ask"),
        ("a.tmp", "ask"),
    ):
        assert effect_of(COUNT, {"name": name}, said("Delete the .tmp files."), listing, flows=(flow,)) == wanted


NOTE_TEXT = "See https://a.example/1, office.example or https://b.example/2; ask ann@x.example before bo@x.example."


@pytest.mark.parametrize(
    ("field", "selectors", "document"),
    [
        ("/urls/*", ("first",), NOTE_TEXT),
        ("/urls/*", ("starts_with  https://a.example/",), NOTE_TEXT),
        ("/text/urls/*", ("first",), {"text": NOTE_TEXT, "more": "https://c.example/3"}),
        ("/notes/*/urls/*", ("ends_with  /1",), {"notes": ["https://c.example/3", NOTE_TEXT]}),
    ],
)
def test_one_of_several_values_within_a_text_is_selected(field, selectors, document) -> None:
    flow = Flow(tool="fetch", argument="/url", step_id="s0", from_tool="look", field=field, where=where(*selectors))
    for url, wanted in (
        ("https://a.example/1", "permit"),
        ("https://b.example/2", "ask"),
        ("https://office.example", "ask"),
        ("https://c.example/3", "ask"),
    ):
        assert effect_of(FETCH, {"url": url}, ASKED, result(document, "look"), flows=(flow,)) == wanted
    people = flow.model_copy(
        update={"tool": "send_mail", "argument": "/to", "field": "/emails/*", "where": where("last")}
    )
    for to, wanted in (("bo@x.example", "permit"), ("ann@x.example", "ask")):
        assert effect_of(MAIL, {"to": to, "body": "x"}, ASKED, result(NOTE_TEXT, "look"), flows=(people,)) == wanted


def test_records_are_told_by_all_results_of_the_step() -> None:
    one = {"from": "bo@office.example", "subject": "Invoice"}
    other = {"from": "eve@evil.example", "subject": "Lunch"}
    flow = mails_to("is /subject Invoice", field="/from")
    both = (result(one), result(other))
    assert effect_of(MAIL, {"to": one["from"], "body": "x"}, ASKED, *both, flows=(flow,)) == "permit"
    assert effect_of(MAIL, {"to": other["from"], "body": "x"}, ASKED, *both, flows=(flow,)) == "ask"
    forged = result(other | {"subject": "INVOICE"})
    assert effect_of(MAIL, {"to": one["from"], "body": "x"}, ASKED, *both, forged, flows=(flow,)) == "ask"
    elsewhere = result(other | {"subject": "Invoice"}, step="s9")
    assert effect_of(MAIL, {"to": one["from"], "body": "x"}, ASKED, *both, elsewhere, flows=(flow,)) == "permit"
    first = mails_to("first", field="/from")
    assert effect_of(MAIL, {"to": one["from"], "body": "x"}, ASKED, *both, flows=(first,)) == "ask"


def test_a_result_that_is_not_whole_selects_nothing() -> None:
    cut = json.dumps(MAILS)[:-2]
    arguments, flow = {"to": "bo@office.example", "body": "x"}, mails_to("is /sender Bo")
    assert effect_of(MAIL, arguments, ASKED, result(MAILS), result(cut), flows=(flow,)) == "ask"
    rules = PlannedRules("send_mail", (flow,))
    for changes in ({"is_complete": False}, {"is_complete": True}):
        [to, *_], _ = attribute_values(arguments, (result(MAILS),), rules, **changes)
        assert any(origin.planned for origin in to.origins) == changes["is_complete"]


def test_a_tie_is_no_selection_unless_it_says_the_same() -> None:
    flow = mails_to("largest /size")
    tied = {"mails": [{"from": "a@x.example", "size": 5}, {"from": "b@x.example", "size": 5.0}]}
    assert effect_of(MAIL, {"to": "a@x.example", "body": "x"}, ASKED, result(tied), flows=(flow,)) == "ask"
    same = {"mails": [{"from": "a@x.example", "size": 5}, {"from": "A@x.example", "size": 5}]}
    assert effect_of(MAIL, {"to": "a@x.example", "body": "x"}, ASKED, result(same), flows=(flow,)) == "permit"
    odd = {"mails": [{"from": "a@x.example", "size": 5}, {"from": "b@x.example", "size": "9 GB"}]}
    assert effect_of(MAIL, {"to": "a@x.example", "body": "x"}, ASKED, result(odd), flows=(flow,)) == "ask"


def test_a_selection_is_for_its_own_argument() -> None:
    flows = (mails_to("is /sender Bo"), mails_to("is /sender Li").model_copy(update={"argument": "/cc"}))
    arguments = {"to": "li@office.example", "body": "x"}
    assert effect_of(MAIL, arguments, ASKED, result(MAILS), flows=flows) == "ask"


# Figures

BILLS = {"bills": [{"net": 100, "to": "A"}, {"net": "20.50", "to": "B"}, {"net": 9.5, "to": "A"}], "due": "2026-03-30"}
IBAN = "DE89370400440532013000"
TO_PAY = said(f"Pay the bills to {IBAN}.")


def net_as(name: str, *selectors: str, field: str = "/bills/*/net") -> Flow:
    return Flow(
        tool="pay",
        argument="/amount",
        step_id="s0",
        from_tool="list_bills",
        field=field,
        where=where(*selectors),
        operand=name,
    )


def pays(**figure: str) -> tuple[PlannedCall, ...]:
    values = (PlannedValue(argument="/iban", text=IBAN), PlannedValue(argument="/amount", **figure))
    return (PlannedCall(tool="pay", values=values),)


def paid(amount: object, planned: tuple[PlannedCall, ...], *flows: Flow, results: tuple[Any, ...] = (BILLS,)) -> str:
    sources = [result(document, "list_bills") for document in results]
    return effect_of(PAY, {"iban": IBAN, "amount": amount}, TO_PAY, *sources, flows=flows, planned=planned)


@pytest.mark.parametrize(
    ("expression", "amount", "flows"),
    [
        ("sum(net)", 130, (net_as("net"),)),
        ("sum(net) * 119%", 154.7, (net_as("net"),)),
        ("sum(net)", 109.5, (net_as("net", "is /to A"),)),
        ("high - low", 90.5, (net_as("high", "largest /net"), net_as("low", "smallest /net"))),
        ("net * (1 + 19%)", 119, (net_as("net", "first"),)),
        ("net * 20%", 4.1, (net_as("net", "is /to B"),)),
        ("round(sum(net) / 3, 2)", 43.33, (net_as("net"),)),
        ("count(net) * 2.50", 7.5, (net_as("net"),)),
        ("3 * 14.50", 43.5, ()),
    ],
)
def test_a_figure_passes_only_where_it_equals_the_calculation(expression, amount, flows) -> None:
    assert paid(amount, pays(calculate=expression), *flows) == "permit"
    assert paid(amount + 0.01, pays(calculate=expression), *flows) == "ask"
    assert paid(-amount, pays(calculate=expression), *flows) == "ask"
    assert paid(amount, (), *flows) == "ask", "an operand is no argument by itself"


@pytest.mark.parametrize(
    ("expression", "flows", "results"),
    [
        ("net * 2", (net_as("net"),), (BILLS,)),  # three numbers under one name
        ("sum(net)", (net_as("net", field="/bills/*/to"),), (BILLS,)),
        ("sum(net)", (net_as("net"), net_as("net", "first")), (BILLS,)),
        ("sum(net)", (net_as("net"),), (BILLS, "{")),
        ("sum(net)", (), (BILLS,)),
        ("sum(net) / 7", (net_as("net"),), (BILLS,)),  # never ends, and nobody said to round
        ("sum(net) / 0", (net_as("net"),), (BILLS,)),
        ("9 ** 256", (), (BILLS,)),
        ("__import__('os')", (), (BILLS,)),
    ],
)
def test_what_has_no_one_outcome_lets_nothing_pass(expression, flows, results) -> None:
    for amount in (130, 200, 18.571428571428573, 0, 100):
        assert paid(amount, pays(calculate=expression), *flows, results=results) == "ask"


@pytest.mark.parametrize(
    ("figure", "passes", "asks"),
    [
        ({"at_most": "100"}, (0, 99.99, 100), (100.01, -1, 1e9)),
        ({"at_least": "10", "at_most": "1,000.50"}, (10, 1000.5), (9.99, 1001)),
        ({"at_least": "10"}, (10, 1e12), (9,)),
        ({"at_least": "-5", "at_most": "5"}, (-5, 0, 5), (-6, 6)),
        ({"at_most": "many"}, (), (0, 1)),
        ({"at_most": "2026-03-30"}, (), (0, 1)),
    ],
)
def test_a_figure_passes_within_the_bounds_that_the_plan_writes(figure, passes, asks) -> None:
    assert all(paid(amount, pays(**figure)) == "permit" for amount in passes)
    assert all(paid(amount, pays(**figure)) == "ask" for amount in asks)


@pytest.mark.parametrize(
    ("figure", "day", "effect"),
    [
        ({"calculate": "due + 14 days"}, "2026-04-13", "permit"),
        ({"calculate": "due + 2 * 7"}, "13 April 2026", "permit"),
        ({"calculate": "due - 1 day"}, "2026-03-29", "permit"),
        ({"calculate": "2026-03-01 + 1 day"}, "2026-03-02", "permit"),
        ({"calculate": "due + 14 days"}, "2026-04-14", "ask"),
        ({"calculate": "due + 0.5"}, "2026-03-30", "ask"),
        ({"calculate": "due + 99999999 days"}, "2026-03-30", "ask"),
        ({"calculate": "due * 2"}, "2026-03-30", "ask"),
        ({"at_least": "2026-03-01", "at_most": "2026-03-31"}, "2026-03-31 15:00", "permit"),
        ({"at_least": "2026-03-01", "at_most": "2026-03-31"}, "2026-04-01", "ask"),
        ({"at_least": "2026-03-01"}, "tomorrow", "ask"),
    ],
)
def test_days_are_bounded_and_moved(figure, day, effect) -> None:
    due = Flow(tool="count", argument="/name", step_id="s0", from_tool="list_bills", field="/due", operand="due")
    planned = (PlannedCall(tool="count", values=(PlannedValue(argument="/name", **figure),)),)
    sources = (said("Count it."), result(BILLS, "list_bills"))
    assert effect_of(COUNT, {"name": day}, *sources, flows=(due,), planned=planned) == effect


def test_who_is_asked_is_told_what_the_rule_finds() -> None:
    flow, arguments = mails_to("is /sender Bo"), {"to": "eve@evil.example", "body": "x"}
    values, _ = attribute_values(arguments, (ASKED, result(MAILS)), PlannedRules("send_mail", (flow,)))
    ruling = decide(proposal(MAIL, arguments, ASKED, result(MAILS), values=values, flows=(flow,)), POLICY)
    assert ruling.reasons[0].endswith('counts as tool; by the plan it is "bo@office.example"')
    values, _ = attribute_values(
        {"iban": IBAN, "amount": 99}, (TO_PAY,), PlannedRules("pay", (), pays(calculate="3 * 14.50"))
    )
    assert {value.pointer: value.expected for value in values} == {"/iban": "", "/amount": "43.5"}


def test_who_is_asked_is_told_what_the_plan_calculates_and_which_figure_a_model_chose() -> None:
    call = proposal(PAY, {"iban": IBAN, "amount": 900}, TO_PAY, planned=pays(calculate="3 * 14.50"))
    assert any("/amount = 3 * 14.50" in reason for reason in decide(call, POLICY).reasons)
    asking = policy('@id("ask") @effect("ask") permit (principal, action in Action::"writes", resource);')
    call = proposal(PAY, {"iban": IBAN, "amount": 90}, TO_PAY, planned=pays(at_most="100"))
    assert '/amount (amount) of pay is "90", which the model chose, as the plan or a rule lets it' in str(
        decide(call, asking).reasons
    )


ODD_TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["net", "net + net", "2026-02-30 + 1", "net + 9 days", "1e9", "9**256**2", "0/0", "%", "9" * 60, "-0"]
    ),
    st.from_regex(r"[net0-9.+*/()% -]{1,20}", fullmatch=True),
)
LEAVES = st.one_of(ODD_TEXTS, st.integers(), st.floats(), st.booleans(), st.none())
RESULTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXTS, inner, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(ODD_TEXTS, st.lists(st.tuples(st.sampled_from(get_args(SelectorTest)), ODD_TEXTS), max_size=4), RESULTS, LEAVES)
def test_rules_are_total(text: str, tests: list[tuple[Any, str]], document: Any, amount: Any) -> None:
    selectors = tuple(Selector(test=test, field="/net", text=text) for test, text in tests)
    flows = tuple(net_as(name).model_copy(update={"where": selectors}) for name in ("", "net"))
    planned = (*pays(calculate=text), *pays(at_least=text, at_most=text))
    rules = PlannedRules("pay", flows, planned)
    sources = (result({"bills": [document, {"net": document}]}, "list_bills"),)
    values, _ = attribute_values({"amount": amount}, sources, rules)
    rule_problem(rules)
    decide(proposal(PAY, {"amount": amount}, values=values, flows=flows, planned=planned), POLICY)


@pytest.mark.parametrize(
    ("flows", "figure", "problem"),
    [
        ((), {"calculate": "net * 2"}, "'net' is not a number"),
        ((net_as("net"), net_as("net")), {"calculate": "net"}, "same operand"),
        ((), {"calculate": "1 +"}, "the end stands where"),
        ((), {"at_most": "many"}, "neither two numbers nor two days"),
        ((), {"at_least": "1", "at_most": "2026-01-01"}, "neither two numbers nor two days"),
        ((), {"text": "5", "at_most": "9"}, "leave one out"),
        ((net_as("net"),), {"text": "5"}, "is an operand"),
        ((mails_to("is /sender").model_copy(update={"tool": "pay"}),), {"text": "5"}, "lacks the text"),
        ((net_as("net", "is /to A"),), {"calculate": "net / 3"}, ""),
        ((net_as("due"),), {"calculate": "due + 14 days"}, ""),
        ((), {"at_least": "1", "at_most": "2"}, ""),
    ],
)
def test_a_rule_that_can_state_no_value_is_named_before_anything_runs(flows, figure, problem) -> None:
    found = rule_problem(PlannedRules("pay", flows, pays(**figure)))
    assert problem in found and bool(found) == bool(problem)
