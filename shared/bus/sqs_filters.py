"""Whether a subscription of SNS wants a message, told from its filter policy. Pure.

SNS never says that nobody wanted what it took, so this is how a mandatory message is known to be routed.
Filters of ours are lists of types; those of others are read as far as they speak of attributes by text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """What one subscription wants: None in `policy` is everything."""

    policy: Mapping[str, object] | None
    on_attributes: bool = True  # False: it looks into the body, which is not read here

    @classmethod
    def parse(cls, policy: str | None, scope: str | None) -> Filter:
        """Read what SNS keeps with a subscription. A policy that cannot be read wants nothing."""
        if not policy:
            return cls(None)
        try:
            wanted = json.loads(policy)
        except (ValueError, RecursionError):
            wanted = False
        on_attributes = isinstance(wanted, dict) and scope in (None, "", "MessageAttributes")
        return cls(wanted if isinstance(wanted, dict) else {}, on_attributes)

    @classmethod
    def of(cls, types: Collection[str]) -> Filter:
        """Return the filter that Spool gives to a subscription."""
        return cls({"type": sorted(types)})

    @property
    def types(self) -> frozenset[str] | None:
        """Return the types of a filter of ours; None when it was not written by Spool."""
        if self.policy is None or not self.on_attributes or set(self.policy) != {"type"}:
            return None
        found = self.policy["type"]
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            return None
        return frozenset(found)

    def wants(self, attributes: Mapping[str, str]) -> bool:
        """Say whether a message with these attributes passes. In doubt it does not."""
        if self.policy is None:
            return True
        if not self.on_attributes:
            return False
        return all(
            isinstance(rules, list) and any(_allows(rule, attributes.get(name)) for rule in rules)
            for name, rules in self.policy.items()
        )

    def to_json(self) -> str:
        return json.dumps(self.policy, separators=(",", ":"))


def _allows(rule: object, value: str | None) -> bool:
    match rule:
        case {"exists": bool() as exists}:
            return (value is not None) == exists
        case _ if value is None:
            return False
        case {"anything-but": str() as other}:
            return value != other
        case {"anything-but": list() as others}:
            return value not in others
    return _is_like(rule, value)


def _is_like(rule: object, value: str) -> bool:
    match rule:
        case str():
            return value == rule
        case {"prefix": str() as prefix}:
            return value.startswith(prefix)
        case {"suffix": str() as suffix}:
            return value.endswith(suffix)
        case {"equals-ignore-case": str() as same}:
            return value.lower() == same.lower()
    return False
