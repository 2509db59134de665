"""Strongly connected components of a directed graph. In: nodes and their successors. Out: cyclic groups only.

Tarjan, "Depth-first search and linear graph algorithms" (SIAM J. Computing 1972), without recursion: a chain of ten
thousand waits is no deeper than one.
"""

from collections.abc import Callable, Iterable, Iterator


def components(nodes: Iterable[str], successors: Callable[[str], Iterable[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other, each of them on a cycle; a node alone only when it follows itself.

    Time and space are linear in what can be reached from `nodes`. The order derives from that of `nodes`.
    """
    found: list[set[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    for root in nodes:
        if root in number:
            continue
        work: list[tuple[str, Iterator[str]]] = [_enter(root, number, low, stack, waiting, successors)]
        while work:
            name, rest = work[-1]
            for one in rest:
                if one not in number:
                    work.append(_enter(one, number, low, stack, waiting, successors))
                    break
                if one in waiting:
                    low[name] = min(low[name], number[one])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    group = _leave(name, stack, waiting)
                    if len(group) > 1 or name in successors(name):
                        found.append(group)
    return found


def _enter(
    name: str,
    number: dict[str, int],
    low: dict[str, int],
    stack: list[str],
    waiting: set[str],
    successors: Callable[[str], Iterable[str]],
) -> tuple[str, Iterator[str]]:
    number[name] = low[name] = len(number)
    stack.append(name)
    waiting.add(name)
    return name, iter(successors(name))


def _leave(name: str, stack: list[str], waiting: set[str]) -> set[str]:
    group: set[str] = set()
    while name not in group:
        one = stack.pop()
        waiting.discard(one)
        group.add(one)
    return group
