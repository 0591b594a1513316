"""A reader can follow a write without opening half of the package."""

from tests.architecture.moves import moves_of_a_put

MOVES_MAX = 41
"""Fewer than half of the 84 that a put once took."""


def test_a_put_on_sqlite_enters_few_files() -> None:
    moves = moves_of_a_put()
    assert len(moves) <= MOVES_MAX, "\n".join(f"{file}: {function}" for file, function in moves)
    assert len(moves) > 20  # it was really followed
