"""Tenants' policies on where their data goes, before real local servers: nothing of theirs goes elsewhere."""

from typing import Any

import pytest
from pydantic import ValidationError

from bulkhead_contracts.model import ModelsRequested
from bulkhead_services.model_gateway.routing.options import ProviderSettings, TenantDataPolicy
from bulkhead_services.model_gateway.routing.policies import policy_objection
from bulkhead_services.model_gateway.settings import Settings
from tests.unit.services.model_gateway.gateway_desk import TENANT, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, fails, says

EU = {"model": "eu-1", "provider": "eu"}
US = {"model": "us-1", "provider": "us"}
FREE = ("eu-1", "us-1", "other-1")


@pytest.fixture
async def eu():
    async with ScriptedProvider() as found:
        yield found


@pytest.fixture
async def us():
    async with ScriptedProvider() as found:
        found.will(says("from abroad"))
        yield found


def settings(eu: ScriptedProvider, us: ScriptedProvider, route: dict[str, Any], **policy: Any) -> dict[str, Any]:
    return {
        "providers": {
            "eu": {"base_url": eu.url, "api_key": "k", "region": "eu"},
            "us": {"base_url": us.url, "api_key": "k", "region": "us"},
        },
        "routes": {"default": route, "judge": EU},
        "free_models": FREE,
        "tenant_policies": {TENANT: {"regions": ["eu"], **policy}},
        "provider_attempts": 2,
    }


@pytest.mark.parametrize(
    "route", [{**EU, "fallback": US}, {**EU, "fallback": US, "hedge_after_ms": 50}, {**EU, "escalation": US}]
)
async def test_an_eu_tenant_whose_provider_is_down_never_goes_abroad(eu, us, route):
    eu.will(fails(503, "down"))
    async with desk(eu, **settings(eu, us, route)) as d:
        reply = await d.ask(d.request(attempt=2))
        assert reply.outcome == "failed" and reply.failure.code == "provider_error" and not us.asked
        assert "policy of tenant demo leaves out us-1 at us (region us; allowed: eu)" in reply.failure.message
        assert "BULKHEAD_TENANT_POLICIES" in reply.failure.hint and "BULKHEAD_ROUTES" in reply.failure.hint


async def test_a_silent_provider_of_an_eu_tenant_is_not_hedged_abroad(eu, us):
    async def silent(x: Exchange) -> None:
        assert await x.hung_up()

    eu.will(silent)
    async with desk(eu, **settings(eu, us, {**EU, "fallback": US, "hedge_after_ms": 50})) as d:
        reply = await d.ask(d.request(deadline_unix_ms=d.now_ms() + 600))
        assert reply.failure.code == "deadline_too_short" and not us.asked


async def test_an_eu_tenant_waits_for_its_provider_and_is_answered_when_it_is_back(eu, us):
    eu.will(fails(503, retry_after="0.2"), says("from home"))
    async with desk(eu, **settings(eu, us, {**EU, "fallback": US})) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "from home" and not us.asked and reply.waited_ms >= 150


async def test_the_first_model_that_a_policy_allows_is_no_stand_in(eu, us):
    eu.will(says("from home"))
    async with desk(eu, **settings(eu, us, {**US, "fallback": EU})) as d:
        reply = await d.answered()
        assert reply.provider == "eu" and reply.standing == "ok" and reply.chosen_as == "first" and not us.asked


async def test_a_tenant_is_told_of_the_routes_that_its_policy_leaves_a_model(eu, us):
    given = settings(eu, us, {**US, "fallback": EU})
    given["routes"]["abroad"] = {"model": "other-1", "provider": "us"}
    async with desk(eu, **given) as d:
        said = {}
        for tenant in (TENANT, "another"):
            ask = d.mesh.context("doors").publisher.request
            asked = {"tenant": tenant, "task": "doors-models", "index": tenant, "actor": "ada", "timeout_s": 5.0}
            reply = await ask("model_gateway", ModelsRequested(), **asked)
            said[tenant] = reply.names
            assert len(reply.context_tokens) == len(reply.names) and min(reply.context_tokens) > 0
    assert said == {
        TENANT: ("default", "judge", "eu-1"),
        "another": ("default", "judge", "abroad", "us-1", "eu-1", "other-1"),
    }


