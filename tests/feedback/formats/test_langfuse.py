"""What exports of Langfuse are about: traces, observations, and scores on either."""

from __future__ import annotations

from tests.feedback.formats.test_formats import CASES, events


def test_a_score_in_a_file_of_its_own_waits_for_its_trace() -> None:
    row = {
        "id": "sc9",
        "traceId": "t1",
        "name": "correction",
        "stringValue": "Hello.",
        "dataType": "CORRECTION",
        "value": None,
    }
    interactions, (edit,) = events(row)
    assert interactions == [] and (edit.interaction_id, edit.kind) == ("t1", "edit")


# As the types of Langfuse's own SDK (5.0) write them.
SCORE_V3 = {
    "dataType": "CORRECTION",
    "value": "Hello.",
    "id": "sc2",
    "projectId": "p",
    "name": "output",
    "source": "ANNOTATION",
    "timestamp": "2026-01-02T03:04:05Z",
    "environment": "default",
    "createdAt": "2026-01-02T03:04:05Z",
    "updatedAt": "2026-01-02T03:04:05Z",
    "authorUserId": "u9",
    "subject": {"kind": "observation", "id": "o1", "traceId": "t1"},
}
OBSERVATION = {
    "id": "o1",
    "traceId": "t1",
    "startTime": "2026-01-02T03:04:05Z",
    "projectId": "p",
    "type": "GENERATION",
    "name": "answer",
    "userId": "u1",
    "sessionId": "s1",
    "input": '[{"role": "user", "content": "Say hello."}]',
    "output": '{"role": "assistant", "content": "Hi."}',
    "model": "m1",
}


def test_langfuse_scores_name_their_subject() -> None:
    (interaction,), [] = events(OBSERVATION)
    assert (interaction.interaction_id, interaction.answer, interaction.version) == ("o1", "Hi.", "m1")
    [], (edit,) = events(SCORE_V3)
    assert (edit.interaction_id, edit.value.text, edit.actor) == ("o1", "Hello.", "u9")
    thumb = SCORE_V3 | {"dataType": "BOOLEAN", "value": True, "name": "user-feedback"}
    [], (up,) = events(thumb | {"subject": {"kind": "trace", "id": "t1"}})
    assert (up.interaction_id, up.value.up) == ("t1", True)
    assert events(thumb | {"subject": {"kind": "session", "id": "s1"}}) == ([], [])
    assert events(OBSERVATION | {"type": "TOOL", "input": {"city": "Lima"}, "output": "24"}) == ([], [])


def test_langfuse_observations_of_one_trace_are_answers_of_their_own() -> None:
    first, second = OBSERVATION, OBSERVATION | {"id": "o2", "output": '{"role": "assistant", "content": "Bye."}'}
    score = {"id": "sc1", "traceId": "t1", "observationId": "o2", "name": "user-feedback", "value": 0}
    score |= {"dataType": "BOOLEAN", "source": "API"}
    answers = {i.interaction_id: i.answer for row in (first, second) for i in events(row)[0]}
    assert answers == {"o1": "Hi.", "o2": "Bye."}
    for shown in (score, {k: v for k, v in score.items() if k != "observationId"} | {"observation_id": "o2"}):
        [], (down,) = events(shown)
        assert (down.interaction_id, down.value.up) == ("o2", False)
    (interaction,), (down,) = events(second | {"scores": [score]})
    assert interaction.interaction_id == down.interaction_id == "o2"


def test_a_langfuse_traces_scores_may_be_about_its_observations() -> None:
    trace = CASES["langfuse trace with scores"][1]
    score = {"id": "sc3", "traceId": "t1", "observationId": "o2", "name": "stars", "value": 4, "source": "API"}
    (interaction,), words = events(trace | {"scores": [*trace["scores"], score]})
    assert interaction.interaction_id == "t1"
    assert {word.event_id: word.interaction_id for word in words} == {"lf-sc1": "t1", "lf-sc3": "o2"}
    (interaction,), (word,) = events(trace | {"scores": [score]})
    assert (interaction.interaction_id, word.interaction_id, word.actor) == ("t1", "o2", "u1")
