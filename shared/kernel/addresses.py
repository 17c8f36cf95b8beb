"""Addresses that name several hosts: the nodes of one cluster, any of which will do."""

from __future__ import annotations


def each_host(address: str) -> list[str]:
    """Return the address once for each of its hosts: `amqp://a,b/` is `amqp://a/` and `amqp://b/`."""
    scheme, separator, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    return [f"{scheme}{separator}{credentials}{at}{host}{slash}{path}" for host in hosts.split(",")]
