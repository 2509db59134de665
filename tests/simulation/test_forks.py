"""Chunks of seeds in forks: every row comes back, a fork that dies is told, and no chunk begins that nobody wants."""

import os

import pytest

from .forks import CHUNK, ForkDied, in_forks


def test_every_seed_is_run_once_in_forks():
    seeds = range(7, 7 + 3 * CHUNK + 1)
    told = "x" * 100_000  # More than a pipe holds.
    rows = [
        row
        for rows in in_forks(
            seeds, 2, lambda chunk: [{"seed": seed, "pid": os.getpid(), "told": told} for seed in chunk], lambda: True
        )
        for row in rows
    ]
    assert sorted(row["seed"] for row in rows) == list(seeds) and all(row["told"] == told for row in rows)
    pids = {row["pid"] for row in rows}
    assert len(pids) == 4 and os.getpid() not in pids


def test_a_fork_that_dies_is_told_with_its_seeds(capfd):
    def rows_of(chunk):
        if 30 in chunk:
            raise MemoryError("no room")
        return [{"seed": seed} for seed in chunk]

    with pytest.raises(ForkDied, match=f"seeds {1 + CHUNK}-{2 * CHUNK} ended with 1"):
        list(in_forks(range(1, 200), 1, rows_of, lambda: True))
    assert "no room" in capfd.readouterr().err


def test_no_chunk_begins_that_nobody_wants():
    found = []
    for rows in in_forks(range(1, 1_000), 2, list, lambda: not found):
        found.append(rows)
    assert len(found) == 2
