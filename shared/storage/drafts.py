"""Uploads of a file store that are not finished, and what it remembers of those that are.

Below the root lie two directories of the store's own:

- `.spool-uploads/`: for each upload `<id>.json` (its intent: key, owner, start) and `<id>.data` (its bytes).
  A capture has `<id>.parts` besides: how much of the bytes is surely on the disk, a line per part.
  The intent is there before the first byte and goes last, so whatever a kill leaves is found by it.
- `.spool-meta/`: for each object `<digest of the key>.<ETag>`: content type, SHA-256 and metadata.
  The name holds the ETag, so it can be written before its object appears and never describes another one.

Everything here blocks; `local_writer.py` and `local.py` call it in threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shared.kernel.errors import Refused
from shared.storage.folder import Folder, etag
from shared.storage.port import UnfinishedUpload, UploadedPart

_UPLOAD_ID = re.compile("[0-9a-f-]{1,64}")
_DEBRIS_S = 3600  # after so long, a file without an intent has no writer that is just about to write it


@dataclass(frozen=True, slots=True)
class Intent:
    """What an upload wants to become."""

    key: str
    started_ms: int
    owner: tuple[int, int] | None
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = field(default_factory=dict)
    is_capture: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """What is remembered of a finished object beside its bytes."""

    content_type: str
    sha256: str
    metadata: dict[str, str]


class Drafts:
    """The two directories of the store's own."""

    def __init__(self, folder: Folder) -> None:
        """Make the directories if they are not there."""
        self._folder = folder
        self._uploads = folder.root / ".spool-uploads"
        self._labels = folder.root / ".spool-meta"
        for directory in (self._uploads, self._labels):
            directory.mkdir(mode=0o700, exist_ok=True)

    def begin(self, upload_id: str, intent: Intent) -> int:
        """Write down the intent, and return the descriptor of the empty file for the bytes."""
        self._write_whole(self._uploads / f"{upload_id}.json", upload_id, asdict(intent))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self.data_path(upload_id), flags, 0o666)

    def data_path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload are."""
        return self._uploads / f"{upload_id}.data"

    def label(self, upload_id: str, key: str, tag: str, label: Label) -> None:
        """Keep what is known of the object that will appear as `key` with the ETag `tag`."""
        path = self._label_path(key, tag)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._write_whole(path, upload_id, asdict(label))

    def read_label(self, key: str, tag: str) -> Label | None:
        """Return what is known of an object; None for one that another program put there."""
        try:
            return Label(**json.loads(self._label_path(key, tag).read_bytes()))
        except FileNotFoundError:
            return None

    def drop_stray_labels(self, key: str) -> None:
        """Remove the labels of `key` that describe neither the object nor an upload that goes on."""
        pattern = f"{_digest(key)}.*"
        labels = list(self._label_path(key, "").parent.glob(pattern))
        described = set()
        # The labels were listed first: a writer that has one has had its intent for long.
        for upload in self.unfinished(key):
            with suppress(FileNotFoundError):
                described.add(etag(self.data_path(upload.upload_id).stat()))
        with suppress(FileNotFoundError, NotADirectoryError):
            described.add(etag(self._folder.status(key)))
        for path in labels:
            if path.name.split(".", 1)[1] not in described:
                path.unlink(missing_ok=True)

    def finish(self, upload_id: str) -> None:
        """Remove the rest of an upload, its intent last."""
        for suffix in ("data", "parts", "new", "json"):
            (self._uploads / f"{upload_id}.{suffix}").unlink(missing_ok=True)

    def discard(self, upload_id: str) -> None:
        """Remove an upload, and what it or its killed writer kept beside it."""
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise Refused("this is not the id of an upload", field="upload_id")
        intent = self.intent(upload_id)
        (self._uploads / f"{upload_id}.data").unlink(missing_ok=True)
        if intent:
            self.drop_stray_labels(intent.key)
        self.finish(upload_id)

    def unfinished(self, prefix: str) -> list[UnfinishedUpload]:
        """List the uploads whose intent is below `prefix`, the oldest first."""
        found = []
        for path in list(self._uploads.glob("*")):
            intent = self.intent(path.stem)
            if intent is None:
                self._drop_debris(path)
            elif path.suffix == ".json" and intent.key.startswith(prefix):
                found.append(
                    UnfinishedUpload(
                        intent.key, path.stem, intent.started_ms, intent.owner, intent.is_capture
                    )
                )
        return sorted(found, key=lambda upload: (upload.started_ms, upload.upload_id))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other writer, of this process or another, looks at an object and then replaces it."""
        descriptor = os.open(self._uploads / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def intent(self, upload_id: str) -> Intent | None:
        """Return what an upload wants to become; None when it has ended."""
        try:
            told = json.loads((self._uploads / f"{upload_id}.json").read_bytes())
        except FileNotFoundError:
            return None
        owner = told.pop("owner")
        return Intent(owner=(owner[0], owner[1]) if owner else None, **told)

    def confirm(self, upload_id: str, part: UploadedPart) -> None:
        """Write down that a part is on the disk; a line is there whole or is not read."""
        line = f"{part.number} {part.size_bytes} {part.etag}\n".encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._uploads / f"{upload_id}.parts", flags, 0o600)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def confirmed(self, upload_id: str) -> list[UploadedPart]:
        """Return the parts of a capture that are surely on the disk, from the first on."""
        try:
            text = (self._uploads / f"{upload_id}.parts").read_text()
        except FileNotFoundError:
            return []
        lines = [line.split() for line in text.split("\n")[:-1]]  # behind the last line break is a torn one
        return [UploadedPart(int(number), int(size), tag, int(tag, 16)) for number, size, tag in lines]

    def _drop_debris(self, path: Path) -> None:
        """Remove what a kill left between an intent's first byte and its name: it belongs to no upload."""
        with suppress(FileNotFoundError):
            if path.name != "lock" and time.time() - path.stat().st_mtime > _DEBRIS_S:
                path.unlink()

    def _label_path(self, key: str, tag: str) -> Path:
        # Keys are longer than file names may be; their digest is not. The two letters keep directories small.
        digest = _digest(key)
        return self._labels / digest[:2] / f"{digest}.{tag}"

    def _write_whole(self, path: Path, upload_id: str, content: dict[str, object]) -> None:
        """Write a small file so that it is there whole or not at all, also after a power cut."""
        new = self._uploads / f"{upload_id}.new"
        with new.open("wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
