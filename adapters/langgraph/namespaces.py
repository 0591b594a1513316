"""The rules of namespaces, one set for every method of the store.

Guarantees: a namespace that one method takes, all take. The rules are LangGraph's, asked of LangGraph itself: labels
are non-empty texts without a full stop or NUL; nothing is written to the empty namespace, or under the root label
`langgraph`. Besides, a namespace is a tuple, and fits the limits of the log. Does not: say what a label means.
"""

from typing import Final

from langgraph.store.base import GetOp, InvalidNamespaceError, validate_op_namespace

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import check_scope, check_text, shown

Namespace = tuple[str, ...]
RESERVED_ROOT: Final = "langgraph"


class InvalidNamespace(UsageError, InvalidNamespaceError):
    """The namespace breaks a rule; the message says which."""


def check_namespace(namespace: Namespace) -> Namespace:
    """A namespace that may be read, or the prefix of one. Raises `InvalidNamespace`."""
    try:
        check_scope(namespace, "a namespace")
    except UsageError as error:
        raise InvalidNamespace(str(error)) from error
    try:
        validate_op_namespace(GetOp(namespace, ""))
    except InvalidNamespaceError as error:
        raise InvalidNamespace(
            f"a label of a namespace is a non-empty text without a full stop or NUL, got {namespace!r}"
        ) from error
    return namespace


def check_writable(namespace: Namespace) -> Namespace:
    """A namespace that may be written to. Raises `InvalidNamespace`."""
    check_namespace(namespace)
    if not namespace or namespace[0] == RESERVED_ROOT:
        raise InvalidNamespace(f"a namespace has a label, and does not begin with {RESERVED_ROOT!r}, got {namespace!r}")
    return namespace


def item_key(key: object) -> str:
    """The key of an item: LangGraph's stores take the text of whatever is given. Raises `UsageError`."""
    try:
        text = str(key)
    except Exception as error:  # an object whose own `__str__` fails, or one that nests too deeply
        raise UsageError(f"a key is text (a str), got {shown(key)}") from error
    return check_text(text, "a key")
