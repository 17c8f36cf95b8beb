"""What a dead writer left in a directory becomes an object. Everything here blocks."""

from __future__ import annotations

import hashlib
import os
import zlib

from shared.kernel.clock import Clock
from shared.kernel.errors import Corrupt, NotFound
from shared.storage.doors import CHUNK_BYTES, RECOVERED, RECOVERED_NAME
from shared.storage.drafts import Drafts, Intent, Label
from shared.storage.folder import Folder, etag
from shared.storage.local_writer import described, stamp
from shared.storage.port import StoredObject, UploadedPart


def complete_draft(upload_id: str, *, folder: Folder, drafts: Drafts, clock: Clock) -> StoredObject | None:
    """Make an object of the confirmed parts, marked as recovered; None when there are none.

    Raises NotFound when the upload has ended, Conflict when there is an object at its key, Corrupt.
    """
    with drafts.turn():
        intent = drafts.intent(upload_id)
        if intent is None or _has_ended(upload_id, intent, folder, drafts):
            raise NotFound("the upload has ended")
        parts = drafts.confirmed(upload_id)
        if not parts:
            return None
        descriptor = os.open(drafts.data_path(upload_id), os.O_RDWR | os.O_CLOEXEC)
        try:
            sha256 = _cut_to(descriptor, parts, intent.key)
            stamp(descriptor, clock.now_ms())
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        label = Label(intent.content_type, sha256, intent.metadata | {RECOVERED_NAME: RECOVERED})
        drafts.label(upload_id, intent.key, etag(status), label)
        folder.link(drafts.data_path(upload_id), intent.key)
        drafts.finish(upload_id)
        return described(intent.key, status, label)


def _has_ended(upload_id: str, intent: Intent, folder: Folder, drafts: Drafts) -> bool:
    """Say whether the bytes are an object already: the writer died before it had tidied up."""
    try:
        draft = drafts.data_path(upload_id).stat()
    except FileNotFoundError:
        return True
    try:
        return os.path.samestat(draft, folder.status(intent.key))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _cut_to(descriptor: int, parts: list[UploadedPart], key: str) -> str:
    """Cut off what was not confirmed, and return the SHA-256 of what was. Raises Corrupt."""
    whole, position = hashlib.sha256(), 0
    for part in parts:
        if part.size_bytes > 2 * CHUNK_BYTES:
            raise Corrupt(f"part {part.number} of {key} is larger than any")
        content = os.pread(descriptor, part.size_bytes, position)
        if len(content) < part.size_bytes or zlib.crc32(content) != part.crc32:
            raise Corrupt(f"part {part.number} of {key} is not on the disk as it was written")
        whole.update(content)
        position += part.size_bytes
    os.ftruncate(descriptor, position)
    return whole.hexdigest()
