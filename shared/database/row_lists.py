"""A list of rows that a statement reads like a table, under one text whatever its length.

PostgreSQL unnests one array per column, SQLite takes one JSON text apart. A statement that named each value
would be another one for each length: compiled, parsed and planned anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import FromClause, String, bindparam, cast, column, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import LargeBinary, TypeEngine


class RowList:
    """Rows of known columns, bound when a statement is executed. `table` is what the statement names.

    Texts hold no NUL: PostgreSQL takes none, and SQLite's JSON would end there.
    """

    def __init__(self, dialect: str, name: str, **columns: TypeEngine[Any]) -> None:
        """`dialect` is the database's, `name` the one in the statement, different from its other tables."""
        self._dialect = dialect
        self._name = name
        self._columns = columns
        self.table = self._arrays() if dialect == "postgresql" else self._json()

    def bind(self, rows: Sequence[Sequence[Any]]) -> Mapping[str, Any]:
        """Return the parameters for these rows, each with its values in the order of the columns."""
        if self._dialect == "postgresql":
            turned = zip(*rows, strict=True) if rows else ([] for _ in self._columns)
            return {
                self._parameter(name): list(values)
                for name, values in zip(self._columns, turned, strict=True)
            }
        return {self._name: to_json(rows).decode()}

    def _parameter(self, column_name: str) -> str:
        return f"{self._name}_{column_name}"

    def _arrays(self) -> FromClause:
        arrays = [bindparam(self._parameter(name), type_=ARRAY(kind)) for name, kind in self._columns.items()]
        named = [column(name, kind) for name, kind in self._columns.items()]
        return func.unnest(*arrays).table_valued(*named).render_derived(name=self._name)

    def _json(self) -> FromClause:
        each = func.json_each(bindparam(self._name, type_=String)).table_valued("value", name="each")
        values = []
        for place, (name, kind) in enumerate(self._columns.items()):
            value = func.json_extract(each.c.value, literal_column(f"'$[{place}]'"), type_=kind)
            values.append((cast(value, kind) if isinstance(kind, LargeBinary) else value).label(name))
        return select(*values).subquery(self._name)
