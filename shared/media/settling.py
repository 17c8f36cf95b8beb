"""Put a result under its key exactly once: adopt what an earlier attempt finished, replace what is wrong."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from shared.kernel.errors import Conflict, Corrupt, NotFound, Transient
from shared.media.probe import Proof
from shared.storage.port import Storage, StoredObject, WriteOptions

ATTEMPTS = 3  # another worker may finish the same object meanwhile; that it happens thrice is no accident


class Way(Protocol):
    """One way of making a clip: what is written, and what it is compared with."""

    async def write(self, options: WriteOptions) -> StoredObject:
        """Write the clip under its key. Raises Conflict when a condition of the options fails."""
        ...

    async def prove(self, stored: StoredObject) -> Proof:
        """Compare an object with what `write` writes. Raises Corrupt, or SourceBroken naming the source."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """An object that stands under its key and was proven."""

    stored: StoredObject
    proof: Proof
    bytes_read: int  # of the object, for the proof and for the digest where nobody knew one
    adopted: bool


async def settle(storage: Storage, key: str, options: WriteOptions, way: Way) -> Settled:
    """Return the proven object under `key`, and write it unless it is there.

    Conditions of the options are ours to set: absent when nothing was there, or the ETag of what is replaced.
    Raises what the way raises; a written object that is not proven is removed again.
    """
    for _ in range(ATTEMPTS):
        there = await _look(storage, key)
        condition = replace(options, if_absent=True, if_match=None)
        if there is not None:
            with suppress(Corrupt):
                return await _settled(storage, there, await way.prove(there), adopted=True)
            condition = replace(options, if_absent=False, if_match=there.etag)
        try:
            stored = await way.write(condition)
        except Conflict:
            continue  # somebody else was faster: look at what they wrote
        return await _settled(storage, stored, await _prove_or_remove(storage, stored, way), adopted=False)
    raise Transient(f"{key} was written by others {ATTEMPTS} times while it was written here")


async def _settled(storage: Storage, stored: StoredObject, proof: Proof, *, adopted: bool) -> Settled:
    """Add a digest to an object that was found under the key and has none noted.

    A writer's object is not read again for one: what the store copied by itself is not to come here.
    """
    if not adopted or stored.sha256 is not None or stored.crc32 is not None:
        return Settled(stored, proof, proof.bytes_read, adopted)
    digest = hashlib.sha256()
    async with storage.read(stored.key, if_match=stored.etag) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(digest.update, chunk)
    hashed = replace(stored, sha256=digest.hexdigest())
    return Settled(hashed, proof, proof.bytes_read + stored.size_bytes, adopted)


async def _look(storage: Storage, key: str) -> StoredObject | None:
    try:
        return await storage.head(key)
    except NotFound:
        return None


async def _prove_or_remove(storage: Storage, stored: StoredObject, way: Way) -> Proof:
    try:
        return await way.prove(stored)
    except Corrupt:
        # Nobody will announce it, so nobody would ever remove it. What another worker wrote since then stays.
        there = await _look(storage, stored.key)
        if there is not None and there.etag == stored.etag:
            await storage.delete(stored.key)
        raise
