"""Tokens of the next page: what was given out comes back, any other text is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import Refused
from shared.runtime.paging import MAX_TOKEN_CHARACTERS, page_position, page_token

moments = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=128)


def token_of(json_text: str) -> str:
    return base64.urlsafe_b64encode(json_text.encode()).decode().rstrip("=")


@given(moments, names)
def test_a_position_comes_back_from_its_token(moment_ms: int, name: str) -> None:
    token = page_token([moment_ms, name])

    assert token.isascii()
    assert page_position(token, of=(int, str)) == [moment_ms, name]


def test_no_token_is_the_first_page() -> None:
    assert page_position(None, of=(int, str)) is None


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_the_token_of_its_position_or_refused(text: str) -> None:
    try:
        position = page_position(text, of=(int,))
    except Refused:
        return

    assert position is not None
    assert page_token(position) == text


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("!!!!", id="not base64"),
        pytest.param("é", id="beyond ascii"),
        pytest.param(token_of('[1, "a"]') + "!", id="with something behind"),
        pytest.param(token_of('[1,"a"]'), id="other spaces"),
        pytest.param(token_of('[1, "a", 2]'), id="too many parts"),
        pytest.param(token_of('["a", 1]'), id="other order"),
        pytest.param(token_of('[true, "a"]'), id="a truth value"),
        pytest.param(token_of('[1.0, "a"]'), id="a fraction"),
        pytest.param(token_of('[NaN, "a"]'), id="not a number"),
        pytest.param(token_of(f'[{1 << 63}, "a"]'), id="more than 64 bits"),
        pytest.param(token_of('[1, "a\\u0000"]'), id="nul"),
        pytest.param(token_of('[1, "\\ud800"]'), id="half a surrogate pair"),
        pytest.param(token_of('{"a": 1}'), id="an object"),
        pytest.param(token_of("[" * 700), id="deep"),
        pytest.param(token_of('[1, "a"]') + "A" * MAX_TOKEN_CHARACTERS, id="long"),
    ],
)
def test_what_was_never_given_out_is_refused(token: str) -> None:
    with pytest.raises(Refused, match="not a token of this listing") as caught:
        page_position(token, of=(int, str))

    assert caught.value.field == "nextPageToken"


def test_depth_is_refused_however_deep_the_caller_stands() -> None:
    def standing(levels: int) -> None:
        if levels:
            standing(levels - 1)
        else:
            page_position(token_of("[" * 700), of=(int,))

    with pytest.raises(Refused):
        standing(600)
