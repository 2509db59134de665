"""The floors of the watcher, in processor time: `python -m tests.bench.measures.watching` measures the same at
length."""

from tests.bench.measures.watching import MAX_EDGE_P99_MS, MIN_FOLD_PER_S, edge_ms, fold_per_s


def test_the_detectors_keep_up_with_the_journal() -> None:
    assert fold_per_s(0.2)["fold_per_s"] >= MIN_FOLD_PER_S


def test_an_edge_among_many_takes_less_than_a_millisecond() -> None:
    figures = edge_ms(20_000)
    assert figures["edges_live"] > 19_000 and figures["edge_p99_ms"] < MAX_EDGE_P99_MS
