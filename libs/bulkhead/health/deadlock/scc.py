"""Strongly connected components of a directed graph. In: nodes and their successors. Out: cyclic groups only.

Tarjan, "Depth-first search and linear graph algorithms" (SIAM J. Computing 1972), without recursion: a chain of ten
thousand waits is no deeper than one.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

_DONE = sys.maxsize
"""The number of a node whose group is complete: it lowers no other's."""


def cyclic_components(nodes: Iterable[str], successors: Callable[[str], Iterable[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other, each of them on a cycle; a node alone only when it follows itself.

    Time and space are linear in what can be reached from `nodes`. The order derives from that of `nodes`.
    """
    groups: list[set[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def enter_node(name: str) -> tuple[str, Iterator[str]]:
        number[name] = low[name] = len(number)
        stack.append(name)
        return name, iter(successors(name))

    for root in nodes:
        work = [enter_node(root)] if root not in number else []
        while work:
            name, remaining = work[-1]
            for target in remaining:
                if target not in number:
                    work.append(enter_node(target))
                    break
                low[name] = min(low[name], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    group = set[str]()
                    while name not in group:
                        group.add(stack.pop())
                    number.update(dict.fromkeys(group, _DONE))
                    if len(group) > 1 or name in successors(name):
                        groups.append(group)
    return groups
