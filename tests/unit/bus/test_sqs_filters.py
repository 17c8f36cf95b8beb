"""Filter policies of SNS: what passes, and what is taken for ours. In doubt nothing passes."""

from __future__ import annotations

import json

import pytest

from shared.bus.sqs_filters import Filter

CLIP = {"type": "clip_requested"}


@pytest.mark.parametrize(
    ("policy", "attributes", "passes"),
    [
        pytest.param({"type": ["clip_requested"]}, CLIP, True, id="the type"),
        pytest.param({"type": ["a", "clip_requested"]}, CLIP, True, id="one of several types"),
        pytest.param({"type": ["clip_request"]}, CLIP, False, id="the beginning of a type"),
        pytest.param({"type": ["Clip_Requested"]}, CLIP, False, id="a type in other letters"),
        pytest.param({"type": ["clip_requested"]}, {}, False, id="no attribute"),
        pytest.param({"type": []}, CLIP, False, id="no type"),
        pytest.param({}, CLIP, True, id="no rules"),
        pytest.param({"type": ["clip_requested"], "tenant": ["a"]}, CLIP, False, id="one of two names"),
        pytest.param(
            {"type": ["clip_requested"], "tenant": ["a"]}, CLIP | {"tenant": "a"}, True, id="both names"
        ),
        pytest.param({"type": [{"prefix": "clip_"}]}, CLIP, True, id="prefix"),
        pytest.param({"type": [{"prefix": "merge_"}]}, CLIP, False, id="other prefix"),
        pytest.param({"type": [{"suffix": "_requested"}]}, CLIP, True, id="suffix"),
        pytest.param({"type": [{"suffix": "_failed"}]}, CLIP, False, id="other suffix"),
        pytest.param({"type": [{"equals-ignore-case": "CLIP_requested"}]}, CLIP, True, id="any letters"),
        pytest.param({"type": [{"anything-but": "clip_requested"}]}, CLIP, False, id="anything but it"),
        pytest.param({"type": [{"anything-but": "other"}]}, CLIP, True, id="anything but another"),
        pytest.param({"type": [{"anything-but": ["a", "clip_requested"]}]}, CLIP, False, id="but these"),
        pytest.param({"type": [{"anything-but": ["a", "b"]}]}, CLIP, True, id="but others"),
        pytest.param({"tenant": [{"anything-but": "a"}]}, CLIP, False, id="anything but, of nothing"),
        pytest.param({"type": [{"anything-but": {"prefix": "x"}}]}, CLIP, False, id="but a prefix: not read"),
        pytest.param({"type": [{"exists": True}]}, CLIP, True, id="there is one"),
        pytest.param({"type": [{"exists": False}]}, CLIP, False, id="there is none, but one"),
        pytest.param({"tenant": [{"exists": False}]}, CLIP, True, id="there is none"),
        pytest.param({"type": [{"exists": "yes"}]}, CLIP, False, id="exists, misspelt"),
        pytest.param({"size": [{"numeric": [">", 5]}]}, {"size": "6"}, False, id="numbers are not read"),
        pytest.param({"$or": [{"type": ["clip_requested"]}]}, CLIP, False, id="$or is not read"),
        pytest.param({"type": "clip_requested"}, CLIP, False, id="a text, not a list"),
        pytest.param({"type": [None, True, 3, []]}, CLIP, False, id="rules that are none"),
        pytest.param(
            {"type": ["gr\u00fcn \U0001f600"]}, {"type": "gr\u00fcn \U0001f600"}, True, id="odd text"
        ),
    ],
)
def test_a_policy_lets_through_what_it_names(
    policy: dict[str, object], attributes: dict[str, str], passes: bool
) -> None:
    assert Filter.parse(json.dumps(policy), None).wants(attributes) is passes


@pytest.mark.parametrize("policy", [None, ""])
def test_no_policy_wants_everything(policy: str | None) -> None:
    assert Filter.parse(policy, "MessageAttributes").wants({})


@pytest.mark.parametrize(
    ("policy", "scope"),
    [
        pytest.param("{", None, id="no JSON"),
        pytest.param("[]", None, id="a list"),
        pytest.param("null", None, id="null"),
        pytest.param('"clip_requested"', None, id="a text"),
        pytest.param("[" * 100_000, None, id="nested without an end"),
        pytest.param('{"type":["clip_requested"]}', "MessageBody", id="of the body"),
        pytest.param("{}", "MessageBody", id="of the body, empty"),
    ],
)
def test_what_cannot_be_read_wants_nothing_and_is_not_ours(policy: str, scope: str | None) -> None:
    found = Filter.parse(policy, scope)

    assert not found.wants(CLIP)
    assert found.types is None


def test_a_filter_of_ours_is_known_again() -> None:
    ours = Filter.of(["clip_requested", "clip_cancelled"])
    read = Filter.parse(ours.to_json(), "MessageAttributes")

    assert ours.to_json() == '{"type":["clip_cancelled","clip_requested"]}'
    assert read.types == frozenset({"clip_requested", "clip_cancelled"})
    assert read.wants(CLIP)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({"type": ["a"], "tenant": ["b"]}, id="more names"),
        pytest.param({"tenant": ["b"]}, id="another name"),
        pytest.param({"type": "a"}, id="no list"),
        pytest.param({"type": ["a", {"prefix": "b"}]}, id="more than texts"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_filter_of_somebody_else_is_not_ours(policy: dict[str, object]) -> None:
    assert Filter.parse(json.dumps(policy), None).types is None
