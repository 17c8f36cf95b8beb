"""Turn whatever ends a command into one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import unicodedata

import typer

from shared.kernel.errors import Bug, SpoolError

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, what a shell expects
TERMINATED = 143  # 128 + SIGTERM

MAX_LINE_CHARACTERS = 1_000  # of an error: it may quote what somebody else wrote


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception: like KeyboardInterrupt it ends whatever was going on."""


# What a user can bring about. Anything else is a bug and keeps its traceback.
TOLD = (
    BaseExceptionGroup,
    KeyboardInterrupt,
    OSError,
    SpoolError,
    Terminated,
    typer.Abort,
    typer.TyperException,
)


def say(line: str) -> None:
    """Write one line for the user, where it does not mix with the output."""
    print(line, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Return `text` without line breaks and without anything a terminal would obey."""
    printable = visible(" ".join(text.split()))
    if len(printable) <= MAX_LINE_CHARACTERS:
        return printable
    return printable[: MAX_LINE_CHARACTERS - 1] + "…"


def visible(text: str) -> str:
    """Replace control characters: what others wrote must not steer the reader's terminal."""
    return "".join("�" if unicodedata.category(character) == "Cc" else character for character in text)


def report(error: BaseException) -> int | None:
    """Say what went wrong in one line and return the exit code; None for a bug, to be raised again."""
    cause = _first_leaf(error)
    if isinstance(cause, BrokenPipeError):
        _forget_standard_output()
        return FAILED
    told = _told(cause)
    if told is None:
        return None
    text, exit_code = told
    say(f"spool: {one_line(text)}")
    return exit_code


def _told(cause: BaseException) -> tuple[str, int] | None:
    """Return the text for the user and the exit code."""
    match cause:
        case KeyboardInterrupt() | typer.Abort():
            return "interrupted", INTERRUPTED
        case Terminated():
            return "terminated", TERMINATED
        case typer.TyperException():
            return _usage_text(cause), cause.exit_code
        case SpoolError() if not isinstance(cause, Bug):
            return str(cause), FAILED
        case OSError():
            return _system_text(cause), FAILED
    return None


def _first_leaf(error: BaseException) -> BaseException:
    """Look into the groups that task groups raise: one failure is told, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _usage_text(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().strip().rstrip(".")
    return f"{text}; see '{context.command_path} --help'" if context is not None else text


def _system_text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _forget_standard_output() -> None:
    """Nobody reads any more (`spool … | head`): the flush at exit must not complain about it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
