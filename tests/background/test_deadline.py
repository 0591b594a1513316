"""What is left of a wait that several steps share."""

import math

from ccs_stream.clock import Deadline


def test_what_is_left_is_never_negative_and_never_grows() -> None:
    assert Deadline(-1.0).left_s == 0
    assert Deadline(math.inf).left_s == math.inf
    deadline = Deadline(60.0)
    first, second = deadline.left_s, deadline.left_s
    assert 60.0 >= first >= second > 0
