"""What a bucket promises, and what it means where it does not: `spool storage check`.

Servers differ, and many take a request without doing all that it asks. Spool does not depend on what it can
do without, but whoever runs it should know what that is on their server, before it matters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from shared.kernel.errors import SpoolError
from shared.storage.s3 import S3Storage
from spool import bucket_probes as probes
from spool.bucket_probes import Answer, Ground


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `otherwise` says what it means when the answer is not yes."""

    name: str
    answer: Answer
    needed: bool
    otherwise: str
    said: str | None = None  # the server's refusal

    @property
    def is_loss(self) -> bool:
        return self.needed and self.answer is not Answer.YES


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to try: `act` answers, or raises what the server says against it."""

    name: str
    act: Callable[[Ground], Awaitable[Answer]]
    otherwise: str
    needed: bool = False


async def check_bucket(storage: S3Storage) -> list[Finding]:
    """Try everything, and leave nothing behind. Raises Unavailable when the store does not answer at all."""
    await storage.check()
    ground = Ground(storage, f"spool-check-{uuid4().hex}/")
    try:
        return [await _try(probe, ground) for probe in PROBES]
    finally:
        await _clear(ground)


async def _try(probe: Probe, ground: Ground) -> Finding:
    try:
        answer, said = await probe.act(ground), None
    except SpoolError as error:
        answer, said = Answer.NO, error.message
    return Finding(probe.name, answer, probe.needed, probe.otherwise, said)


async def _clear(ground: Ground) -> None:
    async for stored in ground.storage.walk(ground.prefix):
        await ground.storage.delete(stored.key)
    for upload in await ground.storage.unfinished(ground.prefix):
        await ground.storage.abort(upload)


PROBES = (
    Probe("objects are stored and read", probes.stores, "Spool cannot work here", needed=True),
    Probe("large objects are stored in parts", probes.stores_in_parts, "Spool cannot work here", needed=True),
    Probe("ranges are read", probes.reads_ranges, "Spool cannot work here", needed=True),
    Probe("objects are removed", probes.removes, "what is deleted stays, and is paid for", needed=True),
    Probe(
        "unfinished uploads are listed",
        probes.lists_uploads,
        "of those that the journal lost nobody ever hears: they are paid for",
    ),
    Probe(
        "unfinished uploads are aborted",
        probes.aborts_uploads,
        "what a process that died left behind stays, and is paid for",
        needed=True,
    ),
    Probe(
        "an object is written once (If-None-Match)",
        probes.writes_once,
        "of two workers with one clip the later replaces the earlier's, by the same one",
    ),
    Probe(
        "the same in parts",
        probes.writes_once_in_parts,
        "of two workers with one clip the later replaces the earlier's, by the same one",
    ),
    Probe(
        "a read is refused when the object changed (If-Match)",
        probes.pins_reads,
        "Spool compares the ETag of every answer itself",
    ),
    Probe(
        "what was changed on the way is refused (CRC32)",
        probes.compares_checksums,
        "only the size of what arrived is compared",
    ),
    Probe(
        "the CRC32 of a whole object is kept",
        probes.keeps_checksums,
        "a clip of which the store copied parts is announced without a checksum",
    ),
    Probe(
        "ranges are copied inside (UploadPartCopy)",
        probes.copies_ranges,
        "clips are read and sent, at the cost of their bytes",
    ),
    Probe(
        "copies have a checksum",
        probes.sums_copies,
        "a clip of which the store copied parts is announced without a checksum",
    ),
    Probe("odd names are kept as they are", probes.keeps_odd_names, "use letters, digits, . _ - in keys"),
    Probe(
        "lists are in the order of the keys",
        probes.lists_in_order,
        "a walk that goes on may leave some out",
    ),
    Probe("links that expire are honoured", probes.opens_links, "share clips by Spool's own addresses"),
    Probe("encryption=AES256", probes.encrypts("AES256"), "leave the option out, or encrypt its disks"),
    Probe("encryption=aws:kms", probes.encrypts("aws:kms"), "leave the option out, or give the server a key"),
    Probe("storage_class=STANDARD_IA", probes.has_classes, "leave the option out"),
    Probe("tags", probes.keeps_tags, "leave the option out"),
)
