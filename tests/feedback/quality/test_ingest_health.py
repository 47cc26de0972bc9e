"""When people are told about the intake: a spike is a rise, not a level; stale means that somebody waits."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from feedback.abuse.agreement import Claim
from feedback.abuse.language_mismatch import LanguageMismatchConfig, is_language_mismatch, mismatching_accounts
from feedback.events import Thumb
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Manifest
from feedback.quality.ingest_health import IngestHealthConfig, batches_before, ingest_stale, quarantine_spike
from infra.database.connect import now
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store


def manifest(batch: int, held: int, accepted: int) -> Manifest:
    return Manifest(batch=batch, cursor=batch, counts={"fates": {"accepted": accepted, "quarantined": held}})


def test_a_spike_is_a_rise_over_what_is_usual() -> None:
    quiet = [manifest(n, 2, 98) for n in range(1, 6)]
    counts = {"fates": {"accepted": 60, "quarantined": 40}, "quarantined": {"flood": 40}}
    found = quarantine_spike(counts, quiet, IngestHealthConfig())
    assert found is not None and (found.held, found.events, found.reasons) == (40, 100, {"flood": 40})
    noisy = [manifest(n, 38, 62) for n in range(1, 6)]
    assert quarantine_spike(counts, noisy, IngestHealthConfig()) is None
    assert quarantine_spike({"fates": {"accepted": 1, "quarantined": 9}}, quiet, IngestHealthConfig()) is None
    assert quarantine_spike({}, [], IngestHealthConfig()) is None


def test_ingestion_is_stale_when_feedback_waits(tmp_path: Path) -> None:
    store, lake, config = make_store(tmp_path), make_lake(tmp_path), IngestHealthConfig(silent_hours=48)
    assert ingest_stale(store.database, lake, now(), config) is None
    store.record_interaction(interaction(1, "hello there"))
    store.record_feedback(feedback_on(1, Thumb(up=True)))
    assert ingest_stale(store.database, lake, now(), config) is None
    assert "1 feedback wait" in (ingest_stale(store.database, lake, now() + timedelta(hours=31), config) or "")
    run_ingest(store, lake, (), FAST)
    assert ingest_stale(store.database, lake, now() + timedelta(hours=31), config) is None
    assert "no feedback has come" in (ingest_stale(store.database, lake, now() + timedelta(hours=49), config) or "")
    assert [m.batch for m in batches_before(lake, 2, config)] == [1]


def test_foreign_labels_are_an_accounts_habit_that_others_do_not_share() -> None:
    asked = (
        "The invoice that you sent to me is not right, can you please look at it and send another one to my address?"
    )
    english = "I am sorry about that, we have sent another invoice to the address that is in your account with us now"
    russian = "Мы отправили вам новый счёт, пожалуйста проверьте вашу почту и сообщите нам о результате"

    def claims(actor: str, answer: str, number: int, *, suspect: bool = True) -> tuple[str, bool, bool]:
        return actor, is_language_mismatch(Claim(f"{actor}{number}", actor, asked, answer)), suspect

    people = [claims(f"p{n % 9}", english, n) for n in range(60)]
    attack = [claims("mallory", russian, n) for n in range(6)]
    assert set(mismatching_accounts([*people, *attack], LanguageMismatchConfig())) == {"mallory"}
    translators = [claims(f"p{n % 9}", russian, n) for n in range(30)]
    assert mismatching_accounts([*people, *attack, *translators], LanguageMismatchConfig()) == {}
    trusted = [claims("mallory", russian, n, suspect=False) for n in range(6)]
    assert mismatching_accounts([*people, *trusted], LanguageMismatchConfig()) == {}
