"""Sources: recorded media with a place in UTC time, from which clips are cut."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from shared.events.envelope import EventData, Kind
from shared.events.fields import MomentMs, Name, ObjectKey
from shared.kernel.timeline import TimeRange


class SourceAvailable(EventData):
    """A recording of a camera can be read: the object `key` shows the camera from start to end."""

    type: ClassVar[str] = "source_available"
    kind: ClassVar[Kind] = Kind.FACT

    camera_id: Name
    key: ObjectKey
    start_timestamp_in_ms: MomentMs
    end_timestamp_in_ms: MomentMs
    size_bytes: Annotated[int | None, Field(ge=0)] = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.end_timestamp_in_ms <= self.start_timestamp_in_ms:
            raise ValueError("endTimestampInMs must be later than startTimestampInMs")
        return self

    @property
    def subject(self) -> str:
        return self.camera_id

    @property
    def span(self) -> TimeRange:
        return TimeRange(self.start_timestamp_in_ms, self.end_timestamp_in_ms)
