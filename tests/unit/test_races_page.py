"""The page of the races is the list of the rules, and each of its tests is there."""

from __future__ import annotations

import pytest

from tests.soak.mutation import Mutation
from tests.soak.mutations import PAGE, ROOT, RULES, page
from tests.soak.rules import MUTATIONS


def test_the_page_is_what_the_list_says() -> None:
    assert PAGE.read_text() == page(), 'run: make soak mutations ARGS="--page"'


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule)
def test_every_rule_has_its_test(mutation: Mutation) -> None:
    file, _, name = mutation.test.partition("::")
    function, _, _ = name.partition("[")

    assert f"def {function}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule)
def test_every_rule_stands_in_the_code_and_can_be_taken_out(mutation: Mutation) -> None:
    assert mutation.applies_to(ROOT), (
        f"the code of this rule has changed: write into {RULES} how {mutation.file} has it now,"
        f' and see that its test fails: make soak mutations ARGS="--only {mutation.rule!r}"'
    )
    compile(mutation.without_it(ROOT), mutation.file, "exec")


def test_no_two_rules_have_the_same_name() -> None:
    assert len({each.rule for each in MUTATIONS}) == len(MUTATIONS)
