"""Named tuples, many at a time.

What a transaction of thousands of records makes one by one costs more than the tuples: the call of `__new__` for each,
and a garbage collector that goes through all of them, again and again. The kernel does without both.
"""

from fieldsync._native.named import of_columns, of_rows

__all__ = ["of_columns", "of_rows"]
