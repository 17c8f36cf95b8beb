"""Where a Spool that runs on a data directory says how to reach it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from shared.kernel.errors import Corrupt

FILE_NAME = "running.json"


@contextlib.contextmanager
def announced(url: str, directory: Path) -> Iterator[None]:
    """Leave the address in the directory while the context lasts.

    Processes on servers can share a directory: the last one to start is found there, and only it cleans up.
    """
    path = directory / FILE_NAME
    announcement = json.dumps({"url": url, "pid": os.getpid()})
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(announcement)
    staged.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if path.read_text() == announcement:
                path.unlink()


def running_url(directory: Path) -> str | None:
    """Return the address that was left there, or None. Raises Corrupt."""
    path = directory / FILE_NAME
    try:
        url = json.loads(path.read_bytes())["url"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} does not hold a URL", hint="restart 'spool up'") from error
    return url if isinstance(url, str) else None
