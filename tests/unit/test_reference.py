"""The pages of docs/reference say what the code says."""

from __future__ import annotations

from spool.reference import PAGES, pages


async def test_the_reference_pages_are_not_stale() -> None:
    made = await pages()

    kept = {path.name: path.read_text(encoding="utf-8") for path in PAGES.iterdir()}
    assert kept == made, "run `make reference` and commit what it writes"
