"""Turn how an ffmpeg ended into the error that a user needs. Pure.

The exit code is little help: ffmpeg 9 ends with 183 for nearly everything. Its words are matched against a
table, most telling first; the tests hold one real message for each line.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from shared.kernel.errors import Bug, Corrupt, SpoolError, Transient, Unavailable
from shared.media.ffmpeg import Ended
from shared.media.launcher import LAUNCHER_EXIT

_CRASHES = {
    -number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
}
_ASKED_TO_STOP = 255  # ffmpeg's own code after SIGXCPU, SIGTERM or SIGINT
_QUOTED_CHARACTERS = 200  # of ffmpeg's own words in a message


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    error: type[SpoolError]
    sentence: str
    hint: str | None = None


def _rule(pattern: str, error: type[SpoolError], sentence: str, hint: str | None = None) -> _Rule:
    return _Rule(re.compile(pattern), error, sentence, hint)


_RULES = (
    # What passes, or is the machine's trouble, is said before anything that the input is blamed for.
    _rule(
        r"Cannot allocate memory|Resource temporarily unavailable|malloc of size \d+ failed",
        Transient,
        "needs more memory than it may have",
    ),
    _rule(
        r"No space left on device|Disk quota exceeded",
        Unavailable,
        "found no space left on the disk",
        "free some space for temporary files",
    ),
    _rule(
        r"Connection refused|Connection reset|Connection timed out|Server returned 5",
        Unavailable,
        "lost the connection to its source",
    ),
    _rule(r"matches no streams", Corrupt, "found no such picture or sound in the input"),
    _rule(
        r"Unrecognized option|Error parsing options|No such filter|Unknown encoder|No such file or directory",
        Bug,
        "was started with arguments that it does not take",
    ),
    _rule(
        r"not on whitelist",
        Corrupt,
        "was asked by the input to open another file or address",
        "only the source itself is ever read",
    ),
    _rule(
        r"exceeds specified max pixel count",
        Corrupt,
        "refused a picture that is larger than any camera makes",
    ),
    _rule(
        r"moov atom not found",
        Corrupt,
        "found no index (moov) in the MP4",
        "the file is cut off, or its recording was never finished",
    ),
    _rule(
        r"[Dd]ecoder not found|[Nn]o decoder (?:could be )?found|no decoder found for",
        Corrupt,
        "knows no decoder for the input",
    ),
    _rule(
        r"Invalid data found|could not find codec parameters", Corrupt, "found data that cannot be decoded"
    ),
    _rule(r"End of file", Corrupt, "came to the end of the input too early"),
)


def diagnose(ended: Ended, *, what: str) -> SpoolError | None:
    """Return the error for an ffmpeg that failed, or None.

    `what` starts the sentence: "Decoding the first pictures". None proves nothing: check what was made.
    """
    if ended.timed_out:
        return Transient(f"{what} took longer than an ffmpeg may take")
    if ended.code == 0:
        return None
    return _by_code(ended, what) or _by_words(ended.stderr, what)


def _by_code(ended: Ended, what: str) -> SpoolError | None:
    if ended.code in _CRASHES:
        name = signal.Signals(-ended.code).name
        return Corrupt(f"{what}: ffmpeg crashed on the input ({name})")
    if ended.code == -signal.SIGXFSZ:
        return Transient(f"{what}: ffmpeg wrote more bytes than a file may have")
    if ended.code in (-signal.SIGXCPU, _ASKED_TO_STOP):
        return Transient(
            f"{what}: ffmpeg was told to stop", hint="it used up its CPU time, or was ended from outside"
        )
    if ended.code < 0:
        return Transient(
            f"{what}: ffmpeg was killed by signal {-ended.code}", hint="memory or CPU time ran out"
        )
    if ended.code == LAUNCHER_EXIT:
        return Bug(f"{what}: ffmpeg could not be started: {_quoted(ended.stderr)}")
    return None


def _by_words(stderr: str, what: str) -> SpoolError:
    for rule in _RULES:
        if rule.pattern.search(stderr):
            return rule.error(f"{what}: ffmpeg {rule.sentence} [{_quoted(stderr)}]", hint=rule.hint)
    # The input is what differs from one run to the next, so it is the likeliest to blame.
    return Corrupt(f"{what}: ffmpeg failed [{_quoted(stderr)}]")


def _quoted(stderr: str) -> str:
    """Return ffmpeg's first complaint, which names the cause; what follows are its consequences."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return quoted(re.sub(r" @ 0x[0-9a-f]+", "", lines[0]) if lines else "it said nothing")


def quoted(words: str) -> str:
    """Make words of ffmpeg fit to be shown: a part of them may come from a hostile file."""
    return "".join(letter if letter.isprintable() else "?" for letter in words[:_QUOTED_CHARACTERS])
