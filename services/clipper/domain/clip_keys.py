"""Where a clip and its thumbnails are kept.

Functions of the request, so that work done twice finds its own object.
"""

from __future__ import annotations

ORIGINAL = "original"


def clip_key(prefix: str, camera_id: str, clip_id: str) -> str:
    return f"{prefix}{camera_id}/{clip_id}.mp4"


def thumbnail_key(prefix: str, camera_id: str, clip_id: str, size: str) -> str:
    return f"{prefix}{camera_id}/{clip_id}_{size}.jpg"
