"""`spool storage`: find out what a bucket promises, before recordings are in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.options import AsJson
from spool.cli.tables import print_json, print_list

if TYPE_CHECKING:
    from spool.bucket_check import Finding

WHERE = typer.Argument(
    metavar="[ADDRESS]",
    help="s3://bucket/prefix?endpoint=…&region=…. (default: SPOOL_STORAGE)",
    show_default=False,
)
LOSES = 1  # what a script asks for: something that Spool needs is not there


def build_app() -> typer.Typer:
    """Return the group `spool storage`."""
    app = typer.Typer(name="storage", help="See what a bucket promises.")
    app.callback()(_group)  # keeps `check` a name of its own while it is the only one
    app.command("check")(check)
    return app


def _group() -> None:
    """See what a bucket promises."""


def check(address: Annotated[str | None, WHERE] = None, as_json: AsJson = False) -> None:
    """Try out what a bucket really does, with objects below a name of their own that are removed again.

    Ends with 1 when something is missing that Spool needs.
    """
    from shared.settings.settings import Settings

    findings = run_to_end(_check(address or Settings().storage_address))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_list([asdict(finding) for finding in findings], {"what": "name", "": "answer", "means": _means})
    if any(finding.is_loss for finding in findings):
        raise typer.Exit(LOSES)


def _means(finding: Mapping[str, Any]) -> str:
    """Say what follows, where the answer is not the one that everybody expects."""
    if finding["answer"] == "yes":
        return ""
    said = f" ({finding['said']})" if finding["said"] else ""
    return f"{finding['otherwise']}{said}"


async def _check(address: str) -> list[Finding]:
    from shared.kernel.errors import Refused

    if not address.startswith("s3:"):
        hint = "give an address: spool storage check s3://bucket/prefix?endpoint=…"
        raise Refused("only a bucket has to be tried out: a directory does all that Spool asks", hint=hint)

    from shared.storage.s3 import S3Storage
    from shared.storage.s3_address import S3Address
    from spool.bucket_check import check_bucket
    from spool.opening import quiet_logs

    limits = replace(S3Address.parse(address).limits, attempts=2)
    storage = await S3Storage.open(address, journal=None, limits=limits)
    try:
        with quiet_logs():
            return await check_bucket(storage)
    finally:
        await storage.close()
