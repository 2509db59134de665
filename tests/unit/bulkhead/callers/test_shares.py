"""Shares of what a replica holds: the smallest that is full is named, and what is given back leaves nothing behind."""

from bulkhead.callers.shares import Share, Shares


def test_the_smallest_full_share_is_named() -> None:
    shares = Shares(6, 4, 2)
    for person, more, full in (
        ("ann", 2, None),
        ("ann", 1, Share("person", 2)),
        ("bob", 2, None),
        ("eve", 1, Share("tenant", 4)),
    ):
        assert shares.first_full_share("acme", person, more) == full
        if full is None:
            shares.hold_amount("acme", person, more)
    shares.hold_amount("other", "ann", 2)
    assert shares.first_full_share("third", "ann") == Share("all", 6) and shares.held == 6
    assert shares.first_full_share("acme", "ann", 0) is None, "what is held fits"


def test_what_is_given_back_leaves_nothing() -> None:
    shares = Shares(6, 4, 2)
    shares.hold_amount("acme", "ann", 2)
    shares.hold_amount("acme", "ann", 0)
    shares.release_amount("acme", "ann", 2)
    assert shares.held == 0 and not shares._held
