"""xkeys: the broker's notation of curve keys, and boxes that one alone can open."""

import pytest

from bulkhead.bus.xkeys import BoxNotForUs, public_xkey, seal, seed_of, unseal

OURS, THEIRS = seed_of(bytes(range(32))), seed_of(bytes(range(1, 33)))


def test_seeds_and_keys_begin_as_the_broker_wants_them():
    assert OURS.startswith("SX") and public_xkey(OURS).startswith("X") and len(public_xkey(OURS)) == 56


def test_a_box_opens_for_its_recipient_alone():
    box = seal(b"token", OURS, public_xkey(THEIRS))
    assert box.startswith(b"xkv1") and b"token" not in box
    assert unseal(box, THEIRS, public_xkey(OURS)) == b"token"
    for seed, sender in ((OURS, public_xkey(THEIRS)[:-1] + "A"), (THEIRS, public_xkey(THEIRS))):
        with pytest.raises(ValueError):
            unseal(box, seed, sender)
    for altered in (box[:-1] + bytes((box[-1] ^ 1,)), box[4:], b"xkv1", b""):
        with pytest.raises(BoxNotForUs):
            unseal(altered, THEIRS, public_xkey(OURS))


@pytest.mark.parametrize("seed", ["", "S", "SUAAAA", OURS[:-1] + "A", public_xkey(OURS), "ä" * 58])
def test_what_is_no_seed_is_refused(seed: str):
    with pytest.raises(ValueError, match=r"no xkey|no seed"):
        public_xkey(seed)
