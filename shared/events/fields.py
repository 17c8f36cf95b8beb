"""Kinds of field that several events have, with what makes a value acceptable."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.kernel.keys import MAX_KEY_BYTES, check_key
from shared.kernel.timeline import TimeRange

LATEST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last moment ISO 8601 can write

# Identities are kept in databases, one of which holds no NUL, and shown on terminals.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
# One segment of a key, and of a URL path, without quoting.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME)]
# What is told to whoever sent something that does not match.
PATTERNS_IN_WORDS = {
    PRINTABLE: "must not hold control characters, such as NUL or a line break",
    NAME: "may hold letters from A to Z, digits, '.', '_' and '-', at most 128, first a letter or a digit",
}
CameraId = Annotated[Name, Field(description="The camera's name, the same in requests and in sources.")]
ObjectKey = Annotated[
    str, AfterValidator(check_key), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_KEY_BYTES})
]


def _digits(value: object) -> object:
    """Take a number, or the string of digits that existing publishers send; nothing else Python counts."""
    if isinstance(value, bool) or (isinstance(value, str) and not (value.isascii() and value.isdigit())):
        raise ValueError("must be a whole number of milliseconds since 1970, in digits")
    return value


MomentMs = Annotated[int, Field(ge=0, le=LATEST_MS), BeforeValidator(_digits)]


class Wire(BaseModel):
    """What travels: camelCase names outside, snake_case inside, never changed once read."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


StartMs = Annotated[MomentMs, Field(description="Where the range starts, in UTC milliseconds since 1970.")]
EndMs = Annotated[MomentMs, Field(description="The first millisecond after the range.")]


class WireRange(Wire):
    """A half-open range of UTC milliseconds."""

    start_timestamp_in_ms: StartMs
    end_timestamp_in_ms: EndMs

    @classmethod
    def of(cls, span: TimeRange) -> Self:
        return cls(start_timestamp_in_ms=span.start_ms, end_timestamp_in_ms=span.end_ms)
