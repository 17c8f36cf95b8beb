"""Clips: an exact UTC range of a camera, cut out of its sources."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.envelope import EventData, Kind
from shared.events.fields import MomentMs, Name, ObjectKey, Wire, WireRange


class ClipRequested(EventData):
    """Somebody wants the camera's picture and sound of a range of time.

    Only what cannot be a request at all is invalid here. A range that ends before it starts, or
    is too long, is a request that gets an answer: `clip_refused`.
    """

    type: ClassVar[str] = "clip_requested"
    kind: ClassVar[Kind] = Kind.COMMAND

    clip_id: Name
    camera_id: Name
    start_timestamp_in_ms: MomentMs
    end_timestamp_in_ms: MomentMs

    @property
    def subject(self) -> str:
        return self.clip_id


class ClipOutcome(EventData):
    """What every answer to `clip_requested` tells."""

    kind: ClassVar[Kind] = Kind.FACT

    clip_id: Name
    camera_id: Name
    start_timestamp_in_ms: MomentMs
    end_timestamp_in_ms: MomentMs
    # A request that is made again may end differently: then the outcome has a higher revision.
    revision: Annotated[int, Field(ge=1)] = 1

    @property
    def subject(self) -> str:
        return self.clip_id

    @property
    def revision_key(self) -> str:
        return str(self.revision)


class StoredClip(Wire):
    """Where the clip is and what it is, as it was measured after it was written."""

    key: ObjectKey
    size_bytes: Annotated[int, Field(gt=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    etag: str
    content_type: str = "video/mp4"
    duration_ms: Annotated[int, Field(gt=0)]
    video_frames: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=0)]
    height: Annotated[int, Field(ge=0)]
    reencoded: bool
    reencoded_because: str | None = None


class Thumbnail(Wire):
    """One picture of the clip.

    `size` is the width asked for or `original`; `width` and `height` are its true pixels.
    """

    size: Annotated[str, Field(pattern="^(original|[0-9]{1,5})$")]
    key: ObjectKey
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class ClipAvailable(ClipOutcome):
    """The clip and its thumbnails can be fetched."""

    type: ClassVar[str] = "clip_available"

    clip: StoredClip
    thumbnails: tuple[Thumbnail, ...] = ()
    source_keys: tuple[ObjectKey, ...]
    source_bytes_read: Annotated[int, Field(ge=0)]


class ClipNotAvailable(ClipOutcome):
    """The camera was not recorded for all of the range; `missing` says when."""

    type: ClassVar[str] = "clip_not_available"

    missing: tuple[WireRange, ...]


class ClipRefused(ClipOutcome):
    """The request asks for something that no camera could give; the caller has to change it."""

    type: ClassVar[str] = "clip_refused"

    reason: str
    field: str
    message: str
    # Two different requests under one clip id are two refusals, not one said twice.
    request_digest: str

    @property
    def revision_key(self) -> str:
        return f"{self.reason}:{self.request_digest}:{self.revision}"


class ClipFailed(ClipOutcome):
    """The clip could not be made. `fault` says whose it is, `next` what would help."""

    type: ClassVar[str] = "clip_failed"

    reason: str
    fault: str
    next: str
    source_key: ObjectKey | None = None