async def test_a_tenant_without_a_policy_is_unrestricted(eu, us):
    eu.will(fails(503))
    given = settings(eu, us, {**EU, "fallback": US})
    given["tenant_policies"] = {"another": given["tenant_policies"][TENANT]}
    async with desk(eu, **given) as d:
        assert await d.text((await d.answered()).content) == "from abroad"


async def test_a_tier_of_which_nothing_is_allowed_is_refused_before_any_money(eu, us):
    eu.will(says("x"))
    given = settings(eu, us, EU)
    given["routes"]["genius"] = US
    async with desk(eu, **given) as d:
        reply = await d.ask(d.request(tier="genius"))
        assert reply.outcome == "refused" and reply.failure.code == "refused_by_policy"
        assert "us-1 at us (region us; allowed: eu)" in reply.failure.message and "tenant demo" in reply.failure.message
        assert "BULKHEAD_ROUTES" in reply.failure.hint and not d.purse.asked and not us.asked and not eu.asked


@pytest.mark.parametrize(
    ("policy", "terms", "against"),
    [
        ({"regions": ("eu",)}, {"region": "eu"}, ""),
        ({"regions": ("eu",)}, {"region": "us"}, "region us"),
        ({"regions": ("eu",)}, {}, "not known"),
        ({"retention": "none"}, {"retention": "none"}, ""),
        ({"retention": "none"}, {"retention": "30d"}, "30d"),
        ({"retention": "none"}, {}, "not known"),
        ({"training": False}, {"trains_on_data": False}, ""),
        ({"training": False}, {"trains_on_data": True}, "trains"),
        ({"training": False}, {}, "not known"),
        ({"providers": ("p",)}, {}, ""),
        ({"providers": ("q",)}, {}, "provider p"),
        ({"providers": ("p",), "regions": ("eu",)}, {"region": "us"}, "region us"),
    ],
)
def test_what_is_not_known_is_not_allowed(policy, terms, against):
    said = policy_objection(TenantDataPolicy(**policy), "p", ProviderSettings(base_url="http://h/v1", **terms))
    assert (against in said) if against else said == ""


def test_a_model_may_have_other_terms_than_its_provider(eu, us):
    given = settings(eu, us, {**US, "region": "eu"})
    assert Settings(**given)
    given["routes"]["default"] = {**EU, "region": "us"}
    with pytest.raises(ValidationError, match="region us"):
        Settings(**given)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        ({}, "allows everything"),
        ({"region": ["eu"]}, "Extra inputs"),
        ({"training": True}, "False"),
        ({"retention": "30d"}, "none"),
        ({"providers": ["nobody"]}, "'nobody', which is not configured"),
        ({"regions": ["mars"]}, r"'demo' allows no model of tier 'default': us-1 at us \(region us; allowed: mars\)"),
    ],
)
def test_a_policy_that_cannot_be_meant_stops_the_start(eu, us, policy, match):
    with pytest.raises(ValidationError, match=match):
        Settings(**{**settings(eu, us, US), "tenant_policies": {TENANT: policy}})


def test_policies_may_stand_in_a_file(eu, us, tmp_path, monkeypatch):
    path = tmp_path / "policies.json"
    path.write_text('{"demo": {"regions": ["eu"]}}')
    monkeypatch.setenv("BULKHEAD_TENANT_POLICIES_FILE", str(path))
    given = settings(eu, us, EU)
    del given["tenant_policies"]
    assert Settings(**given).tenant_policies["demo"].regions == ("eu",)
