"""A bounded dict: which entry goes, and who hears of it."""

from bulkhead.bounded_dict import BoundedDict


def test_the_entry_that_was_set_or_used_least_recently_goes():
    gone: list[tuple[str, int]] = []
    kept = BoundedDict[str, int](2, lambda key, value: gone.append((key, value)))
    kept["a"], kept["b"] = 1, 2
    assert kept.get_refreshed("a") == 1 and kept.get_refreshed("c") is None
    kept["c"] = 3
    assert list(kept.items()) == [("a", 1), ("c", 3)] and gone == [("b", 2)]
    kept["a"] = 4
    kept.setdefault("d", 5)
    assert list(kept.items()) == [("a", 4), ("d", 5)] and gone == [("b", 2), ("c", 3)]


def test_an_entry_that_is_taken_away_is_not_told_as_dropped():
    gone: list[str] = []
    kept = BoundedDict[str, int](1, lambda key, value: gone.append(key))
    kept["a"] = 1
    assert kept.pop("a") == 1 and kept.pop("a", None) is None
    kept["b"] = 2
    assert gone == []
