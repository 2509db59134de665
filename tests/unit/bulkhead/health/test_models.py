"""A pinned model that answers as another one: told once, with what showed it before and after."""

from dataclasses import replace

import pytest

from bulkhead.health.events import LineageEnded, ModelIdentified
from bulkhead.health.models import MAX_IDENTITIES, ModelIdentities
from bulkhead.health.watch import Watch

NOW = 1_790_000_000_000


def said(number: int, told: str = "m-1", fingerprint: str = "fp_a", **more: object) -> ModelIdentified:
    event = ModelIdentified(f"e{number}", "acme/t1", "acme", "openai", "m-1", told, fingerprint, NOW + number)
    return replace(event, **more)  # type: ignore[arg-type]


def detectors(models: ModelIdentities, *events: ModelIdentified) -> list[str]:
    return [one.detector for event in events for one in models.fold_event(event)]


def test_a_new_fingerprint_is_told_once_with_both_messages_as_evidence() -> None:
    models = ModelIdentities()
    assert not detectors(models, said(1), said(2))
    (found,) = models.fold_event(said(3, fingerprint="fp_b"))
    assert (found.detector, found.level, found.agents) == ("model.fingerprint", "warn", ("openai/m-1",))
    assert found.evidence == ("e1", "e3") and (found.facts["before"], found.facts["after"]) == ("fp_a", "fp_b")
    assert "fp_a" in found.what and "fp_b" in found.what and "bulkhead models probe" in found.hint
    assert not detectors(models, said(4, fingerprint="fp_b")), "once"


def test_a_provider_whose_machines_answer_by_turns_is_told_of_once() -> None:
    models = ModelIdentities()
    turns = [said(number, fingerprint="fp_ab"[: 3 + 1 + number % 2]) for number in range(10)]
    assert detectors(models, *turns) == ["model.fingerprint"]


def test_another_name_is_a_change_of_its_own_and_silence_is_none() -> None:
    models = ModelIdentities()
    assert detectors(models, said(1), said(2, told="m-2", fingerprint="fp_b")) == ["model.name", "model.fingerprint"]
    assert not detectors(models, said(3, told="", fingerprint=""))


@pytest.mark.parametrize("other", [{"tenant": "other"}, {"provider": "azure"}, {"model": "m-9"}])
def test_tenants_providers_and_models_are_told_apart(other: dict[str, str]) -> None:
    assert not detectors(ModelIdentities(), said(1), said(2, fingerprint="fp_b", **other))


def test_what_was_said_before_the_newest_is_learnt_and_no_change() -> None:
    models = ModelIdentities()
    assert not detectors(models, said(5, fingerprint="fp_b"), said(1, fingerprint="fp_a"))
    assert detectors(models, said(6, fingerprint="fp_c")) == ["model.fingerprint"]


def test_it_is_known_again_from_what_was_kept_and_named_alike_whoever_finds_it() -> None:
    first, second = ModelIdentities(), ModelIdentities()
    detectors(first, said(1))
    second.restore_rows(first.dump_rows())
    (found,), (again,) = first.fold_event(said(2, fingerprint="fp_b")), second.fold_event(said(2, fingerprint="fp_b"))
    assert found == again
    late = ModelIdentities()
    detectors(late, said(1, id="later"))
    assert late.fold_event(said(2, fingerprint="fp_b"))[0].id == found.id
    assert not detectors(first, said(1), said(2, fingerprint="fp_b")), "folded again"


def test_no_more_words_are_remembered_than_the_bound() -> None:
    models = ModelIdentities()
    detectors(models, *(said(number, fingerprint=f"fp_{number}") for number in range(MAX_IDENTITIES + 3)))
    assert max(len(row[-1]) for row in models.dump_rows()) == MAX_IDENTITIES  # type: ignore[arg-type]


def test_the_watch_hears_of_it_also_when_the_task_has_ended() -> None:
    watch = Watch()
    assert not watch.fold_event(said(1))
    watch.fold_event(LineageEnded("e2", "acme/t1", NOW))
    assert [one.detector for one in watch.fold_event(said(3, fingerprint="fp_b"))] == ["model.fingerprint"]  # type: ignore[union-attr]
