"""Coordination health, pure: detectors of deadlocks, loops, chatter, spikes and stalls.

In: events with their times in them. Out: suspicions and findings as values, each with its evidence. The code reads no
clock, file or network, so that the watcher, `bulkhead analyze` and a replay of last week's journal agree.
"""
