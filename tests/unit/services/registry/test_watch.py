"""Canaries and drift, folded from tasks that ended: what counts, what is bet on, and what follows."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.telemetry import metrics
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts import subjects
from bulkhead_contracts.prompt import Canary, CanaryWatch, PromptRelease, ReleasesReplied, ReleasesRequested
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.result import Citation, Result, Usage
from bulkhead_contracts.task import RequesterClaim, TaskAccepted, TaskEnded
from bulkhead_services.registry import app as registry
from bulkhead_services.registry.core import plan_rollback
from bulkhead_services.registry.settings import Settings
from bulkhead_services.registry.watch import reader
from bulkhead_services.registry.watch.canary import BOUND, GUARD, MARGIN, CanaryFold, ComparedTask
from bulkhead_services.registry.watch.drift import BLOCK_MS, LEAST_BLOCKS, DriftFold
from bulkhead_services.registry.watch.reader import CanaryWatcher
from bulkhead_services.registry.watch.releases import WatchedReleases
from bulkhead_services.registry.watch.sequential import SequentialTest
from tests.eventually import until
from tests.proof import canary
from tests.proof.canary import measure_false_alarms, measure_regressions
from tests.unit.services.registry.test_core import CANARY, FIRST, SECOND, WHO

TENANT = "demo"
HALF = CANARY.model_copy(update={"canary": Canary(prompts=(SECOND,), percent=50, began=4)})


def ended(good: bool = True, **fields: Any) -> TaskEnded:
    usual = {"status": "succeeded", "result": Result(answered="yes" if good else "no"), "began_unix_ms": 1}
    return TaskEnded(**(usual | {"ended_unix_ms": 1_001} | fields))


def fold_of(sticky_by: Any = "task", propose_after: int = 200) -> CanaryFold:
    return CanaryFold("production", 4, sticky_by, propose_after)


def compared(number: int, in_canary: bool, person: str = "ann") -> ComparedTask:
    return ComparedTask(f"t{number}", person, in_canary, 0.5)


def fill(fold: CanaryFold, tasks: int, **canary: Any) -> None:
    """So many tasks, every second one in the canary."""
    for number in range(tasks):
        end = ended(**canary) if number % 2 else ended()
        fold.add_end(compared(number, number % 2 == 1, f"p{number}"), end, 0)


def evidence(fold: CanaryFold, metric: str) -> Any:
    return next(row for row in fold.report_watch().evidence if row.metric == metric)


def test_a_bet_is_fair_whatever_is_known():
    """The expectation of each factor is 1 where the side has nothing to do with the fact."""
    for share in (0.01, 0.1, 0.5):
        for is_bad in (True, False):
            expected = {"worse": 0.0, "better": 0.0}
            for in_canary, chance in ((True, share), (False, 1 - share)):
                test = SequentialTest()
                test.bet_worse(is_bad, in_canary, share)
                test.bet_better(is_bad, in_canary, share)
                expected = {name: total + chance * getattr(test, f"{name}_stake") for name, total in expected.items()}
            assert expected == pytest.approx({"worse": 1.0, "better": 1.0})


@pytest.mark.slow
def test_canaries_without_a_change_stay_and_worse_ones_go():
    figures = [*measure_false_alarms(6), *measure_regressions(2)]
    assert all(figure.holds for figure in figures), figures


def test_a_regression_that_is_never_caught_is_a_figure_that_does_not_hold(monkeypatch):
    monkeypatch.setattr(canary, "WORSE", {"nothing": (canary.REST, "quality")})
    monkeypatch.setattr(canary, "WORSE_TASKS", 20)
    [figure] = measure_regressions(2)
    assert not figure.holds and figure.value == "0 of 2 caught"


def test_a_regression_is_told_with_the_figures_of_both_sides_and_counts_no_more():
    fold = fold_of()
    fill(fold, 200, good=False)
    watch = fold.report_watch()
    assert (watch.verdict, watch.metric, watch.canary.good) == ("regressed", "quality", 0)
    assert watch.reason.startswith(
        f"more tasks without a full answer: {watch.tasks} of {watch.tasks} in the canary, 0 of"
    )
    assert evidence(fold, "quality").worse >= BOUND
    before = watch.canary.tasks
    fold.add_end(compared(999, True), ended(), 0)
    assert fold.report_watch().canary.tasks == before < 40


def test_what_comes_again_or_was_cancelled_is_not_counted():
    fold = fold_of()
    for _ in range(3):
        fold.add_end(compared(1, True), ended(), 0)
    fold.add_end(compared(2, True), ended(status="cancelled", result=None), 0)
    assert fold.report_watch().canary.tasks == 1


def test_tokens_count_beyond_the_margin_alone():
    for factor, verdict in ((MARGIN - 0.02, "running"), (MARGIN + 0.05, "regressed")):
        fold = fold_of(propose_after=10_000)
        for number in range(300):
            tokens = int(1_000 * (factor if number % 2 else 1))
            end = ended(usage=Usage(input_tokens=tokens))
            fold.add_end(compared(number, number % 2 == 1), end, 0)
        assert (fold.report_watch().verdict, fold.report_watch().metric) == (
            verdict,
            "tokens" if verdict == "regressed" else "",
        )


def test_a_canary_without_a_difference_is_proposed_while_no_metric_looks_worse():
    fold = fold_of(propose_after=20)
    fill(fold, 60)
    watch = fold.report_watch()
    assert (watch.verdict, watch.tasks) == ("no_worse", 30)
    assert watch.reason.startswith("no difference shown in 30 tasks of the canary; nearest to worse are tasks")
    for number in range(100, 200):
        fold.add_end(compared(number, True), ended(good=False), 0)
        if evidence(fold, "quality").worse >= GUARD:
            break
    assert fold.report_watch().verdict == "running", "it is proposed no more"
    for number in range(200, 300):
        fold.add_end(compared(number, True), ended(good=False), 0)
    assert fold.report_watch().verdict == "regressed"


def test_a_canary_that_is_better_by_one_metric_and_looks_worse_by_another_is_not_proposed():
    for bad_from, verdict in ((100, "better"), (84, "running")):
        fold = fold_of(propose_after=50)
        for number in range(100):
            in_canary = number % 2 == 1
            fold.add_end(compared(number, in_canary), ended(good=not in_canary or number < bad_from), 0)
            fold.add_verdict(f"t{number}", is_bad=not in_canary)
        assert fold.report_watch().verdict == verdict
    assert GUARD <= evidence(fold, "quality").worse < BOUND


def test_a_canary_of_few_people_is_not_proposed():
    fold = fold_of("person", propose_after=50)
    for number in range(300):
        in_canary = number % 10 == 0
        fold.add_end(compared(number, in_canary, f"p{number % 30}"), ended(good=not in_canary), 0)
    assert fold.report_watch().verdict == "running", "three people are no test, whatever becomes of them"


def test_a_person_is_bet_on_once_where_people_are_shared_out():
    fold = fold_of("person")
    for number in range(200):
        fold.add_end(compared(number, True, "ann"), ended(good=False), 0)
    assert fold.report_watch().verdict == "running" and evidence(fold, "quality").worse <= 2
    assert evidence(fold, "quality").canary_bad == 200, "all are shown"


def test_a_task_of_somebody_unknown_is_not_bet_on_where_people_are_shared_out():
    fold = fold_of("person", propose_after=10_000)
    for number in range(40):
        fold.add_end(compared(number, number % 2 == 1, ""), ended(good=number % 2 == 0), 0)
    assert fold.report_watch().verdict == "running" and evidence(fold, "quality").worse == 1


def test_tasks_count_in_the_order_in_which_they_began():
    fold = fold_of()
    for number in range(3):
        fold.add_begin(compared(number, number > 0), 1_000 * number)
    fold.add_end(compared(1, True), ended(), 2_500)
    assert fold.report_watch().canary.tasks == 0, "t0 began before it"
    fold.add_end(compared(0, False), ended(), 2_600)
    assert (fold.report_watch().rest.tasks, fold.report_watch().canary.tasks) == (1, 1)


def test_a_task_that_takes_very_long_counts_once_as_bad_when_patience_ends():
    fold = fold_of()
    for number in range(40):
        fold.add_end(compared(number, number % 2 == 1), ended(), 0)
    fold.add_begin(compared(100, True), 1_000)
    fold.add_begin(compared(101, False), 1_500)
    fold.add_end(compared(101, False), ended(), 2_000)
    assert evidence(fold, "quality").rest_tasks == 20, "t100 may still end in time"
    fold.add_begin(compared(102, True), 6_000)
    row = evidence(fold, "quality")
    assert (row.canary_bad, row.canary_tasks, row.rest_tasks) == (1, 21, 21)
    assert [evidence(fold, metric).canary_bad for metric in ("errors", "tokens", "latency")] == [1, 1, 1]
    fold.add_end(compared(100, True), ended(), 9_000)
    assert evidence(fold, "quality") == row and fold.report_watch().canary.tasks == 21, "shown, and not bet on"


def test_a_persons_word_replaces_their_last_one_and_is_bet_on_once_and_no_rating_takes_a_canary_back():
    fold = fold_of(propose_after=10_000)
    for number in range(400):
        fold.add_end(compared(number, number % 2 == 1), ended(), 0)
        fold.add_rating(f"t{number}", "liar", is_bad=number % 2 == 1)
    fold.add_rating("unknown", "ann", is_bad=True)
    assert (fold.report_watch().canary.rated, fold.report_watch().canary.rated_bad) == (200, 200)
    assert fold.report_watch().verdict == "running" and evidence(fold, "ratings").worse <= 2
    for number in range(400):
        fold.add_rating(f"t{number}", f"p{number}", is_bad=number % 2 == 1)
    assert evidence(fold, "ratings").worse >= BOUND, "it is shown"
    assert fold.report_watch().verdict == "running", "and decides nothing"
    for number in range(400):
        for person in ("liar", f"p{number}"):
            fold.add_rating(f"t{number}", person, is_bad=False)
    assert (fold.report_watch().canary.rated_bad, evidence(fold, "ratings").worse) == (0, 1.0)


def test_verdicts_of_certified_judges_take_a_canary_back_and_the_first_of_a_task_counts():
    fold = fold_of(propose_after=10_000)
    for number in range(60):
        fold.add_end(compared(number, number % 2 == 1), ended(), 0)
        for is_bad in (number % 2 == 1, True):
            fold.add_verdict(f"t{number}", is_bad)
    assert (fold.report_watch().verdict, fold.report_watch().metric) == ("regressed", "judges")


def test_verdicts_count_in_the_order_of_their_tasks():
    fold = fold_of()
    fold.add_begin(compared(0, False), 0)
    fold.add_begin(compared(1, True), 1)
    fold.add_end(compared(1, True), ended(), 2)
    fold.add_verdict("t1", is_bad=True)
    assert not [row for row in fold.report_watch().evidence if row.metric == "judges"], "t0 may still end"
    fold.add_end(compared(0, False), ended(), 3)
    assert evidence(fold, "judges").canary_bad == 1


def test_a_rating_of_a_task_that_is_forgotten_ends_no_watch(monkeypatch):
    monkeypatch.setattr("bulkhead_services.registry.watch.canary.MAX_TASKS", 10)
    fold = fold_of(propose_after=10_000)
    fold.add_end(compared(0, True), ended(), 0)
    fold.add_rating("t0", "ann", is_bad=True)
    for number in range(1, 400):
        fold.add_end(compared(number, number % 2 == 1), ended(good=number % 2 == 0), 0)
    assert (fold.report_watch().verdict, fold.report_watch().canary.rated) == ("regressed", 0)


def test_the_registrys_own_release_goes_back_to_what_stood():
    fold = fold_of()
    fill(fold, 200, good=False)
    release = plan_rollback(HALF, fold.report_watch(), 7)
    assert isinstance(release, PromptRelease)
    assert (release.number, release.prompts, release.canary) == (5, (FIRST,), None)
    assert (release.person, release.role) == ("registry", "registry") and release.rolled_back == fold.report_watch()
    assert "the canary of worker.step@r2 does worse: more tasks without a full answer" in release.reason


def minute(number: int, **fields: Any) -> TaskEnded:
    """A task of the feature `chat` that ends in that minute."""
    return ended(feature="chat", **fields).model_copy(update={"ended_unix_ms": BLOCK_MS * (number + 1)})


def test_drift_is_told_when_answers_become_refusals_and_not_before():
    fold, citation = (
        DriftFold(),
        Citation(marker="a" * 12, document="d", document_sha256="0" * 64, chunk_id="c", start=0, end=1),
    )
    good = {"result": Result(answered="yes", citations=(citation,))}
    assert not [alarm for at in range(500) for alarm in fold.add_end(TENANT, f"t{at}", minute(at, **good))]
    refusing = [fold.add_end(TENANT, f"r{at}", minute(at, good=False)) for at in range(500, 500 + LEAST_BLOCKS)]
    [alarm] = [alarm for alarms in refusing for alarm in alarms]
    assert (alarm.feature, alarm.signal) == ("chat", "refused") and alarm.before < 0.05 < 0.2 < alarm.after
    assert fold.list_standing(TENANT, alarm.raised_unix_ms) == [alarm]
    assert not fold.list_standing("other", alarm.raised_unix_ms)


def test_a_batch_of_tasks_that_are_alike_is_no_drift():
    fold = DriftFold()
    alarms = [alarm for at in range(200) for alarm in fold.add_end(TENANT, f"t{at}", minute(at))]
    for number in range(300):
        alarms += fold.add_end(TENANT, f"b{number}", minute(200, good=False))
    for at in range(201, 300):
        alarms += fold.add_end(TENANT, f"u{at}", minute(at))
    assert not alarms


def test_a_tenant_of_many_features_hides_no_drift_of_another():
    fold, alarms = DriftFold(), []
    for at in range(2 * LEAST_BLOCKS + 20):
        alarms += fold.add_end("victim", f"v{at}", minute(at, good=at < LEAST_BLOCKS + 20))
        for other in range(100):
            fold.add_end("other", "o", ended(feature=f"f{at * 100 + other}"))
    assert [alarm.signal for alarm in alarms] == ["refused"]


class Watched:
    """Two replicas of the registry over the memory bus, beside a planner."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self.mesh, self._count = mesh, 0

    async def store(self, release: PromptRelease) -> None:
        subject = subjects.release_subject(TENANT, release.label, release.number)
        await self.mesh.context("registry").bus.publish(subject, release.model_dump_json().encode(), {}, release.ref)

    async def end(self, release: str, **fields: Any) -> None:
        self._count += 1
        send, place = self.mesh.context("planner").publisher.send, {"tenant": TENANT, "task": f"t{self._count}"}
        now_unix_ms = self.mesh.context("planner").clock()
        begun = TaskAccepted(deadline_unix_ms=now_unix_ms, release=release)
        await send("gateway", begun, cause="begin", index="1", **place)
        body = ended(release=release, **fields).model_copy(update={"ended_unix_ms": now_unix_ms})
        await send("gateway", body, cause="end", index="2", **place)

    async def rate(self, task: str, rating: str, **more: Any) -> None:
        fields = {"score": "bad", "person": "ann", "role": "submitter", "rated_unix_ms": 1} | more
        send = self.mesh.context("gateway").publisher.send
        await send("gateway", TaskRated(rating_id=rating, **fields), tenant=TENANT, task=task, cause=rating)

    async def label(self) -> ReleasesReplied:
        claim = RequesterClaim(tenant=TENANT, person="pia", role="prompt_editor", via="api_key")
        ask = ReleasesRequested(requester=claim, label="production")
        publisher = self.mesh.context("gateway").publisher
        self._count += 1
        reply = await publisher.request("registry", ask, tenant=TENANT, task="prompts", index=f"ask/{self._count}")
        assert isinstance(reply, ReleasesReplied)
        return reply


