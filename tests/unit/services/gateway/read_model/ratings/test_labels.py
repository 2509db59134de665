"""The queue of labels: the same sample for everybody, the second person for some, agreement when all is done."""

from bulkhead_services.gateway.read_model.ratings.labels import LabelledTask, build_queue


def tasks_of(count: int, **labels: str) -> list[LabelledTask]:
    return [LabelledTask(f"t{number}", labels) for number in range(count)]  # type: ignore[arg-type]


def test_a_share_is_the_same_for_everybody_and_stays_when_tasks_come() -> None:
    few, many = (build_queue(tasks_of(count), "ann", 30, 0, oversees=False) for count in (200, 1_000))
    assert 40 <= few.sampled <= 80 and 250 <= many.sampled <= 350
    assert build_queue(tasks_of(200), "bob", 30, 0, oversees=False).sampled == few.sampled
    assert few.tasks != build_queue(tasks_of(200), "bob", 30, 0, oversees=False).tasks, "another order for each"


def test_every_fifth_answer_goes_to_a_second_person_and_no_answer_to_a_third() -> None:
    tasks = tasks_of(500, ann="good")
    queue = build_queue(tasks, "bob", 100, 5, oversees=False)
    assert 75 <= queue.doubled <= 125 and queue.labelled == 500 - queue.doubled and len(queue.tasks) == 20
    assert build_queue(tasks, "ann", 100, 5, oversees=False).tasks == ()
    both = build_queue(tasks_of(500, ann="good", bob="bad"), "eve", 100, 5, oversees=True)
    assert both.tasks == () and both.doubled_done == both.doubled and both.agreement[0].agreed == 0


def test_agreement_is_shown_once_all_doubled_answers_are_done() -> None:
    half = [*tasks_of(3, ann="good", bob="good"), LabelledTask("x", {"ann": "good"})]
    assert build_queue(half, "olga", 100, 1, oversees=True).agreement == ()
    done = [*half[:3], LabelledTask("x", {"ann": "good", "bob": "bad"})]
    assert build_queue(done, "olga", 100, 1, oversees=False).agreement == ()
    assert build_queue(done, "olga", 100, 0, oversees=True).agreement == (), "a queue without doubled ones shows none"
    [row] = build_queue(done, "olga", 100, 1, oversees=True).agreement
    assert (row.people, row.tasks, row.agreed, row.kappa) == (("ann", "bob"), 4, 3, 0.0)


def test_there_is_no_kappa_where_chance_explains_all() -> None:
    [row] = build_queue(tasks_of(9, ann="good", bob="good"), "olga", 100, 1, oversees=True).agreement
    assert (row.agreed, row.kappa) == (9, None)
