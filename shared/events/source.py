"""Sources: recorded media with a place in UTC time, from which clips are cut."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from shared.events.envelope import EventData, Kind
from shared.events.fields import CameraId, MomentMs, ObjectKey, StartMs

SourceKey = Annotated[ObjectKey, Field(description="Of the recording in the store that Spool reads.")]


class SourceAvailable(EventData):
    """A recording of a camera can be read: the object `key` shows the camera from start to end.

    Who knows only when it starts leaves out the end: then the object itself is asked how long it lasts.
    """

    type: ClassVar[str] = "source_available"
    kind: ClassVar[Kind] = Kind.FACT

    camera_id: CameraId
    key: SourceKey
    start_timestamp_in_ms: StartMs
    end_timestamp_in_ms: Annotated[
        MomentMs | None, Field(description="The first millisecond after its end; left out when nobody knows.")
    ] = None
    size_bytes: Annotated[
        int | None, Field(ge=0, description="An object of another size is told as broken.")
    ] = None

    @field_validator("end_timestamp_in_ms")
    @classmethod
    def _ends_after_it_starts(cls, end_ms: int | None, info: ValidationInfo) -> int | None:
        # Of this field, and not of the whole, so that the answer names what to change.
        start_ms = info.data.get("start_timestamp_in_ms")
        if start_ms is not None and end_ms is not None and end_ms <= start_ms:
            raise ValueError("must be later than startTimestampInMs")
        return end_ms

    @property
    def subject(self) -> str:
        return self.camera_id


class SourceRemoved(EventData):
    """A recording of a camera is gone: nothing can be cut out of it any more."""

    type: ClassVar[str] = "source_removed"
    kind: ClassVar[Kind] = Kind.FACT

    camera_id: CameraId
    key: SourceKey

    @property
    def subject(self) -> str:
        return self.camera_id
