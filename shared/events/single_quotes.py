"""The camera service's form of JSON: single quotes, Python's words, apostrophes within values.

Read by rewriting its strings in one pass, not by Python's own parser: that one answers untrusted text with
warnings, sets and crashes as well.
"""

from __future__ import annotations

import re

# A quote ends a string only where a string can end, so that 'O'Brien' is one. At each character there is one
# way to go on, so that none is looked at often. Not possessive: Python before 3.11.5 takes too much then.
_TOKEN = re.compile(
    r"""
      '(?P<single>[^'\\]*(?:(?:\\.|'(?!\s*(?:[,:}\]]|$)))[^'\\]*)*)'(?=\s*(?:[,:}\]]|$))
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | (?P<rest>[^'"]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_STRING = re.compile(r"""\\x(?P<byte>[0-9a-fA-F]{2})|\\(?P<escaped>.)|(?P<quote>")""", re.DOTALL)
_WORD = re.compile(r"\b(?:True|False|None)\b")
_JSON_WORDS = {"True": "true", "False": "false", "None": "null"}


def to_json(text: str) -> str:
    """Return `text` with JSON's quotes and words. Raises ValueError where a string does not end."""
    written: list[str] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"a string that starts at character {position} does not end")
        written.append(_rewritten(token))
        position = token.end()
    return "".join(written)


def _rewritten(token: re.Match[str]) -> str:
    if token["rest"] is not None:
        return _WORD.sub(lambda word: _JSON_WORDS[word[0]], token["rest"])
    inner = token["double"] if token["single"] is None else token["single"]
    return f'"{_IN_STRING.sub(_escaped, inner)}"'


def _escaped(found: re.Match[str]) -> str:
    if found["byte"]:
        return rf"\u00{found['byte']}"
    if found["quote"]:
        return r"\""
    return "'" if found["escaped"] == "'" else found[0]
