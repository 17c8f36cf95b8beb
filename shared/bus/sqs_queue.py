"""The calls that SQS answers about one queue: in tens, what failed for a moment once more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING

from shared.bus.sqs_errors import is_stale
from shared.bus.sqs_link import ANSWER_S, Link
from shared.bus.sqs_message import MAX_BATCH
from shared.kernel.errors import Unavailable

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

ATTEMPTS = 3  # for entries of a batch that SQS could not do this time


class Queue:
    """A queue as SQS knows it. Every call raises Unavailable, QueueMissing when the queue is gone."""

    def __init__(self, url: str, *, called: str, link: Link) -> None:
        """Ask nothing yet. `called` is what errors name it by."""
        self.url = url
        self._called = called
        self._link = link

    async def receive(self, wanted: int, *, poll_s: int, visibility_s: int) -> Sequence[MessageTypeDef]:
        """Return up to `wanted` messages, hidden from others, waiting up to `poll_s` for the first."""
        async with self._link.asking("SQS", f"receive from {self._called}", within_s=poll_s + ANSWER_S):
            answer = await self._link.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=wanted,
                WaitTimeSeconds=poll_s,
                VisibilityTimeout=visibility_s,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return answer.get("Messages", [])

    async def delete(self, handles: Sequence[str]) -> None:
        """Delete messages; those that are stale are not there any more."""
        async with self._in_batches(handles, "acknowledge") as batches:
            for batch in batches:
                answer = await self._link.sqs.delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in batch.items()],
                )
                batches.failed(batch, answer.get("Failed", []))

    async def hide(self, handles: Sequence[str], visibility_s: int, doing: str) -> set[str]:
        """Change how long messages stay hidden; return the handles that are stale."""
        async with self._in_batches(handles, doing) as batches:
            for batch in batches:
                answer = await self._link.sqs.change_message_visibility_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": visibility_s}
                        for n, handle in batch.items()
                    ],
                )
                batches.failed(batch, answer.get("Failed", []))
        return batches.stale

    @asynccontextmanager
    async def _in_batches(self, handles: Sequence[str], doing: str) -> AsyncIterator[_Batches]:
        batches = _Batches(handles)
        async with self._link.asking("SQS", f"{doing} in {self._called}"):
            yield batches
        if batches.left:
            raise Unavailable(f"SQS did not {doing} {len(batches.left)} deliveries")


class _Batches:
    """Handles in tens, those that SQS could not do this time once more."""

    def __init__(self, handles: Sequence[str]) -> None:
        self.stale: set[str] = set()
        self.left: list[str] = list(handles)

    def __iter__(self) -> Iterator[dict[int, str]]:
        for _ in range(ATTEMPTS):
            round_of, self.left = iter(self.left), []
            while batch := list(islice(round_of, MAX_BATCH)):
                yield dict(enumerate(batch))

    def failed(self, batch: dict[int, str], failures: Sequence[BatchResultErrorEntryTypeDef]) -> None:
        """Take note of what was not done: a stale handle never will be."""
        for failure in failures:
            handle = batch[int(failure["Id"])]
            if is_stale(failure.get("Code", "")):
                self.stale.add(handle)
            else:
                self.left.append(handle)
