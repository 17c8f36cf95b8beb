"""The knobs of the clipper."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from shared.events.clip import Precision
from shared.settings.settings import Environment, Numbers


class ClipperSettings(Environment):
    """What one clipper does at once, what it refuses, and which pictures it makes."""

    model_config = SettingsConfigDict(env_prefix="SPOOL_CLIPPER_")

    hands: Annotated[int, Field(ge=1, le=32)] = 4
    """How many clips one process cuts at the same time."""
    precision: Precision = "edit-list"
    """How an end between key frames is reached where a request does not say: edit-list, smart or keyframe."""
    max_clip_ms: Annotated[int, Field(ge=1, le=86_400_000)] = 600_000
    """The longest clip that may be asked for, in milliseconds."""
    settle_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 2_000
    """How long a request waits for sources that are just being announced, in milliseconds."""
    time_limit_s: Annotated[int, Field(ge=1, le=86_400)] = 1800
    """How long the making of one clip may take, in seconds."""
    attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    """How often the making of one clip is tried before it is a dead letter; an outage counts no attempt."""
    give_up_hours: Annotated[int, Field(ge=1, le=8760)] = 24
    """For how long a clip whose making fails is tried again, outages included, in hours."""
    key_prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)*$")] = "clips/"
    """What the keys of clips start with: `clips/<cameraId>/<clipId>.mp4`."""
    thumbnail_widths: Numbers = (300, 640)
    """Widths of the thumbnails in pixels, beside the original's own; separated by commas."""
    thumbnail_percent: Annotated[int, Field(ge=0, le=99)] = 25
    """Where in the clip the thumbnails are taken, in per cent of its length."""

    @field_validator("thumbnail_widths")
    @classmethod
    def _widths_are_sane(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(widths) > 8 or any(not 16 <= width <= 7680 for width in widths):
            raise ValueError("at most 8 widths, each between 16 and 7680 pixels")
        return tuple(sorted(set(widths)))
