"""Clips: an exact UTC range of a camera, cut out of its sources."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.envelope import EventData, Kind
from shared.events.fields import CameraId, EndMs, Name, ObjectKey, StartMs, Wire, WireRange

ClipId = Annotated[
    Name, Field(description="The caller's name of the clip; the same request again is answered again.")
]
Precision = Literal["edit-list", "smart", "keyframe"]
AskedPrecision = Annotated[
    Precision | None,
    Field(
        description="How an end between key frames is reached. `edit-list`: nothing is encoded anew, pictures"
        " before the start stay in the file, hidden. `smart`: the groups of pictures at both ends are encoded"
        " anew, nothing is hidden. `keyframe`: the clip is widened to key frames. Left out: as the clipper"
        " is set (`SPOOL_CLIPPER_PRECISION`)."
    ),
]
SHA256_MEANS = (
    "Of all its bytes, in hex; absent when the store copied some of them by itself, and of a large clip "
    "on S3 that was encoded anew."
)
CRC32_MEANS = "Of all its bytes, in hex; absent when the store does not tell it."
CONFLICTING = "conflicting_duplicate"  # the reason of a refusal: its clip id is another request's


class ClipRequested(EventData):
    """Somebody wants the camera's picture and sound of a range of time.

    Only what cannot be a request at all is invalid here. A range that ends before it starts, or
    is too long, is a request that gets an answer: `clip_refused`.
    """

    type: ClassVar[str] = "clip_requested"
    kind: ClassVar[Kind] = Kind.COMMAND

    clip_id: ClipId
    camera_id: CameraId
    start_timestamp_in_ms: StartMs
    end_timestamp_in_ms: EndMs
    precision: AskedPrecision = None

    @property
    def subject(self) -> str:
        return self.clip_id


class ClipOutcome(EventData):
    """What every answer to `clip_requested` tells."""

    kind: ClassVar[Kind] = Kind.FACT

    clip_id: ClipId
    camera_id: CameraId
    start_timestamp_in_ms: StartMs
    end_timestamp_in_ms: EndMs
    precision: AskedPrecision = None
    revision: Annotated[
        int, Field(ge=1, description="Counts up when a request is made again and ends differently.")
    ] = 1

    @property
    def subject(self) -> str:
        return self.clip_id

    @property
    def revision_key(self) -> str:
        return str(self.revision)


class StoredClip(Wire):
    """Where the clip is and what it is, as it was measured after it was written."""

    key: Annotated[ObjectKey, Field(description="Of the clip in the store.")]
    size_bytes: Annotated[int, Field(gt=0)]
    sha256: Annotated[str | None, Field(description=SHA256_MEANS, pattern="^[0-9a-f]{64}$")] = None
    crc32: Annotated[str | None, Field(description=CRC32_MEANS, pattern="^[0-9a-f]{8}$")] = None
    etag: Annotated[str, Field(description="As the store gave it.")]
    content_type: str = "video/mp4"
    duration_ms: Annotated[int, Field(gt=0)]
    video_frames: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=0, description="In pixels; 0 without a picture.")]
    height: Annotated[int, Field(ge=0, description="In pixels; 0 without a picture.")]
    reencoded: Annotated[bool, Field(description="Whether anything is not the sources' own samples.")]
    reencoded_because: Annotated[
        str | None, Field(description="Why all of it had to be, in words; absent where only its ends were.")
    ] = None
    reencoded_ranges: Annotated[
        tuple[WireRange, ...] | None,
        Field(description="Which parts of it are not the sources' own samples; absent where none is."),
    ] = None
    precision: Annotated[Precision | None, Field(description="With which precision it was cut.")] = None
    shown_range: Annotated[
        WireRange | None,
        Field(description="What it shows; more than was asked for where it was widened to key frames."),
    ] = None


class Thumbnail(Wire):
    """One picture of the clip.

    `size` is the width asked for or `original`; `width` and `height` are its true pixels.
    """

    size: Annotated[
        str, Field(pattern="^(original|[0-9]{1,5})$", description="The width asked for, or `original`.")
    ]
    key: Annotated[ObjectKey, Field(description="Of the picture in the store.")]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class ClipAvailable(ClipOutcome):
    """The clip and its thumbnails can be fetched."""

    type: ClassVar[str] = "clip_available"

    clip: StoredClip
    thumbnails: tuple[Thumbnail, ...] = ()
    source_keys: Annotated[tuple[ObjectKey, ...], Field(description="What it was cut from, in order.")]
    source_bytes_read: Annotated[int, Field(ge=0)]
    missing: Annotated[
        tuple[WireRange, ...] | None,
        Field(
            description="What it does not show, since a source ends sooner than announced: it was cut off."
            " Absent where the clip is whole."
        ),
    ] = None


class ClipNotAvailable(ClipOutcome):
    """The camera was not recorded for all of the range; `missing` says when."""

    type: ClassVar[str] = "clip_not_available"

    missing: Annotated[tuple[WireRange, ...], Field(description="What no source shows, in order.")]


class ClipRefused(ClipOutcome):
    """The request asks for something that no camera could give; the caller has to change it."""

    type: ClassVar[str] = "clip_refused"

    reason: Annotated[str, Field(description="One word, as `too_long`: for programs.")]
    field: Annotated[str, Field(description="What to change in the request.")]
    message: Annotated[str, Field(description="Why, in words: for people.")]
    # Two different requests under one clip id are two refusals, not one said twice.
    request_digest: Annotated[str, Field(description="Which of several requests under this id it answers.")]

    @property
    def revision_key(self) -> str:
        return f"{self.reason}:{self.request_digest}:{self.revision}"


class ClipFailed(ClipOutcome):
    """The clip could not be made. `fault` says whose it is, `next` what would help."""

    type: ClassVar[str] = "clip_failed"

    reason: Annotated[str, Field(description="What went wrong, in words.")]
    fault: Annotated[str, Field(description="Whose it is: `source` or `spool`.")]
    next: Annotated[str, Field(description="What would help.")]
    source_key: Annotated[ObjectKey | None, Field(description="The source that is broken.")] = None
