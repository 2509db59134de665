"""The desk on a mesh: the same tests on every kind of it."""

import pytest

FARES = "# Fares\n\nA refund of a Light ticket costs EUR 35.\n\nA Flex ticket is refunded in full.\n"
QUESTION = "What does a refund of a Light ticket cost?"


def refund(mesh, order: str = "A-17"):
    """A task of one step, carried out by the desk."""
    instruction = f"Use refund with order={order} amount_cents=3500."
    return mesh.submit(
        f"Refund order {order}.",
        plan={
            "steps": [
                {
                    "id": "pay",
                    "title": "Refund",
                    "instruction": instruction,
                    "tools": ["refund"],
                    "role": "desk",
                    "acceptance": "The refund is confirmed.",
                }
            ]
        },
    )


def test_an_answer_rests_on_the_documents(a_mesh):
    a_mesh.add_document(FARES, "fares.md")
    task = a_mesh.submit(QUESTION, limit_usd=0.05).succeeded()
    assert task.answer.says("EUR 35") and task.answer.cites("fares.md")
    assert task.spend.within(0.05) and task.spend.micros > 0 and not task.spend.open
    assert task.trace.has_edge("worker", "rag") and task.trace.has_edge("model_gateway", "budget")
    assert task.trace.has_no_edge("worker", "tool_executor")
    assert [step["status"] for step in task.steps] == ["accepted"]
    assert task.timeline[0]["type"].startswith("mesh.task.requested") and task.journal
    assert task.status == "succeeded" and task.failure is None


def test_tests_that_share_a_mesh_do_not_meet(a_mesh):
    task = a_mesh.submit(QUESTION).succeeded()
    with pytest.raises(AssertionError, match=r"fares.md is not cited; it cites nothing"):
        task.answer.cites("fares.md")


def test_money_is_paid_once_although_the_payer_dies_while_it_pays(a_mesh, faults, effects):
    with effects.held("refund") as payment:
        task = refund(a_mesh)
        payment.wait()
        faults.kill("tool_executor")
    task.ended("succeeded")
    assert effects.exactly_once("refund", order="A-17") and task.effects.exactly_once("refund", amount_cents=3500)
    assert task.trace.has_edge("worker", "tool_executor")


def test_a_lost_answer_of_the_desk_is_asked_for_again(a_mesh, effects):
    effects.misbehave("refund", "drop_after")
    refund(a_mesh).succeeded()
    assert len(effects.arrivals("refund")) == 2 and effects.exactly_once("refund")


def test_services_that_stand_still_or_are_cut_off_only_delay(a_mesh, faults):
    with faults.paused("worker"), faults.disconnected("checker"):
        task = a_mesh.submit(QUESTION)
        task.until("task.accepted")
    with faults.slow_broker(delay_ms=5):
        task.succeeded()
    with faults.down("planner"):
        late = a_mesh.submit(QUESTION)
        assert late.status in ("requested", "running")
    late.succeeded()


def test_a_model_that_misbehaves(a_mesh, offline_model):
    offline_model.script("429", "cut_stream", "bad_plan_cyclic")
    a_mesh.submit(QUESTION).succeeded()
    assert offline_model.was_met()
    assert "429" in {one["fault"] for one in offline_model.requests()}


def test_a_claim_that_does_not_hold_says_what_is_so(a_mesh, effects):
    task = refund(a_mesh, "B-2").succeeded()
    with pytest.raises(AssertionError, match=r"it has happened once\n  refund .*\"B-2\".* done"):
        effects.never("refund")
    with pytest.raises(AssertionError, match=r"refund was never done.*\nnobody asked for refund"):
        a_mesh.submit(QUESTION).effects.exactly_once("refund")
    with pytest.raises(AssertionError, match=r"it has cost \$0\.\d+ in \d+ calls\n  \$0\.\d+ model_gateway: "):
        task.spend.within(0)
    with pytest.raises(AssertionError, match=r"(?s)no such message.*worker -> tool_executor \(\d\)"):
        task.trace.has_edge("checker", "tool_executor")
    with pytest.raises(AssertionError, match=r"task.ended\('failed'\): it has succeeded\n"):
        task.ended("failed")
    with pytest.raises(ValueError, match="no service 'wurker'"):
        task.trace.has_edge("wurker", "budget")


def test_what_a_mesh_cannot_do_it_says_with_what_can(a_mesh, faults):
    from bulkhead.testing.mesh_backend import CannotDo

    a_mesh.submit(QUESTION).succeeded()
    if a_mesh.mode == "memory":
        with pytest.raises(CannotDo, match=r"cannot empty Redis: .* use mesh_processes or mesh"):
            faults.empty_redis()
    else:
        faults.empty_redis()
    a_mesh.submit(QUESTION).succeeded()


def test_a_disk_that_fills_up_in_the_middle_of_a_payment(a_mesh, faults, effects, pytestconfig):
    from bulkhead.testing.mesh_backend import CannotDo

    own_disk = a_mesh.mode == "processes" and pytestconfig.getini("bulkhead_disk_mib") != "0"
    with effects.held("refund") as payment:
        task = refund(a_mesh)
        payment.wait()
        if a_mesh.mode != "containers" and not own_disk:
            with pytest.raises(CannotDo, match=r"cannot fill the disk: .* use .*mesh"):
                faults.full_disk()
            return
        full = faults.full_disk()
    with full, pytest.raises(AssertionError, match=r"(?s)not ended within 3 s\n.*(worker -> tool_exec|cannot be read)"):
        task.ended(timeout_s=3)
    task.succeeded()
    assert effects.exactly_once("refund")


async def test_a_test_may_be_async(a_mesh):
    task = a_mesh.submit(QUESTION)
    assert task.succeeded().document["task_id"] == task.id
