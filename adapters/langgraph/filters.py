"""The filters of searches, and the conditions of namespace listings.

Guarantees: the operators and wildcards of LangGraph's own stores, with one meaning on every log; an unknown operator
raises and names the nearest known one. A value that cannot be compared with the operand does not match.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from langgraph.store.base import MatchCondition

from ccs_stream.protocol.errors import UsageError, unknown_name
from ccs_stream.protocol.limits import FILTER_DEPTH_MAX, shown


def _numbers(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def compared(value: Any, operand: Any) -> bool:
        try:
            return compare(_number(value), _number(operand))
        except (TypeError, ValueError, OverflowError):
            return False

    return compared


def _number(value: Any) -> float:
    """A number as it is, because whole numbers compare exactly at any size; anything else as a float."""
    return value if isinstance(value, int | float) else float(value)


def _equal(value: Any, operand: Any) -> bool:
    try:
        return bool(value == operand)
    except Exception:  # noqa: BLE001  # the operand is an object of the caller, whose comparison may raise anything
        return False


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equal,
    "$ne": lambda value, operand: not _equal(value, operand),
    "$gt": _numbers(lambda value, operand: value > operand),
    "$gte": _numbers(lambda value, operand: value >= operand),
    "$lt": _numbers(lambda value, operand: value < operand),
    "$lte": _numbers(lambda value, operand: value <= operand),
}


def check_filter(condition: Mapping[str, Any] | None, depth: int = 0) -> None:
    """Raise `UsageError` for what is no filter, and for an unknown operator, before anything is searched."""
    if condition is None:
        return
    if not isinstance(condition, Mapping):
        raise UsageError(f"filter is a mapping from keys to conditions, got {shown(condition)}")
    for key, value in condition.items():
        if not isinstance(key, str):
            raise UsageError(f"a key of a filter is text, got {shown(key)}")
        _check_condition(key, value, depth + 1)


def _check_condition(key: str, value: Any, depth: int) -> None:
    if depth > FILTER_DEPTH_MAX:
        raise UsageError(f"filter has more than {FILTER_DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        operators = [name for name in value if isinstance(name, str) and name.startswith("$")]
        for name in operators:
            if name not in _OPERATORS:
                raise unknown_name(name, _OPERATORS, what=f"for {key!r} there is no filter operator")
        if operators and len(operators) != len(value):
            raise UsageError(f"for {key!r} the filter mixes operators and keys: {shown(value)}")
        check_filter(value, depth)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_condition(key, each, depth + 1)


Test = Callable[[Any], bool]
"""Says whether a stored value passes."""


def test_of(condition: Mapping[str, Any] | None) -> Test:
    """The test of a filter, made once for all values of a search: every key passes, nested ones included."""
    return _members_test(condition) if condition else lambda _: True


def _members_test(condition: Mapping[str, Any]) -> Test:
    tests = [(key, _test_of(part)) for key, part in condition.items()]

    def passes(value: Any) -> bool:
        if type(value) is not dict and not isinstance(value, Mapping):
            return False
        for key, test in tests:  # noqa: SIM110  # as a loop, it takes half the time
            if not test(value.get(key)):
                return False
        return True

    return passes


def _test_of(condition: Any) -> Test:
    if isinstance(condition, Mapping):
        if any(name.startswith("$") for name in condition):
            return _operators_test(condition)
        return _members_test(condition)
    if isinstance(condition, list | tuple):
        return _elements_test(condition)
    return lambda value: _equal(value, condition)


def _operators_test(condition: Mapping[str, Any]) -> Test:
    tests = [(_OPERATORS[name], operand) for name, operand in condition.items()]
    return lambda value: all(operator(value, operand) for operator, operand in tests)


def _elements_test(condition: Sequence[Any]) -> Test:
    tests = [_test_of(part) for part in condition]

    def passes(value: Any) -> bool:
        same_length = isinstance(value, list | tuple) and len(value) == len(tests)
        return same_length and all(test(each) for each, test in zip(value, tests, strict=True))

    return passes


def listed(
    namespaces: Iterable[tuple[str, ...]], conditions: Iterable[MatchCondition] | None, max_depth: int | None
) -> list[tuple[str, ...]]:
    """Namespaces that meet all conditions, cut at `max_depth`, each once, sorted."""
    required = list(conditions or ())
    kept = {namespace for namespace in namespaces if all(_meets(namespace, each) for each in required)}
    return sorted({namespace[:max_depth] for namespace in kept} if max_depth is not None else kept)


def _meets(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if condition.match_type not in ("prefix", "suffix"):
        raise UsageError(f"unknown match type {condition.match_type!r}: use 'prefix' or 'suffix'")
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(pattern in ("*", label) for label, pattern in zip(part, path, strict=True))
