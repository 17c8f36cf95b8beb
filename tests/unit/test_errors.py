"""The tree of errors: who must act is told by the class, what to do by the hint."""

from __future__ import annotations

import pytest

from shared.kernel.errors import (
    Bug,
    Conflict,
    Corrupt,
    NotFound,
    Permanent,
    Refused,
    SpoolError,
    Transient,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable, Transient),
        (Refused, Permanent),
        (Corrupt, Permanent),
        (NotFound, Permanent),
        (Conflict, Permanent),
    ],
)
def test_every_error_is_exactly_one_of_transient_permanent_and_bug(
    error: type[SpoolError], kind: type[SpoolError]
) -> None:
    assert [parent for parent in (Transient, Permanent, Bug) if issubclass(error, parent)] == [kind]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(NotFound(), "What was named does not exist.", id="by its class"),
        pytest.param(NotFound("no clip a"), "no clip a", id="message"),
        pytest.param(Unavailable("is away", hint="start it"), "is away (start it)", id="hint"),
        pytest.param(Refused("is bad", field="key", hint="name it"), "is bad (name it)", id="refused"),
    ],
)
def test_an_error_says_what_happened_and_what_to_do(error: SpoolError, said: str) -> None:
    assert str(error) == said
