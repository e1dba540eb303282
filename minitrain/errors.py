"""The one exception type that minitrain raises for what a user can mend.

A message says what was got, what was expected, where (file, row, column, key, flag) and what to do.
Broken invariants of our own are `assert`s, not this.
"""


class MinitrainError(ValueError):
    """Bad input, a bad file or a bad flag: the message says where and what to do about it."""
