"""Calls: their sound is recorded by the telephone system, their screen by the agent's machine."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.envelope import EventData, Kind
from shared.events.fields import Name

# Hours may go on: a screen is recorded for as long as an agent leaves it on.
CLOCK_PATTERN = r"^[0-9]{2,3}:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?$"


class CallEnded(EventData):
    """A call is over and can be joined to its screen recording.

    `callEndingTimestamp` is the place in the screen recording where the call ended, as `HH:MM:SS` from its
    beginning; fractions of a second, up to three digits, are understood.
    """

    type: ClassVar[str] = "call_ended"
    kind: ClassVar[Kind] = Kind.COMMAND

    recording_id: Annotated[
        Name, Field(alias="recordingID", description="Of the screen recording, the same as of the call.")
    ]
    call_ending_timestamp: Annotated[
        str,
        Field(pattern=CLOCK_PATTERN, description="Where in the screen recording the call ends, `HH:MM:SS`."),
    ]

    @property
    def subject(self) -> str:
        return self.recording_id
