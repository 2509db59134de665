"""Times of schedules, over changes of the clock."""

from datetime import datetime

import pytest

from bulkhead.workflows.schedules import describe_schedule_misfit, previous_run
from bulkhead_contracts.workflow import WorkflowSchedule


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("cron", "now", "last"),
    [
        ("0 7 * * 1-5", "2026-11-26T07:00:00+01:00", "2026-11-26T07:00:00+01:00"),
        ("0 7 * * 1-5", "2026-11-26T06:59:59+01:00", "2026-11-25T07:00:00+01:00"),
        ("0 7 * * 1-5", "2026-11-30T06:00:00+01:00", "2026-11-27T07:00:00+01:00"),  # Monday: Friday's.
        ("0 7 * * *", "2026-03-29T12:00:00+02:00", "2026-03-29T07:00:00+02:00"),  # Summer began.
        ("0 7 * * *", "2026-10-25T12:00:00+01:00", "2026-10-25T07:00:00+01:00"),  # Summer ended.
    ],
)
def test_the_last_run_is_by_the_clock_of_the_zone(cron: str, now: str, last: str) -> None:
    schedule = WorkflowSchedule(cron=cron, zone="Europe/Berlin")
    assert previous_run(schedule, unix_ms(now)) == unix_ms(last)


def test_an_hour_that_there_is_twice_has_one_run() -> None:
    schedule = WorkflowSchedule(cron="30 2 * * *", zone="Europe/Berlin")
    begin, end = unix_ms("2026-10-24T12:00:00+02:00"), unix_ms("2026-10-25T12:00:00+01:00")
    runs = {previous_run(schedule, moment) for moment in range(begin, end, 60_000)}
    assert len(runs) == 2  # That of the day before, and one.


@pytest.mark.parametrize(
    ("cron", "zone", "reason"),
    [
        ("0 7 * * 1-5", "Europe/Berlin", ""),
        ("* * * * *", "UTC", "more often than every 5 minutes"),
        ("0,55 2,3 * * *", "Europe/Berlin", ""),
        ("59,0 0,23 * * *", "UTC", "more often than every 5 minutes"),
        ("0,1 0 * * *", "UTC", "more often than every 5 minutes"),
        ("0 7 30 2 *", "UTC", "has no times"),
        ("0 7 * * 1-5 2030", "UTC", "has not five fields"),
        ("not a cron at all", "UTC", "has no times"),
        ("0 7 * * *", "Mars/Base", "no time zone is called"),
        ("0 7 * * *", "../../etc/passwd", "no time zone is called"),
    ],
)
def test_what_is_no_schedule_is_told(cron: str, zone: str, reason: str) -> None:
    misfit = describe_schedule_misfit(WorkflowSchedule(cron=cron, zone=zone))
    assert reason in misfit if reason else not misfit
