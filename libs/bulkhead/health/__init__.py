"""Coordination health, pure: deadlocks, loops, chatter, spikes and stalls from what is said.

In: events with their times in them. Out: suspicions and trips as values, each with its evidence. Nothing here reads a
clock, a file or the network, so that the watcher, `bulkhead analyze` and a replay of last week's journal agree.
"""
