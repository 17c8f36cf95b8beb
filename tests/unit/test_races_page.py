"""The page of the races is the list of the rules, and each of its tests is there."""

from __future__ import annotations

import pytest

from tests.soak.mutations import PAGE, ROOT, page
from tests.soak.rules import MUTATIONS, Mutation


def test_the_page_is_what_the_list_says() -> None:
    assert PAGE.read_text() == page(), 'run: make soak mutations ARGS="--page"'


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule)
def test_every_rule_has_its_test(mutation: Mutation) -> None:
    file, _, name = mutation.test.partition("::")

    assert f"def {name}(" in (ROOT / file).read_text()
    assert (ROOT / mutation.file).is_file()
