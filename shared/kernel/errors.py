"""The errors of Spool, by what should happen next.

SpoolError
├── Transient          the same call may succeed later: a dependency is away, a limit was hit
│   └── Unavailable    a dependency (broker, store, database) does not answer
├── Permanent          the same call will never succeed
│   ├── Refused        the caller must change the request; `field` names what
│   ├── Corrupt        the media or the stored bytes are not what they claim to be
│   ├── NotFound       what was named does not exist
│   └── Conflict       something else is already there, or it changed in the middle
└── Bug                an invariant of ours is broken; nobody outside can mend it
"""

from __future__ import annotations


class SpoolError(Exception):
    """Something went wrong in Spool."""

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """Say what happened, and in `hint` what the reader can do about it."""
        self.message = message or (self.__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def words_of(error: BaseException) -> str:
    """Return what an error says, or else what it is called: a TimeoutError says nothing."""
    return str(error) or type(error).__name__


class Transient(SpoolError):
    """The same call may succeed later."""


class Unavailable(Transient):
    """A dependency does not answer."""


class Permanent(SpoolError):
    """The same call will never succeed."""


class Refused(Permanent):
    """The request asks for something that Spool will not do."""

    def __init__(
        self, message: str | None = None, *, field: str | None = None, hint: str | None = None
    ) -> None:
        """Name in `field` the part of the request that has to change."""
        self.field = field
        super().__init__(message, hint=hint)


class Corrupt(Permanent):
    """The media or the stored bytes are not what they claim to be."""


class NotFound(Permanent):
    """What was named does not exist."""


class Conflict(Permanent):
    """Something else is already there, or it changed in the middle."""


class Bug(SpoolError):
    """An invariant of Spool is broken."""
