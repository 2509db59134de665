"""Policies: what a folder must hold, where a mistake is, and which rule counts."""

from pathlib import Path

import pytest

from bulkhead.policy.cedar import CedarPolicy, CedarPolicyError, split_statements
from bulkhead.policy.decision import decide
from bulkhead.tools import catalog
from tests.unit.policy.proposals import COUNT, FETCH, HOUSE, PAY, READ, SHIPPED, TOOLS, policy, proposal, said, tool

ASKED = said("count visits by 2, pay 50 EUR to DE89370400440532013000, https://shop.example/a")
CALL = {"name": "visits", "by": 2}


def answer(own: str, spec=COUNT, arguments=CALL, **changes):
    found = decide(proposal(spec, arguments, ASKED, **changes), policy(own))
    return found.effect, found.rule


def test_what_ships_fits_the_tools_of_the_house() -> None:
    shipped = CedarPolicy.load_folder(SHIPPED, [row.spec for row in catalog.tool_rows()], SHIPPED)
    assert [rule.name for rule in shipped.rules_of("demo")] == [
        "default:reads",
        "default:writes",
        "default:trusted",
        "demo:counters",
        "demo:pages",
    ]
    assert shipped.rules_of("acme") == shipped.rules_of("default")


@pytest.mark.parametrize(
    ("own", "effect", "rule"),
    [
        ("", "ask", "default:writes"),
        ('permit (principal, action == Action::"count", resource);', "permit", "acme:line 1"),
        ('\n// why\n@id("x") forbid (principal, action == Action::"count", resource);', "forbid", "acme:x"),
        (
            '@id("yes") permit (principal, action, resource);\n'
            '@id("sign") @effect("ask") forbid (principal, action == Action::"count", resource);',
            "ask",
            "acme:sign",
        ),
        (
            '@effect("ask") forbid (principal, action, resource);\nforbid (principal, action, resource);',
            "forbid",
            "acme:line 2",
        ),
        (
            'permit (principal, action == Action::"count", resource) when { context.arguments has "by" '
            "&& context.arguments.by <= 2 };",
            "permit",
            "acme:line 1",
        ),
        (
            'permit (principal, action == Action::"count", resource) when { context.sources has "name" '
            '&& context.sources.name.contains("tool:x") };',
            "ask",
            "default:writes",
        ),
        (
            'permit (principal in Role::"clerk", action, resource) when { principal.agent == "worker" };',
            "permit",
            "acme:line 1",
        ),
        (
            'permit (principal, action, resource == Tenant::"acme") when { resource.scopes.contains("default") };',
            "permit",
            "acme:line 1",
        ),
    ],
)
def test_of_the_rules_that_apply_the_strictest_form_counts(own: str, effect: str, rule: str) -> None:
    assert answer(own, role="clerk") == (effect, rule)


def test_a_policy_can_bound_calls_spending_risk_and_isolation() -> None:
    own = (
        'permit (principal, action == Action::"count", resource) when { context.calls_before < 3 '
        '&& context.spent_usd_micros < 1000 && context.risk == "medium" && context.isolation == "process" };'
    )
    good = {"calls_before": 2, "spent_usd_micros": 999, "isolation": "process"}
    assert answer(own, **good)[0] == "permit"
    for worse in ({"calls_before": 3}, {"spent_usd_micros": 1000}, {"isolation": "none"}):
        assert answer(own, **{**good, **worse})[0] == "ask"


def test_a_policy_says_whom_it_trusts_where() -> None:
    own = (
        'permit (principal, action == Action::"pay", resource);\n'
        'permit (principal == Source::"tool:directory", action == Action::"flow", resource) '
        'when { context.tool == "pay" && context.kind == "account" && context.field == "/iban" };'
    )
    book = said('{"iban": "GB82WEST12345698765432", "other": "DE89370400440532013000"}', "tool", "directory")
    for iban, name, effect in [
        ("GB82WEST12345698765432", "directory", "permit"),
        ("DE89370400440532013000", "directory", "ask"),
        ("GB82WEST12345698765432", "inbox", "ask"),
    ]:
        source = said(book.text, "tool", name)
        call = proposal(PAY, {"iban": iban, "amount": 50}, said("pay 50 EUR"), source)
        assert decide(call, policy(own)).effect == effect


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("\n\npermit (principal, action, resource) wen { true };", "acme.cedar:3: "),
        ('// a\npermit (principal, action == Action::"cuont", resource);', "acme.cedar:2: "),
        ('permit (principal, action, resource);\n@effect("maybe")\npermit (principal, action, resource);', "cedar:2: "),
        (
            'permit (principal, action == Action::"pay", resource)\nwhen { context.arguments.amuont == 1 };',
            "acme.cedar:1: ",
        ),
        ("permit (principal == ?principal, action, resource);", "acme.cedar:1: "),
        ('@id("a") permit (principal, action, resource);\n@id("a") permit (principal, action, resource);', "cedar:2: "),
        ('@id("a\\nb") permit (principal, action, resource);', "acme.cedar:1: "),
        ("permit (principal, action, resource)", "acme.cedar:1: "),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(own: str, said: str) -> None:
    with pytest.raises(CedarPolicyError, match=said):
        policy(own)


