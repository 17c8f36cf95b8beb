"""The pages of docs/reference say what the code says."""

from __future__ import annotations

from spool.reference import MADE_BY, PAGES, pages


async def test_the_reference_pages_are_not_stale() -> None:
    made = await pages()

    there = {
        path.relative_to(PAGES).as_posix(): path.read_text(encoding="utf-8")
        for path in PAGES.rglob("*")
        if path.is_file()
    }
    # The others are written by hand; one that was made has to be one that still is.
    kept = {
        name: text
        for name, text in there.items()
        if name in made or MADE_BY in text or name.startswith("schemas/")
    }

    assert kept == made, "run `make reference` and commit what it writes"
