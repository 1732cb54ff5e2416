"""Full-text search: what people type as an expression of SQLite's FTS5, and which of some texts it finds.

Every word must be there, in any order and in any of the searched fields; "a phrase" with its words side by side; val*
stands for all words that begin so. What a word is, says the tokenizer: as a rule, letters and digits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync.errors import LimitExceeded, SchemaError
from fieldsync.limits import SEARCH_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fieldsync.store import Searched

TOKENIZER = "unicode61 remove_diacritics 2"  # letters and digits, case and accents aside
TOKENIZERS = ("unicode61", "ascii", "porter", "trigram")  # that every SQLite has
UNSEARCHABLE = frozenset({"rank", "rowid"})  # names that no column of FTS5 can have

_TYPED = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')  # a phrase and its star, or a word


def tokenizer_named(label: str, tokenizer: object) -> str:
    """A tokenizer that an app declares, "porter unicode61"; SchemaError for what is none."""
    if not isinstance(tokenizer, str) or not tokenizer.isprintable() or tokenizer.split(" ")[0] not in TOKENIZERS:
        raise SchemaError(f"{label}: search= is True, or a tokenizer that begins with {', '.join(TOKENIZERS)}")
    return tokenizer


def expression(text: object, columns: Sequence[str]) -> str:
    """What somebody typed as an expression of FTS5, over these columns; TypeError, LimitExceeded.

    It is never one that FTS5 refuses. Without a word it finds nothing.
    """
    if not isinstance(text, str):
        raise TypeError(f"a search wants str, got {type(text).__name__}")
    if len(text) > SEARCH_CHARS_MAX:
        raise LimitExceeded(f"a search takes up to {SEARCH_CHARS_MAX:,} characters")
    typed = text.encode("utf-8", "replace").decode().replace("\0", " ")
    words = [
        quoted(phrase or word.rstrip("*")) + (star or "*" * word.endswith("*"))
        for phrase, star, word in _TYPED.findall(typed)
    ]
    return f"{{{' '.join(map(quoted, columns))}}} : ({' '.join(words) or quoted('')})"


def every(expressions: Iterable[str]) -> str:
    """The expression of what all of these find."""
    return " AND ".join(f"({one})" for one in expressions)


def quoted(text: str) -> str:
    """A string of FTS5, or a name of SQL."""
    return '"' + text.replace('"', '""') + '"'


def table_sql(table: str, searched: Searched, options: str) -> str:
    """The SQL that makes a search table."""
    columns = ", ".join(map(quoted, searched.columns))
    tokenizer = searched.tokenizer.replace("'", "''")
    return f"CREATE VIRTUAL TABLE {table} USING fts5({columns}, {options}, tokenize='{tokenizer}')"


def ranked(searched: Searched, expression: str, rows: Iterable[Sequence[Any]]) -> list[int]:
    """The places, from 0, of rows of values of the searched columns that are found, the best first, as FTS5 ranks them.

    For records that are at hand; those of a file are found by its search table.
    """
    db = apsw.Connection(":memory:")
    try:
        db.execute(table_sql("_found", searched, "content=''"))
        db.executemany(
            f"INSERT INTO _found(rowid, {', '.join(map(quoted, searched.columns))}) "
            f"VALUES(?{', ?' * len(searched.columns)})",
            ((place, *values) for place, values in enumerate(rows, 1)),
        )
        sql = "SELECT rowid FROM _found WHERE _found MATCH ? ORDER BY rank, rowid"
        return [place - 1 for (place,) in db.execute(sql, (expression,))]
    finally:
        db.close()