def test_a_folder_without_the_house_stands_beside_it_and_with_it_in_its_place(tmp_path: Path) -> None:
    tools = [row.spec for row in catalog.tool_rows()]
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(CedarPolicyError, match="holds no"):
        CedarPolicy.load_folder(tmp_path, tools, SHIPPED)
    (tmp_path / "acme.cedar").write_text(HOUSE)
    beside = CedarPolicy.load_folder(tmp_path, tools, SHIPPED)
    assert sorted(beside.files) == ["acme.cedar", "default.cedar", "demo.cedar"]
    assert beside.files["acme.cedar"] == HOUSE
    (tmp_path / "default.cedar").write_text(HOUSE)
    assert sorted(CedarPolicy.load_folder(tmp_path, tools, SHIPPED).files) == ["acme.cedar", "default.cedar"]


def test_a_tool_cannot_take_a_groups_name() -> None:
    with pytest.raises(CedarPolicyError, match="rename the tool"):
        policy(tools=(*TOOLS, tool("writes", {})))
    spec = tool("writes", {})
    assert decide(proposal(spec, {}, granted=("writes",)), policy()).code == "not_granted"


def test_a_rule_that_cannot_be_evaluated_forbids() -> None:
    own = 'permit (principal, action, resource);\nforbid (principal, action == Action::"count", resource) when { %s };'
    assert answer(own % "context.spent_usd_micros * 9223372036854775807 > 1", spent_usd_micros=2) == (
        "forbid",
        "acme:line 2",
    )


def test_a_number_that_cedar_cannot_hold_is_refused() -> None:
    assert answer("", arguments={"name": "visits", "by": 2**63}) == ("forbid", "arguments")


def test_tools_that_are_not_declared_fall_under_the_groups() -> None:
    spec = tool("new_tool", {}, effect="write")
    assert decide(proposal(spec, {}, granted=("new_tool",)), policy()).effect == "permit"
    assert decide(proposal(spec, {}, granted=("new_tool",), tenant="other"), policy()).effect == "ask"


def test_the_digest_is_of_all_files() -> None:
    assert policy("").sha256 == policy("").sha256 != policy(" ").sha256


def test_statements_begin_where_they_do() -> None:
    text = '// a; "b\n@id("x;//")\npermit(principal, action, resource);\n\nforbid(principal, action, resource); // end'
    assert [line for line, _ in split_statements(text)] == [2, 5]


def test_answers_are_remembered_by_the_request() -> None:
    own = policy()
    first = [decide(proposal(READ, {"name": "a"}, ASKED), own) for _ in range(2)]
    assert first[0] == first[1]
    assert decide(proposal(FETCH, {"url": "https://shop.example/a"}, ASKED, tenant="other"), own).effect == "forbid"
    assert decide(proposal(FETCH, {"url": "https://shop.example/a"}, ASKED), own).effect == "permit"


def test_rules_about_a_tool_are_those_that_may_decide_about_it() -> None:
    own = (
        '@id("all") forbid (principal, action, resource) when { resource == Tenant::"x" };\n'
        '@id("pay") permit (principal in Role::"clerk", action in [Action::"pay"], resource);\n'
        '@id("flows") permit (principal == Source::"tool:directory", action == Action::"flow", resource)\n'
        'when { context.tool == "pay" };\n'
        '@id("counts") permit (principal, action == Action::"count", resource);'
    )
    loaded = policy(own)
    paying = {rule.name: rule.is_conditional for rule in loaded.rules_about("acme", PAY)}
    assert paying == {
        "default:writes": False,
        "default:trusted": True,
        "acme:all": True,
        "acme:pay": True,
        "acme:flows": True,
    }
    assert "acme:flows" not in {rule.name for rule in loaded.rules_about("acme", COUNT)}
    assert next(rule.name for rule in loaded.rules_about("acme", READ)) == "default:reads"
    assert not any(rule.name.startswith("acme") for rule in loaded.rules_about("other", PAY))
