"""Variables that look like settings and are none: mostly misspelt ones, ignored in silence otherwise."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping

from pydantic_settings import DotEnvSettingsSource

from shared.settings.settings import PREFIX, Environment, variable_of

OUR_OWN = ("SPOOL_TEST_", "SPOOL_CI_")  # of the tests, and of what runs them

# What Kubernetes and Docker links set in every container beside a service that is called spool.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_INJECTED = re.compile(r"SPOOL_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP)(?:_.+)?)")
_INJECTED_VALUE = re.compile(r"(?:tcp|udp)://")


def misspelt_variables() -> dict[str, str | None]:
    """Return the variables, of the process and of `.env`, that no setting has, each with the nearest one."""
    in_file = {name.upper(): value for name, value in DotEnvSettingsSource(Environment).env_vars.items()}
    return unknown_in(in_file | dict(os.environ), known=set(_known(Environment)))


def unknown_in(variables: Mapping[str, str | None], *, known: Collection[str]) -> dict[str, str | None]:
    """Return those of the variables that are not known, each with the nearest known name, if one is near."""
    return {
        name: next(iter(difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.7)), None)
        for name, value in sorted(variables.items())
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not name.startswith(OUR_OWN)
        and not _is_injected(name, value)
    }


def _is_injected(name: str, value: str | None) -> bool:
    linked = name.endswith("_PORT") and _INJECTED_VALUE.match(value or "") is not None
    return linked or _INJECTED.fullmatch(name) is not None


def _known(group: type[Environment]) -> Iterator[str]:
    for name in group.model_fields:
        yield variable_of(group, name)
    for narrower in group.__subclasses__():
        yield from _known(narrower)
