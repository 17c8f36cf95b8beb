"""The directory of the embedded default, for its owner alone: recordings are nobody else's business."""

from __future__ import annotations

from pathlib import Path

from shared.kernel.errors import Refused


def make_data_directory(directory: Path) -> None:
    """Make the directory if it is not there; one that is keeps its permissions. Raises Refused."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"SPOOL_DATA_DIRECTORY: {directory} cannot be made: {error.strerror}"
        raise Refused(message, hint="for example SPOOL_DATA_DIRECTORY=/var/lib/spool") from error
