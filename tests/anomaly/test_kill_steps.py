"""kill -9 before and after every step of the road of one event: the table of ARCHITECTURE.md, last column.

Dying after a step is dying before the next one. What lies between two calls of one port is found by
`test_kill_calls.py`.
"""

from __future__ import annotations

import pytest

from tests.anomaly.dying import die_and_recover
from tests.anomaly.installation import Installation
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery

# By rows of the table. A tuple with two points is two deaths, of one process after the other.
ARRIVAL = {
    "before 1: nothing is taken": ["bus.declare after"],
    "1: the delivery is taken": ["step.received"],
    "2: it is read": ["step.parsed"],
    "3: its row is committed": ["step.accepted"],
    "4: it is acknowledged": ["step.acknowledged"],
    "4: another worker claims the row": ["step.acknowledged", "step.claimed"],
}
MAKING = {
    "5 to 8: it is planned": ["media.cut before"],
    "9: the clip is begun": ["storage.writer opened"],
    "9: some of it is written": ["storage.writer chunk"],
    "9: all of it is written": ["storage.writer written"],
    "9: the claim was checked a last time": ["storage.writer before completion"],
    "9: it is complete, not proven": ["storage.writer after"],
    "9: twice": ["storage.writer written", "storage.writer before completion"],
    "10: it is proven": ["media.cut after"],
    "10: it is adopted": ["media.cut after", "media.cut after"],
    "10: the pictures are made": ["media.thumbnails after"],
}
TELLING = {
    "6: the handler has returned": ["step.handled"],
    "11: it is committed": ["step.committed"],
    "12: before it is published": ["bus.publish before"],
    "12: it is published": ["step.published"],
    "12: it is marked as sent": ["step.marked"],
}
# Requests to S3, which no call of the port shows.
UPLOADING = {
    "9: the upload is created, and nobody knows": ["s3.CreateMultipartUpload after"],
    "9: a part is on its way": ["s3.UploadPart before"],
    "9: a part has arrived": ["s3.UploadPart after"],
    "9: the store was not yet asked to complete it": ["s3.CompleteMultipartUpload before"],
    "9: the store has completed it": ["s3.CompleteMultipartUpload after"],
}


@pytest.mark.limit(120)  # ten lives and deaths, on servers that are shared with other tests
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ARRIVAL, id="arrival"),
        pytest.param(MAKING, id="making"),
        pytest.param(TELLING, id="telling"),
    ],
)
async def test_a_death_at_any_step_is_not_noticed(
    installation: Installation, nursery: Nursery, rows: dict[str, list[str]]
) -> None:
    assert await what_went_wrong(installation, nursery, rows) == {}


@pytest.mark.limit(120)  # as above
@pytest.mark.parametrize("footage", ["large"], indirect=True)  # in two parts
@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
async def test_a_death_at_any_request_to_the_store_leaves_no_upload(
    installation: Installation, nursery: Nursery
) -> None:
    assert await what_went_wrong(installation, nursery, UPLOADING) == {}


async def what_went_wrong(
    installation: Installation, nursery: Nursery, rows: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Die as each row says. Returns the faults of the rows that have any."""
    wrong: dict[str, list[str]] = {}
    for row, names in rows.items():
        outcome = await die_and_recover(installation, nursery, *map(KillPoint, names))
        found = outcome.faults
        if outcome.deaths != len(names):
            found = [f"{outcome.deaths} of {len(names)} points were reached", *found]
        if found:
            wrong[row] = found
    return wrong