@pytest.fixture
async def watched(tmp_path, monkeypatch):
    for name in ("POLL_S", "IDLE_POLL_S", "RETRY_S"):
        monkeypatch.setattr(reader, name, 0.01)
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text("tenants: {}")
    builds = {"registry": lambda context: registry.build(context, Settings(data_dir=tmp_path, tenants_file=tenants))}
    async with MemoryMesh(builds) as mesh:
        await mesh.start("registry", "1")
        yield Watched(mesh)


async def test_replicas_roll_back_once_after_a_restart_and_a_change_of_share(watched: Watched):
    standing = PromptRelease(label="production", number=3, prompts=(FIRST,), reason="ok", moved_unix_ms=1, **WHO)
    await watched.store(standing)
    await watched.end("production.3", good=False)  # Of the time before the canary.
    await watched.store(HALF)
    for _ in range(4):
        await watched.end("production.4.canary", good=False)
        await watched.end("production.4")
    await until(lambda: is_counted(watched, 4))
    for instance in ("0", "1"):
        watched.mesh.kill_replica("registry", instance)
        await watched.mesh.start("registry", instance)
    await until(lambda: is_counted(watched, 4))
    await watched.store(HALF.model_copy(update={"number": 5}))
    for _ in range(12):
        await watched.end("production.5.canary", good=False)
        await watched.end("production.5")

    async def is_rolled_back() -> bool:
        return (await watched.label()).releases[0].number == 6

    await until(is_rolled_back)
    await watched.end("production.5.canary")
    await asyncio.sleep(0.1)  # Time for a second rollback, which must not come.
    reply = await watched.label()
    assert [row.number for row in reply.releases] == [6, 5, 4, 3] and not reply.canaries
    assert reply.releases[0].role == "registry" and reply.releases[0].rolled_back is not None
    assert reply.releases[0].rolled_back.rest.good == reply.releases[0].rolled_back.rest.tasks


