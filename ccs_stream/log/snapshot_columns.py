"""The artifacts of a snapshot as columns, one list for each field, and back.

`snapshot` uses it.

Guarantees: `artifacts_of` and `load_beside` restore every field that `columns_of` takes apart. Does not: verify;
`snapshot` verifies the restored state.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import starmap
from operator import attrgetter
from typing import Any, Final

from ccs_stream.protocol.directory import NO_PARTICIPANTS, ArtifactState, Directory
from ccs_stream.protocol.ids import Hash, Micros, ParticipantNumber, Scope
from ccs_stream.protocol.reclaims import Reclaim, ReclaimReason
from ccs_stream.protocol.states import GrantState

_ID_BYTES: Final = 16
_HASH_BYTES: Final = 32
_NO_HASH: Final = bytes(_HASH_BYTES)
"""Stands for the hash of no body in a column of hashes."""
NONE: Final = -1
"""Stands for None in a column of numbers, none of which is negative."""
_STATES: Final = {state.value: state for state in GrantState}
_ARTIFACT_FIELDS: Final = tuple(field.name for field in dataclasses.fields(ArtifactState) if field.name != "born")
_AS_THEY_ARE: Final = (
    *("key", "version", "sequence", "content_size", "writer", "created_at", "updated_at", "owner", "owned_since"),
    *("fence", "reserved_by", "reserved_until"),
)
_MAYBE: Final = ("content_index", "expires_at", "ttl_us")
_WHY: Final = {ReclaimReason.HEARTBEAT: "H", ReclaimReason.MAXIMUM_HOLD: "M", ReclaimReason.EXPIRED: "E"}
_REASONS: Final = {letter: reason for reason, letter in _WHY.items()}
_TEXTS: Final = ("content_type", "content_encoding", "writer_agent")


def columns_of(state: Directory) -> dict[str, Any]:
    """The artifacts, a list (or bytes) for each field."""
    artifacts = list(state.artifacts.values())
    place = {artifact.artifact: number for number, artifact in enumerate(artifacts)}
    scopes: dict[Scope, int] = {}
    texts: dict[str, int] = {}
    columns: dict[str, Any] = {name: [getattr(each, name) for each in artifacts] for name in _AS_THEY_ARE}
    for name in _MAYBE:
        columns[name] = [NONE if value is None else value for value in map(attrgetter(name), artifacts)]
    for name in _TEXTS:
        columns[name] = [texts.setdefault(text, len(texts)) for text in map(attrgetter(name), artifacts)]
    columns["scope"] = [scopes.setdefault(each.scope, len(scopes)) for each in artifacts]
    located = [number for number, each in enumerate(artifacts) if each.content_locator is not None]
    indexed = [number for number, each in enumerate(artifacts) if each.index_fields is not None]
    columns |= {
        "ids": b"".join(place),
        "scopes": [list(scope) for scope in scopes],
        "texts": list(texts),
        "deleted": bytes(each.deleted for each in artifacts),
        "content_hash": b"".join([each.content_hash or _NO_HASH for each in artifacts]),
        "owner_state": "".join([each.owner_state for each in artifacts]).encode(),
        "located": located,
        "locators": [artifacts[number].content_locator for number in located],
        "indexed": indexed,
        "index_fields": [list(artifacts[number].index_fields or ()) for number in indexed],
        "sharer_count": [len(each.sharers) for each in artifacts],
        "sharers": [number for each in artifacts if each.sharers for number in sorted(each.sharers)],
        "reclaimed_count": [len(each.reclaimed) for each in artifacts],
        "reclaimed": [number for each in artifacts if each.reclaimed for number in sorted(each.reclaimed)],
        "existing": [place[artifact] for keys in state.existing.values() for artifact in keys.values()],
    }
    return columns | _beside(state, artifacts)


def _beside(state: Directory, artifacts: list[ArtifactState]) -> dict[str, Any]:
    """Facts about artifacts that participants hold: why and when they lost one, since when they held one in E."""
    participants = state.participants
    reclaims = [
        participants[number].reclaimed.get(each.artifact)
        for each in artifacts
        if each.reclaimed
        for number in sorted(each.reclaimed)
    ]
    before: dict[int, int] = {}
    if state.settings.crash_recovery:
        for number, each in enumerate(artifacts):
            if each.owner and (since := participants[each.owner].owned[each.artifact]) != each.owned_since:
                before[number] = since
    return {
        "reclaimed_why": "".join(["?" if each is None else _WHY[each.reason] for each in reclaims]),
        "reclaimed_at": [NONE if each is None else each.at for each in reclaims],
        "owned_before": list(before),
        "granted_at": list(before.values()),
    }


def load_beside(state: Directory, artifacts: list[ArtifactState], columns: dict[str, Any]) -> None:
    """Restore the facts that `_beside` took apart. A snapshot of an earlier release has none of them."""
    lost = ((state.participants[number], each) for each in artifacts for number in sorted(each.reclaimed))
    whys, times = columns["reclaimed_why"], columns["reclaimed_at"]
    if whys or times:
        for (participant, artifact), why, at in zip(lost, whys, times, strict=True):
            known = None if why == "?" else Reclaim(_REASONS[why], Micros(at))
            participant.reclaimed[artifact.artifact] = known
    for number, since in zip(columns["owned_before"], columns["granted_at"], strict=True):
        artifact = artifacts[number]
        state.participants[artifact.owner].owned[artifact.artifact] = Micros(since)


def artifacts_of(columns: dict[str, Any]) -> list[ArtifactState]:
    """Restore the artifacts that `columns_of` took apart."""
    ids = columns["ids"]
    count = len(ids) // _ID_BYTES
    scopes, texts = [tuple(scope) for scope in columns["scopes"]], columns["texts"]
    hashes = columns["content_hash"]
    locators = _spread(count, columns["located"], columns["locators"])
    paths = _spread(count, columns["indexed"], map(tuple, columns["index_fields"]))
    columns |= {
        "artifact": [ids[at : at + _ID_BYTES] for at in range(0, len(ids), _ID_BYTES)],
        "scope": [scopes[number] for number in columns["scope"]],
        "deleted": map(bool, columns["deleted"]),
        "content_hash": [hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)],
        "content_locator": locators,
        "index_fields": paths,
        "owner_state": [_STATES[letter] for letter in columns["owner_state"].decode()],
        "sharers": _sets(columns["sharer_count"], columns["sharers"]),
        "reclaimed": map(frozenset, _sets(columns["reclaimed_count"], columns["reclaimed"])),
    }
    for name in _TEXTS:
        columns[name] = [texts[number] for number in columns[name]]
    for name in _MAYBE:
        columns[name] = [None if value == NONE else value for value in columns[name]]
    rows = zip(*(columns[name] for name in _ARTIFACT_FIELDS), strict=True)
    artifacts = list(starmap(ArtifactState, rows))
    for artifact in artifacts:
        if artifact.content_hash == _NO_HASH:
            artifact.content_hash = Hash(b"")
    return artifacts


def _spread(count: int, places: list[int], values: Iterable[Any]) -> list[Any]:
    spread = [None] * count
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def _sets(
    counts: list[int], numbers: list[ParticipantNumber]
) -> Iterator[set[ParticipantNumber] | frozenset[ParticipantNumber]]:
    """Sets of so many numbers each, taken one after another."""
    if sum(counts) != len(numbers):
        raise ValueError("the numbers of participants do not add up")
    at = 0
    for count in counts:
        yield set(numbers[at : at + count]) if count else NO_PARTICIPANTS
        at += count
