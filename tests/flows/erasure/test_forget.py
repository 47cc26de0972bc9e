"""Lineage both ways, and forgetting a person: gone from every place, named, marked, kept out, proved by searching."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from deploy.config import ConsoleJob
from deploy.experiments.arena import Pair, record_pair, tally
from deploy.experiments.shadow import ShadowAnswer, record_shadow, shadow_answers_of
from deploy.gateway.console.lineage import trace
from deploy.ledger.ledger import append
from deploy.ledger.state import Entry, ReleaseState
from deploy.lineage.lookup import Lookup
from deploy.lineage.trace import trace as lineage
from deploy.nights.request import NightRequest
from deploy.nights.steps import SNAPSHOT
from deploy.versions.versions import publish_version
from feedback.erasure.belongings import find_belongings
from feedback.events import Edit, Rating, Reference, Thumb
from feedback.ingest.run import IngestConfig, run_ingest
from feedback.lake.lake import Lake
from feedback.lake.orphans import orphaned_events
from feedback.lake.quarantine import held_rows
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot
from feedback.sources.landing import SourceSpec
from feedback.store.store import Store
from feedback.store.user_salt import pseudonym
from flows.config.pipeline import PipelineConfig
from flows.erasure.forget import forget, preview_erasure
from flows.erasure.redact_files import scrub, search
from flows.erasure.replacement import pending, replacement_plan
from flows.history.lake_view import compare_snapshots, export, latest_batches, show_snapshot, snapshot_named
from flows.night.record import open_night, read_night
from infra.artifact import digest_dir, digest_file, finished_record, write_record
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import NotFound, UserError
from tests.feedback.world import FAST, feedback_on, interaction

SECRET = "my cat Bartholomew ate the router cable again last night"
FIXED = "I am sorry about Bartholomew; we will send a new router cable"
ELSE = "How do I reset the password of my second mailbox, please?"
NO_GATE = SnapshotConfig(validation_share=0.3, rolling_share=0, frozen_share=0)


class Home:
    """A pipeline's home in which Ann (to be forgotten), Bob and a trusted agent left their traces."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RATCHET_USER_SALT", "salt")
        self.config = PipelineConfig.model_validate(
            {
                "pipeline": "desk",
                "tenants": ["acme"],
                "places": {"home": str(folder / "home"), "cache": str(folder / "c")},
            }
        )
        self.places = self.config.places
        import deploy.ledger.ledger
        import feedback.lake.quarantine
        import feedback.sources.landing
        import feedback.store.tombstones
        import infra.alerts.outbox

        assert all(
            (
                deploy.ledger.ledger,
                feedback.store.tombstones,
                feedback.lake.quarantine,
                feedback.sources.landing,
                infra.alerts.outbox,
            )
        )
        engine = connect(self.places.database)
        create_tables(engine)
        self.store, self.lake = Store(engine), Lake(self.places.lake_dir)
        self.ann = pseudonym("ann@example.com", "salt")

    def ingest(self, config: IngestConfig = FAST) -> Any:
        return run_ingest(self.store, self.lake, (), config)

    def fill(self, config: IngestConfig = FAST) -> None:
        self.store.record_interaction(interaction(1, SECRET, "Sorry!", user=self.ann))
        self.store.record_feedback(feedback_on(1, Edit(text=FIXED), "agent", trusted=True))
        self.store.record_interaction(interaction(2, ELSE, "Use the form.", user="u-bob"))
        self.store.record_feedback(
            feedback_on(2, Edit(text="Ask Bartholomew's friend, he knows all passwords"), self.ann)
        )
        self.store.record_feedback(feedback_on(2, Thumb(up=True), "u-bob"))
        self.store.record_interaction(
            interaction(3, "What are the opening hours on Sundays, please?", "9-5", user="u-bob")
        )
        self.store.record_feedback(feedback_on(3, Thumb(up=True), "agent", trusted=True))
        self.store.record_interaction(interaction(4, SECRET + " and again", "x", user=self.ann))
        self.store.record_feedback(feedback_on(4, Rating(score=3), self.ann))  # neutral: quarantined
        self.ingest(config)
        self.snapshot = cut_snapshot(self.lake, self.places.snapshots_dir, NO_GATE, tenant="acme")
        self.version = self.train(self.snapshot.train)

    def train(self, data: Path, key: str = "k1") -> str:
        """A finished stage with the record that training writes, published as a version."""
        stage = self.places.stages_dir / key
        (stage / "adapter").mkdir(parents=True)
        (stage / "adapter" / "adapter_model.safetensors").write_bytes(f"weights of {key}".encode())
        parents = {"base": "b", "train": digest_file(data), "validation": "none"}
        digest = digest_dir(stage / "adapter")
        write_record(stage, finished_record(name="sft-lora", key=key, digest=digest, parents=parents))
        return publish_version(stage, self.places.versions_dir).name

    def spread(self) -> None:
        """Copies where nights leave them: reports, answers, logs, gate items, MLflow's artifacts, tokenised data."""
        night = self.places.evaluations_dir / "n1"
        night.mkdir(parents=True)
        (night / "report.html").write_text(f"<h1>Report</h1><p>{SECRET}</p>")
        (night / "examples.json").write_text(json.dumps([{"prompt": f'He said "{SECRET}"'}, {"prompt": ELSE}]))
        pl.DataFrame({"item_id": ["a", "b"], "answer": [f"You wrote: {SECRET}", "Use the form."]}).write_parquet(
            night / "answers.parquet"
        )
        (self.places.logs_dir).mkdir(parents=True)
        (self.places.logs_dir / "engine.log").write_text(f"start\nprompt: {SECRET}\nend\n")
        copy = self.places.home_dir / "mlflow" / "artifacts" / "1" / "report.html"
        copy.parent.mkdir(parents=True)
        copy.write_text(SECRET)
        tokens = self.places.cache_dir / "tokenised" / "x.safetensors"
        tokens.parent.mkdir(parents=True)
        tokens.write_bytes(b"ids")
        taught = self.places.cache_dir / "teacher" / "abc.json"
        taught.parent.mkdir(parents=True)
        taught.write_text(json.dumps({"messages": [{"role": "user", "content": SECRET}], "answer": "Oh."}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path, monkeypatch)
    made.fill()
    return made


def test_lineage_leads_both_ways(home: Home) -> None:
    def links(name: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        found = lineage(home.places, home.store, name, tenant="acme")
        sides = []
        for side in (found.made_of, found.became):
            by_kind: dict[str, set[str]] = {}
            for link in side:
                by_kind.setdefault(link.kind, set()).add(link.name)
            sides.append(by_kind)
        return sides[0], sides[1]

    made_of, became = links("i1")
    assert made_of["version"] == {"v1"} and became["feedback"] == {"e1-edit-agent"}
    assert became["snapshot"] == {home.snapshot.id} and len(became["example"]) == 2
    example = next(iter(became["example"]))
    made_of, became = links(example)
    assert made_of["feedback"] == {"e1-edit-agent"} and made_of["answer"] == {"i1"}
    assert became["snapshot"] == {home.snapshot.id}
    assert links("e1-edit-agent")[0]["answer"] == {"i1"}
    made_of, became = links(home.version)
    assert made_of["snapshot"] == {home.snapshot.id} and made_of["stage"] == {"k1"}
    assert links(home.snapshot.id)[1]["version"] == {home.version}
    line = append(
        home.store.database, Entry(tenant="acme", action="baseline", version=home.version, actor="x", reason="y"), 0
    )
    made_of, became = links(str(line.seq))
    assert made_of == {"version": {home.version}, "snapshot": {home.snapshot.id}} and became == {}
    with pytest.raises(NotFound, match="nothing is called"):
        links("who?")


def test_lineage_knows_gate_items_and_what_a_word_was_merged_into(home: Home) -> None:
    twin = "What are the opening hours on Sundays, please?"
    home.store.record_interaction(interaction(5, twin, "9-5", user="u-eve"))
    home.store.record_feedback(feedback_on(5, Thumb(up=True), "u-eve"))
    home.ingest()
    shutil.rmtree(home.places.snapshots_dir)  # groups keep the part they were given first
    gate = SnapshotConfig(validation_share=0, rolling_share=0.9, frozen_share=0, salt="x")
    snapshot = cut_snapshot(home.lake, home.places.snapshots_dir, gate, tenant="acme")
    held = {
        (row.example_id, link.name): link.note
        for row in Lookup(home.places, home.store, "acme").examples("subject", "i3")
        for link in lineage(home.places, home.store, row.example_id, tenant="acme").became
    }
    (completion,) = [e.example_id for e in home.lake.examples() if e.subject == "i3" and e.shape == "completion"]
    assert "gate/rolling.jsonl" in held[(completion, snapshot.id)]
    shown = trace(home.store.database, ConsoleJob(home=home.places.home_dir), "acme", completion).cards
    assert snapshot.id in cast("list[str]", shown[-1].facts["in snapshots"])
    merged = lineage(home.places, home.store, "e5-thumb-u-eve", tenant="acme")
    assert ("example", completion) in {(link.kind, link.name) for link in merged.became}
    stands_for = lineage(home.places, home.store, completion, tenant="acme").made_of
    assert [(link.name, link.note) for link in stands_for if link.note == "merged into it"] == [
        ("e5-thumb-u-eve", "merged into it")
    ]
    (word,) = [link for link in lineage(home.places, home.store, "i5", tenant="acme").became if link.kind == "feedback"]
    assert word.note.startswith("thumb by u-eve: merged (duplicate), into x-") and completion in word.note


def test_a_person_is_gone_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, monkeypatch)
    home.fill(IngestConfig())  # with Data Docs
    home.spread()
    before = home.snapshot.digest
    for subject in ("i1", "i3"):
        answer = ShadowAnswer(
            tenant="acme", interaction_id=subject, version="v9", answer=f"{SECRET}?" * (subject == "i1"), latency_ms=1.0
        )
        assert record_shadow(home.store.database, answer)
        pair = {"first_id": subject, "second_id": f"{subject}-b", "first_version": "v1", "second_version": "v9"}
        record_pair(home.store.database, Pair(arena_id=f"a-{subject}", tenant="acme", **pair))
    plan = preview_erasure(home.config, home.store, "ann@example.com", tenant="acme")
    assert plan.snapshots == (home.snapshot.id,) and plan.versions == (home.version,)
    assert home.store.interaction("acme", "i1") is not None
    done = forget(home.config, home.store, "ann@example.com", tenant="acme", by="dpo", reason="request 17")
    assert done.left == () and done.searched > 10
    assert (done.snapshots, done.versions, done.live) == ((home.snapshot.id,), (home.version,), {})
    # An independent look at every byte below home, Delta's log and old files included.
    needles = (SECRET, "Bartholomew", home.ann, "ann@example.com")
    for file in home.places.home_dir.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            if file.suffix == ".parquet":
                text += str(pl.read_parquet(file).to_dicts()).encode()
            assert not [n for n in needles if n.encode() in text], file
    assert not [file for name in ("tokenised", "teacher") for file in (home.places.cache_dir / name).iterdir()]
    assert ELSE in (home.places.evaluations_dir / "n1" / "examples.json").read_text()
    assert (home.places.logs_dir / "engine.log").read_text() == "start\n[forgotten]\nend\n"
    assert (done.removed["shadow answers"], done.removed["arena pairs"]) == (1, 1)
    assert [a.interaction_id for a in shadow_answers_of(home.store.database, "acme", "v9")] == ["i3"]
    assert {row.open for row in tally(home.store.database, "acme")} == {1}
    # What stays: others' rows, marks, and a record without content.
    assert {e.subject for e in home.lake.examples()} == {"i3"}
    stone = json.loads((home.places.snapshots_dir / home.snapshot.id / "forgotten.json").read_text())
    assert (
        sum(n for parts in stone["persons"].values() for n in parts.values())
        == done.removed[f"snapshot {home.snapshot.id}"]
    )
    assert (home.places.versions_dir / home.version / "forgotten.json").exists()
    assert snapshot_named(home.places, home.snapshot.id[:6]).digest == before
    assert pending(home.places, home.store, "acme") == {}
    # What others said of the same answers is taken in anew, now without her words.
    home.ingest()
    assert {(e.subject, e.shape, e.reason) for e in home.lake.examples()} == {
        (subject, *made) for subject in ("i2", "i3") for made in (("completion", "approved"), ("rated", "approved"))
    }
    with pytest.raises(NotFound, match="forgotten on"):
        forget(home.config, home.store, "ann@example.com", tenant="acme", by="dpo")


def test_the_plan_names_what_replaces_each_live_version() -> None:
    standing = ReleaseState(tenant="acme", champion="v2", previous="v1", base="b", champions=("b", "v1", "v2"))
    assert "nothing needs to be replaced" in replacement_plan(standing, {}, ["v7"])[0]
    steps = replacement_plan(standing, {"champion": "v2"}, ["v2"])
    assert "v2 (champion)" in steps[0] and "`ratchet run nightly --force`" in steps[0]
    assert "`ratchet rollback --to v1 " in steps[1] and "an earlier champion" in steps[1]
    both = replacement_plan(standing, {"champion": "v2", "previous": "v1"}, ["v1", "v2"])
    assert "`ratchet rollback --to b " in both[1] and "would lead to v1" in both[2]
    canary = replacement_plan(standing, {"canary": "v3"}, ["v3"])
    assert "take back the canary v3" in canary[0] and "`ratchet resume`" in canary[1] and "--to" not in " ".join(canary)
    all_of_them = replacement_plan(
        standing.model_copy(update={"champions": ("v2",), "base": None}), {"champion": "v2"}, ["v2"]
    )
    assert "--to" not in " ".join(all_of_them)


def test_what_others_said_is_not_lost_with_the_copy_that_stood_for_it(home: Home) -> None:
    asked = "Which of the two cables of the router is the one that goes to the wall?"
    home.store.record_interaction(interaction(11, asked, "?", user=home.ann))
    home.store.record_feedback(feedback_on(11, Edit(text="The grey one."), "agent", trusted=True))
    home.ingest()
    home.store.record_interaction(interaction(12, asked, "?", user="u-bob"))
    home.store.record_feedback(feedback_on(12, Edit(text="The grey one."), "u-bob"))
    assert home.ingest().counts["fates"] == {"merged": 1}
    assert orphaned_events(home.lake, "acme") == []
    forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    home.ingest()
    assert {e.completion for e in home.lake.examples() if e.subject == "i12"} >= {"The grey one."}
    assert orphaned_events(home.lake, "acme") == []


def test_sources_do_not_bring_a_forgotten_person_back(home: Home) -> None:
    forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert not home.store.record_interaction(interaction(1, SECRET, user=home.ann))
    home.store.record_feedback(feedback_on(2, Thumb(up=False), home.ann))
    assert home.store.interaction("acme", "i1") is None
    from infra.database.connect import now

    later = now()
    assert home.store.record_interaction(interaction(9, "A new question", user=home.ann, created_at=later))


def test_killed_half_way_it_is_finished_by_the_next_call(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.erasure.forget as module

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(module, "erase_from_store", dies)
        forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    done = forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert done.left == () and done.snapshots == (home.snapshot.id,) and done.versions == (home.version,)


@pytest.mark.parametrize("after", ["erase_from_snapshots", "scrub", "erase_from_lake"])
def test_killed_after_any_step_the_next_call_finds_what_has_no_name_on_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Gate items bear neither a subject nor a user, and short texts cannot be searched for."""
    import flows.erasure.forget as module

    home.store.record_interaction(interaction(21, "Is it 5?", "No.", user=home.ann))
    home.store.record_feedback(feedback_on(21, Reference(text="Yes, 5."), "agent", trusted=True))
    home.ingest()
    for salt in "abcdefgh":  # until her group is the gate's
        shutil.rmtree(home.places.snapshots_dir)
        gate = SnapshotConfig(validation_share=0, rolling_share=0.9, frozen_share=0, salt=salt)
        snapshot = cut_snapshot(home.lake, home.places.snapshots_dir, gate, tenant="acme")
        if "Is it 5?" in (snapshot.path / "gate" / "rolling.jsonl").read_text():
            break
    night = home.places.nights_dir / "n1"
    night.mkdir(parents=True)
    shutil.copy(snapshot.path / "gate" / "rolling.jsonl", night / "items.jsonl")
    kept = [night / "items.jsonl", snapshot.path / "gate" / "rolling.jsonl"]
    assert all("Is it 5?" in file.read_text() for file in kept)
    step = getattr(module, after)

    def dies(*words: Any, **named: Any) -> None:
        step(*words, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(module, after, dies)
        forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    done = forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert done.left == () and done.snapshots == (snapshot.id,)
    assert not any("Is it 5?" in file.read_text() for file in kept)


def test_texts_too_short_to_search_for_go_from_reports_and_data_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, monkeypatch)
    odd = "It's Ann Doe, isn't it? <|im_end|>"
    home.store.record_interaction(interaction(1, 'Say "Ann"!', "Sure.", user=home.ann))
    home.store.record_feedback(feedback_on(1, Edit(text=odd), home.ann, trusted=True))
    home.store.record_interaction(interaction(2, ELSE, "Use the form.", user="u-bob"))
    home.store.record_feedback(feedback_on(2, Edit(text="Thank you"), "u-bob"))
    home.ingest(IngestConfig())
    (docs,) = home.lake.docs_dir.iterdir()
    assert any("Ann Doe" in page.read_text() for page in docs.rglob("*.html"))
    copy, other = (home.places.home_dir / "mlflow" / "artifacts" / name for name in ("a.html", "b.html"))
    copy.parent.mkdir(parents=True)
    copy.write_text(f"<td>{html.escape(odd)}</td>")
    other.write_text("<td>Thank you</td>")
    examples = home.places.evaluations_dir / "n1" / "examples.json"
    examples.parent.mkdir(parents=True)
    examples.write_text(json.dumps([{"question": 'Say "Ann"!'}, {"question": ELSE}]))
    done = forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert done.left == () and done.too_short == 3 and done.removed["data docs"] == 1
    assert not docs.exists() and "Ann Doe" not in copy.read_text() and "Thank you" in other.read_text()
    assert [e["question"] for e in json.loads(examples.read_text())] == ["[forgotten]", ELSE]


def test_short_words_of_theirs_leave_our_own_files_as_they_are(home: Home) -> None:
    routing = {"release_seq": 1, "arm": "holdback", "unit": "u-1", "probability": 0.1}
    home.store.record_interaction(interaction(51, "abandoned", "validation", user=home.ann, routing=routing))
    home.store.record_interaction(interaction(52, "still running", "held out", user=home.ann))
    with open_night(home.config, NightRequest()) as night:
        night.close("abandoned", "still running")
    page, card = home.places.evaluations_dir / "n1" / "report.html", home.places.evaluations_dir / "n1" / "card.json"
    page.parent.mkdir(parents=True)
    page.write_text("<p>Loss on the validation part; abandoned; of the holdback</p>")
    card.write_text(json.dumps({"role": "holdback", "reason": "still running"}))
    before = page.read_text(), card.read_text(), read_night(home.config, night.night_id)
    assert forget(home.config, home.store, home.ann, tenant="acme", by="dpo").left == ()
    assert (page.read_text(), card.read_text(), read_night(home.config, night.night_id)) == before


def test_a_snapshot_from_before_they_spoke_is_left_as_it_was(home: Home) -> None:
    """The same example, of the same answer, was there without their word."""
    before = home.snapshot.train.read_text()
    home.store.record_feedback(feedback_on(3, Thumb(up=True), "u-eve"))
    home.ingest()
    assert any("e3-thumb-u-eve" in example.source_events for example in home.lake.examples())
    done = forget(home.config, home.store, "u-eve", tenant="acme", by="dpo", hashed=True)
    assert (done.snapshots, done.versions, done.left) == ((), (), ())
    assert home.snapshot.train.read_text() == before


def test_another_tenant_s_user_of_the_same_id_keeps_what_is_theirs(home: Home) -> None:
    home.store.record_interaction(interaction(31, ELSE, "Ask.", user=home.ann, tenant="globex"))
    home.store.record_feedback(feedback_on(31, Edit(text="Use the other form."), home.ann, tenant="globex"))
    home.ingest()
    spooled = home.places.home_dir / "spool-1" / "lot.jsonl"
    spooled.parent.mkdir()
    rows = [interaction(32, "short", user=home.ann, tenant=tenant).model_dump_json() for tenant in ("acme", "globex")]
    spooled.write_text("".join(f"{row}\n" for row in rows))
    done = forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert done.left == ()
    assert spooled.read_text() == f"{rows[1]}\n"
    assert home.store.interaction("globex", "i31") is not None
    assert {e.tenant for e in home.lake.examples() if e.subject == "i31"} == {"globex"}
    spooled.write_text("".join(f"{row}\n" for row in rows))
    found = find_belongings(home.store, home.lake, "acme", home.ann)
    assert search(home.places.home_dir, found)[1] == ["spool-1/lot.jsonl"]


def test_a_source_without_times_does_not_bring_back_what_was_said_of_others_answers(home: Home) -> None:
    forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    from infra.database.connect import now

    word = feedback_on(2, Edit(text="Ask Bartholomew's friend, he knows all passwords"), home.ann, created_at=now())
    home.store.record_feedback(word)
    assert home.store.feedback_for("acme", "i2") == [feedback_on(2, Thumb(up=True), "u-bob")]
    home.store.record_feedback(word.model_copy(update={"event_id": "new"}))  # what they say afterwards is new
    assert len(home.store.feedback_for("acme", "i2")) == 2


def test_no_night_works_meanwhile_and_what_is_published_later_is_named_all_the_same(home: Home) -> None:
    with open_night(home.config, NightRequest()) as night:
        night.once(SNAPSHOT, lambda: home.snapshot.id)
        with pytest.raises(UserError, match="is running already"):
            forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
        assert preview_erasure(home.config, home.store, home.ann, tenant="acme").versions
    shutil.rmtree(home.places.versions_dir)  # the night was killed before it published
    forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    closed = read_night(home.config, night.night_id)
    assert closed.state == "abandoned" and "forgotten" in closed.outcome
    later = publish_version(home.places.stages_dir / "k1", home.places.versions_dir).name
    append(home.store.database, Entry(tenant="acme", action="baseline", version=later, actor="x", reason="y"), 0)
    assert pending(home.places, home.store, "acme") == {"champion": later}
    assert pending(home.places, home.store, "globex") == {}


def test_who_trained_on_a_snapshot_that_lost_rows_before_is_found(home: Home) -> None:
    forget(home.config, home.store, "agent", tenant="acme", by="dpo", hashed=True)
    home.train(home.snapshot.train, "k2")  # a night on the old snapshot, as it is now
    done = forget(home.config, home.store, home.ann, tenant="acme", by="dpo")
    assert len(done.versions) == 2
    made_of = lineage(home.places, home.store, done.versions[0], tenant="acme").made_of
    assert home.snapshot.id in {link.name for link in made_of}


def test_a_gateway_s_own_database_is_cleared_too(home: Home, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    engine = connect(url)
    create_tables(engine)
    gateway = Store(engine)
    gateway.record_interaction(interaction(41, "My cat is called Nebuchadnezzar the Second", "Ok.", user=home.ann))
    gateway.record_interaction(interaction(42, ELSE, "Ok.", user="u-bob"))
    canned = "I am sorry, but I cannot help you with that today."
    gateway.record_interaction(interaction(44, "Help!", canned, user=home.ann))
    home.store.record_interaction(interaction(45, "Help me!", canned, user="u-bob"))
    report = home.places.evaluations_dir / "n1" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(f"<p>{canned}</p>")
    gateway.record_feedback(feedback_on(43, Thumb(up=True), "u-bob"))  # its interaction was never captured
    source = {"name": "desk", "kind": "gateway", "options": {"database_url": url}}
    config = home.config.model_copy(
        update={"ingest": home.config.ingest.model_copy(update={"sources": (SourceSpec.model_validate(source),)})}
    )
    for _ in range(2):
        run_ingest(home.store, home.lake, config.ingest.sources, FAST)
    assert home.store.parked() == 1
    done = forget(config, home.store, home.ann, tenant="acme", by="dpo")
    assert done.left == () and done.removed["gateway's store desk"] == 2
    assert canned in report.read_text()  # somebody else was told so too
    assert gateway.interaction("acme", "i41") is None and gateway.interaction("acme", "i42") is not None
    assert not gateway.record_interaction(interaction(41, "My cat is called Nebuchadnezzar", user=home.ann))


def test_a_search_that_finds_something_says_where(home: Home) -> None:
    found = find_belongings(home.store, home.lake, "acme", home.ann)
    (home.places.home_dir / "notes.txt").write_text(f"I remember: {SECRET}.")
    assert "notes.txt" in search(home.places.home_dir, found)[1]
    assert any(name.startswith("ratchet.db") for name in search(home.places.home_dir, found)[1])


def test_redacted_copies_are_found_too(home: Home) -> None:
    said_so = "write to {} about the cat of ours, at once"
    home.store.record_interaction(interaction(7, said_so.format("anna.x@mail.example"), "ok", user=home.ann))
    found = find_belongings(home.store, home.lake, "acme", home.ann)
    notes = home.places.home_dir / "notes.txt"
    notes.write_text(said_so.format("[EMAIL_4]"))  # as Data Docs and the lake have it
    assert "notes.txt" in search(home.places.home_dir, found)[1]
    assert scrub(home.places.home_dir, found, leave=[home.places.lake_dir])["notes.txt"] == 1
    assert not [needle for needle in found.needles if needle in ELSE]


def test_what_a_gateway_set_aside_is_searched_and_scrubbed(home: Home) -> None:
    found = find_belongings(home.store, home.lake, "acme", home.ann)
    spooled = home.places.home_dir / "spool" / "20260101T000000000000-abcdef01.unreadable"
    spooled.parent.mkdir()
    theirs = interaction(7, "short", user=home.ann).model_dump_json().encode()
    others = [b'{"cut off": "\xff', interaction(8, ELSE, user="u-bob").model_dump_json().encode(), b""]
    spooled.write_bytes(b"\n".join([theirs, f'{{"messages": "{SECRET}'.encode(), *others]))
    name = spooled.relative_to(home.places.home_dir).as_posix()
    assert name in search(home.places.home_dir, found)[1]
    assert scrub(home.places.home_dir, found, leave=())[name] == 2
    assert spooled.read_bytes() == b"\n".join(others)
    assert name not in search(home.places.home_dir, found)[1]


def test_the_lake_is_looked_at_and_kept_healthy(home: Home, tmp_path: Path) -> None:
    from feedback.ingest.run import locked
    from feedback.lake.maintenance import maintain

    (batch,) = latest_batches(home.lake, 5)
    assert batch.batch == 1 and batch.rows["accepted"] > 0
    home.store.record_feedback(feedback_on(3, Edit(text="10-4"), "agent", trusted=True))
    home.ingest()
    second = cut_snapshot(home.lake, home.places.snapshots_dir, NO_GATE, tenant="acme")
    found = compare_snapshots(home.snapshot, second)
    assert sum(found.added.values()) >= 1 and set(found.added_examples).isdisjoint(found.gone_examples)
    assert show_snapshot(second, 2).id == second.id
    counts = export(second, tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").height == sum(counts.values())
    export(second, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="exists already"):
        export(second, tmp_path / "out.jsonl")
    before = home.lake.examples()
    with locked(home.lake):
        report = maintain(home.lake, keep_hours=1)
    assert report.compacted["accepted"] == 2 and home.lake.examples() == before
    assert home.ingest().batches == () and home.lake.examples(through=1) != before


@pytest.mark.parametrize("who", ["zoe", "zoe@example.org"])
@pytest.mark.parametrize("good_row", [True, False])
def test_rows_that_could_not_be_read_go_too(home: Home, tmp_path: Path, who: str, good_row: bool) -> None:
    """Also those that name somebody of whom nothing else is here."""
    rows = [
        {"q": "I live at 12 Baker Street with my ill husband", "a": "Noted.", "stars": "very bad", "who": who},
        {"q": "Where does the bus to the harbour leave, please?", "a": "There.", "stars": "awful", "who": "bob"},
    ]
    if good_row:
        rows.append({"q": "What do you charge for a second mailbox?", "a": "Nothing.", "stars": "5", "who": who})
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"prompt": "q", "answer": "a", "rating": "stars", "user": "who"}
    options = {"paths": [str(tmp_path / "said.jsonl")], "tenant": "acme", "mapping": mapping}
    spec = SourceSpec.model_validate({"name": "said", "kind": "files", "options": options})
    run_ingest(home.store, home.lake, (spec,), FAST)
    held = {row.content for row in held_rows(home.store, home.lake) if row.step == "source"}
    assert sum("Baker Street" in content for content in held) == 1
    found = forget(home.config, home.store, who, tenant="acme", by="test")
    assert found.left == () and found.rejected_rows == 1
    held = {row.content for row in held_rows(home.store, home.lake) if row.step == "source"}
    assert len(held) == 1 and "harbour" in held.pop()
    run_ingest(home.store, home.lake, (spec,), FAST)
    assert not any("Baker" in row.content for row in held_rows(home.store, home.lake))
    shutil.copy(tmp_path / "said.jsonl", tmp_path / "said-again.jsonl")
    copied = SourceSpec.model_validate(
        {"name": "copy", "kind": "files", "options": options | {"paths": [str(tmp_path / "said-again.jsonl")]}}
    )
    run_ingest(home.store, home.lake, (copied,), FAST)
    assert not any("Baker" in row.content for row in held_rows(home.store, home.lake))
    with pytest.raises(NotFound):
        forget(home.config, home.store, "carl", tenant="acme", by="test")


def test_who_spoke_of_nobody_else_s_answers_is_not_taken_for_the_forgotten(home: Home) -> None:
    agent = pseudonym("lonely agent", "salt")
    home.store.record_interaction(interaction(20, "What is the weather in the harbour today?", user=home.ann))
    home.store.record_feedback(feedback_on(20, Edit(text="Sunny."), agent))
    home.ingest()
    assert forget(home.config, home.store, "ann@example.com", tenant="acme", by="test").left == ()