async def test_ratings_of_people_and_of_certified_judges_count_and_labels_do_not(watched: Watched):
    await watched.store(HALF)
    for _ in range(2):
        await watched.end("production.4.canary")
    rows = [
        ("t1", "rating", False),
        ("t1", "judge", False),
        ("t2", "judge", True),
        ("t9", "rating", False),
        ("t2", "label", False),
    ]
    for number, (task, kind, certified) in enumerate(rows):
        await watched.rate(task, f"r{number}", kind=kind, certified=certified)

    async def counts() -> dict[str, tuple[int, int]]:
        canaries = (await watched.label()).canaries
        return {row.metric: (row.canary_bad, row.canary_tasks) for watch in canaries for row in watch.evidence}

    async def are_counted() -> bool:
        return {"ratings", "judges"} <= (await counts()).keys()

    await until(are_counted)
    assert ((await counts())["ratings"], (await counts())["judges"]) == ((1, 1), (1, 1))


class BetweenReads:
    """A bus on which something happens once, after the first read that finds the inbox's end."""

    def __init__(self, bus: Bus, act: Callable[[], Awaitable[None]]) -> None:
        self._bus, self._act = bus, act

    async def read(self, stream: str, subject: str, **more: Any) -> list[StoredMessage]:
        page = await self._bus.read(stream, subject, **more)
        if stream == reader.INBOX and not page and self._act is not None:
            act, self._act = self._act, None
            await act()
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


