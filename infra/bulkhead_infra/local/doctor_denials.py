"""Tells what the broker refuses to `bulkhead doctor` from what it refuses to others who call themselves so.

In: lines of the broker's log and the time. Out: whose doing they were. Doctor asks for everything once with the key of
each service, to see it refused (cli/bulkhead_cli/operate/doctor_checks.py). A client's name is its own word and proves
nothing; its account is the broker's word, of the key. An intruder in one service has one key; an intruder with all keys
need not ask.
"""

import re
from collections import Counter

from bulkhead_contracts import catalog
from bulkhead_infra.identity.rights import account_of

DOCTOR_REFUSAL = re.compile(
    r'^\[\d+\] \S+ \S+ \[ERR\] \S+ - cid:\d+ - "[^"\\]*:doctor" - "(\w+)/nkey:\w+" - '
    r'Subscription Violation - Subject "mesh\.>", SID \d+$'
)
"""Anchored: a name that holds a quote is written with a backslash, and is no name of doctor's."""
ACCOUNTS = frozenset(account_of(service) for service in catalog.SERVICES)
WITHIN_S = 10.0
"""Doctor tries all keys at the same time; on a machine that is busy the last may be this much later."""


class DoctorRefusals:
    """Refusals by account: `record_line` for every line; then `pop_full_round` and, now and then,
    `pop_other_accounts`.
    """

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._since_s = 0.0

    def record_line(self, line: str, now_s: float) -> bool:
        """Count a line of this kind; False for any other."""
        match = DOCTOR_REFUSAL.search(line)
        if match is None:
            return False
        if not self._asked:
            self._since_s = now_s
        self._asked[match[1]] += 1
        return True

    def pop_full_round(self) -> bool:
        """True when the key of every service was tried by now; one try of each is done with then."""
        if not self._asked.keys() >= ACCOUNTS:
            return False
        self._asked -= Counter(ACCOUNTS)
        return True

    def pop_other_accounts(self, now_s: float) -> list[str]:
        """Accounts that asked, although doctor has had its time to try the rest; they are done with then."""
        if not self._asked or now_s - self._since_s < WITHIN_S:
            return []
        accounts = sorted(self._asked)
        self._asked.clear()
        return accounts
