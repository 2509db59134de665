"""An attribution is believed for the call that it was signed for, and for no other."""

import pytest

from bulkhead.grants import Signer, Verifier, new_signing_seed, public_of
from bulkhead.grants.attribution import arguments_sha256, verified_attribution
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.result import Label
from bulkhead_contracts.tool import ToolCallRequested

SEEDS = {name: new_signing_seed() for name in ("model_gateway", "worker", "tool_executor")}
VERIFIER = Verifier({name: public_of(seed) for name, seed in SEEDS.items()})
ARGUMENTS = '{"to": "ann@example.org", "amount": 5}'


def signed(by: str = "model_gateway", tenant: str = "demo", task: str = "t1", **more: object) -> Attribution:
    sha256 = arguments_sha256(ARGUMENTS)
    assert sha256 is not None
    said = {"tool": "pay", "arguments_sha256": sha256, "observed_by": by, **more}
    return Signer(by, SEEDS[by]).sign_attribution(Attribution.model_validate(said), tenant, task)


def call(said: Attribution | None, arguments_json: str = ARGUMENTS, tool: str = "pay") -> ToolCallRequested:
    return ToolCallRequested(
        call_id="c",
        step_id="s",
        attempt=1,
        tool=tool,
        arguments_json=arguments_json,
        deadline_unix_ms=1,
        attribution=said,
    )


@pytest.mark.parametrize("written", [ARGUMENTS, '{"amount":5.0,"to":"ann\\u0040example.org"}'])
def test_it_is_believed_however_its_arguments_are_written(written):
    assert verified_attribution(call(signed(), written), "demo", "t1", VERIFIER) == signed()


@pytest.mark.parametrize(
    "request_",
    [
        call(None),
        call(signed().model_copy(update={"signature": ""})),
        call(signed().model_copy(update={"signature": signed(least="user").signature})),
        call(signed().model_copy(update={"least": "user"})),
        call(signed(task="t2")),
        call(signed(tenant="acme")),
        call(signed(by="worker")),
        call(signed(by="tool_executor")),
        call(signed(by="tool_executor").model_copy(update={"observed_by": "model_gateway"})),
        call(signed(), '{"to": "eve@example.org", "amount": 5}'),
        call(signed(), '{"to": "eve@example.org", "amount": 5, "to": "ann@example.org"}'),
        call(signed(), "no json"),
        call(signed(), tool="wire"),
    ],
    ids=[
        "stripped",
        "unsigned",
        "signature of another",
        "changed",
        "foreign task",
        "foreign tenant",
        "of a decider",
        "of another doer",
        "forged",
        "other arguments",
        "a key twice",
        "no arguments",
        "other tool",
    ],
)
def test_nothing_else_is_believed(request_):
    assert verified_attribution(request_, "demo", "t1", VERIFIER) is None


def test_no_signature_is_good_for_another_kind_of_word():
    """A label's bytes must not pass for an attribution's, whatever is in them."""
    label = Label(sha256="a" * 64, kind="tool_result", observed_by="model_gateway")
    mark = Signer("model_gateway", SEEDS["model_gateway"]).sign_label(label, "demo", "t1").signature
    assert verified_attribution(call(signed().model_copy(update={"signature": mark})), "demo", "t1", VERIFIER) is None