async def test_replicas_that_read_at_other_moments_fold_the_same(watched: Watched):
    context = watched.mesh.context("registry")

    async def read_release(tenant: str, label: str, number: int) -> PromptRelease | None:
        stored = await context.bus.last(subjects.PROMPTS_STREAM, subjects.release_subject(tenant, label, number))
        return PromptRelease.model_validate_json(stored.body) if stored is not None else None

    async def drop_nothing(tenant: str, watch: CanaryWatch) -> None:
        raise AssertionError((tenant, watch))

    async def end_and_rate() -> None:
        await watched.end("production.4.canary")
        await watched.rate("t2", "r1")

    def build_watcher(bus: Any, labels: ReleaseLabels) -> CanaryWatcher:
        releases = WatchedReleases(labels, WorkflowLedger(context.bus), read_release)
        return CanaryWatcher(bus, releases, context.clock, drop_nothing, 200)

    labels = ReleaseLabels(context.bus)
    live = build_watcher(BetweenReads(context.bus, end_and_rate), labels)
    await live.match_canaries()
    await watched.store(HALF)
    await labels.read_new()  # As an act on labels does, between two looks.
    await watched.end("production.4.canary")
    await live.read_on()
    await live.read_on()
    fresh = build_watcher(context.bus, ReleaseLabels(context.bus))
    await fresh.read_on()
    assert live.list_canaries(TENANT) == fresh.list_canaries(TENANT)
    [watch] = live.list_canaries(TENANT)
    assert (watch.canary.tasks, watch.canary.rated) == (2, 1)


async def test_a_rollback_is_told_by_the_replica_alone_that_stored_it(watched: Watched, tmp_path, monkeypatch):
    await watched.store(HALF)
    for instance in ("0", "1"):
        watched.mesh.kill_replica("registry", instance)
    counted: list[int] = []
    monkeypatch.setattr(metrics.canary_rollbacks, "add", lambda count, labels: counted.append(count))
    context, fold = watched.mesh.context("registry"), fold_of()
    fill(fold, 200, good=False)
    (tmp_path / "tenants.yaml").write_text("tenants: {}\n")
    settings = Settings(data_dir=tmp_path, tenants_file=tmp_path / "tenants.yaml")
    replicas = [registry.build(context, settings) for _ in range(2)]
    for replica in replicas:
        await replica._labels.read_new()
    for replica in replicas:
        await replica.drop_canary(TENANT, fold.report_watch())
    assert counted == [1]


async def is_counted(watched: Watched, tasks: int) -> bool:
    canaries = (await watched.label()).canaries
    return bool(canaries) and (canaries[0].canary.tasks, canaries[0].rest.tasks) == (tasks, tasks)
