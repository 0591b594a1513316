"""What a reading says of the place in the log that it is valid at; found by the checker, under load."""

import pytest

import ccs_stream
from ccs_stream.protocol.directory import ArtifactState


def test_a_reading_is_not_valid_at_a_position_behind_the_next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    with ccs_stream.connect() as workspace:
        writer, bodies = workspace.agent("w"), workspace.engine.contents
        writer.write("k", "first")
        bodies._kept.clear()
        fetch = bodies.fetch

        def slow(artifact: ArtifactState) -> bytes:
            writer.write("k", "meanwhile")
            return fetch(artifact)

        monkeypatch.setattr(bodies, "fetch", slow)
        reading = workspace.agent("r").read("k")
        assert reading is not None
        past = workspace.as_of(reading.position).read("k")
        assert past is not None
        assert past.version == reading.version
