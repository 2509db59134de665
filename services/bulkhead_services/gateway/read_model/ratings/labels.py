"""The queue of answers that people label, pure: which are in the sample, whose turn it is, how far they agree.

In: ended tasks with the labels that they have. Out: a queue for one person. Everything is drawn by digests: the same
sample for everybody, which stays as it is when tasks come; and for each person another order, so that two who label at
the same time seldom have the same answer before them.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from bulkhead.evaluation.statistics import cohen_kappa
from bulkhead.gateway_api.ratings import MAX_QUEUE, LabelAgreement, LabelQueue
from bulkhead_contracts.rating import Score

MAX_PAIRS = 100


class LabelledTask(NamedTuple):
    """A task that has an answer, and its labels by person."""

    task: str
    labels: Mapping[str, Score]


def build_queue(
    tasks: Iterable[LabelledTask], person: str, share: int, double_every: int, *, oversees: bool
) -> LabelQueue:
    """The queue of a person. oversees: the role may see how far people agree, once all doubled answers are done."""
    sample = [task for task in tasks if _digest_number(f"sample/{task.task}") % 100 < share]
    label_counts = {task.task: _labels_wanted(task.task, double_every) for task in sample}
    doubled = [task for task in sample if label_counts[task.task] == 2]
    doubled_done = [task for task in doubled if len(task.labels) >= 2]
    shows_agreement = oversees and bool(doubled) and len(doubled_done) == len(doubled)
    unlabelled = [
        task.task for task in sample if person not in task.labels and len(task.labels) < label_counts[task.task]
    ]
    unlabelled.sort(key=lambda task: _digest_number(f"order/{person}/{task}"))
    return LabelQueue(
        tasks=tuple(unlabelled[:MAX_QUEUE]),
        sampled=len(sample),
        labelled=sum(len(task.labels) >= label_counts[task.task] for task in sample),
        own=sum(person in task.labels for task in sample),
        doubled=len(doubled),
        doubled_done=len(doubled_done),
        agreement=measure_agreement(doubled) if shows_agreement else (),
    )


def measure_agreement(tasks: Sequence[LabelledTask]) -> tuple[LabelAgreement, ...]:
    """Agreement of each two people over the answers that both have labelled, those with the most first."""
    pairs: dict[tuple[str, str], list[tuple[Score, Score]]] = {}
    for task in tasks:
        for first, second in combinations(sorted(task.labels), 2):
            pairs.setdefault((first, second), []).append((task.labels[first], task.labels[second]))
    rows = [
        LabelAgreement(
            people=people,
            tasks=len(labels),
            agreed=sum(first == second for first, second in labels),
            kappa=_kappa_of(labels),
        )
        for people, labels in pairs.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.tasks, row.people))[:MAX_PAIRS])


def _kappa_of(labels: Sequence[tuple[Score, Score]]) -> float | None:
    kappa = cohen_kappa([(first == "good", second == "good") for first, second in labels])
    return None if math.isnan(kappa) else round(kappa, 4)


def _labels_wanted(task: str, double_every: int) -> int:
    return 2 if double_every and _digest_number(f"double/{task}") % double_every == 0 else 1


def _digest_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
