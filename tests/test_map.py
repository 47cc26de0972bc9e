"""A newcomer's questions: the field's word leads, by the README's map or a room's sentence, to the file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

QUESTIONS: tuple[tuple[str, str, str], ...] = (
    ("Where is the loss of KTO?", "kto", "training/objectives/kto.py"),
    ("Where is LoRA attached to a model?", "lora", "training/tuners/lora.py"),
    ("Where are learning rates chosen?", "hyperparameters", "training/recipes/default_hyperparameters.py"),
    ("Where is it estimated whether a recipe fits the memory?", "memory", "training/recipes/memory.py"),
    ("Where are examples tokenised?", "tokenization", "training/stages/tokenization.py"),
    ("Where are sequences packed into rows?", "packing", "training/engines/native/packing/rows.py"),
    ("Where is a loss spike found?", "loss-spike", "training/engines/native/loop/loss_spikes.py"),
    (
        "Where is attention over packed rows computed?",
        "attention",
        "training/engines/native/kernels/packed_attention.py",
    ),
    ("Where do several processes share gradients (FSDP)?", "FSDP", "training/engines/native/kernels/distributed.py"),
    ("Where do GRPO's rollouts come from?", "rollouts", "training/engines/native/online/rollouts.py"),
    ("Where is the reward model scored?", "reward model", "training/engines/native/online/reward_model.py"),
    ("Where is text sampled?", "sampling", "training/generation/sampling.py"),
    ("Where is an adapter merged into its base?", "merge", "training/weights/merging.py"),
    ("Where does a stage resume from?", "checkpoints", "training/stages/checkpoints.py"),
    ("Where is a conversation rendered by its chat template?", "chat template", "training/chat/rendering.py"),
    ("Where is an answer graded against a reference?", "reference", "training/graders/exact_match.py"),
    ("Where is decided whether a challenger is promoted?", "verdict", "evaluation/gate/decide.py"),
    ("Where is the power of the gate computed?", "power", "evaluation/gate/power.py"),
    ("Where do I add a metric?", "metric", "evaluation/metrics/__init__.py"),
    ("Where are win rates corrected for length?", "length control", "evaluation/judges/length_control.py"),
    ("Where is the noise floor kept?", "noise floors", "evaluation/run/noise_floors.py"),
    ("Where is decided whether a canary goes back?", "sequential tests", "deploy/canary/assess.py"),
    ("Where is a version rolled back?", "roll back", "deploy/release/rollback.py"),
    ("Where is what is live written down?", "release ledger", "deploy/ledger/ledger.py"),
    ("Where is a user assigned to a version?", "routing", "deploy/gateway/routing/assign.py"),
    ("Where does an answer wait when the database is away?", "spool", "deploy/gateway/capture/spool.py"),
    ("Where are API keys checked?", "API keys", "deploy/gateway/access/gatekeeper.py"),
    ("Where is a served version compared with the trained one?", "parity", "deploy/versions/parity.py"),
    ("Where do I add a form of file?", "form of file", "feedback/formats/__init__.py"),
    ("Where are near-duplicates found?", "MinHash", "feedback/duplicates/dedupe.py"),
    ("Where is personal data removed?", "personal data", "feedback/redaction/redact.py"),
    ("Where is poison found?", "poison", "feedback/abuse/detect.py"),
    ("Where is the split into training and gate parts?", "splits", "feedback/snapshots/splits.py"),
    ("Where is drift measured?", "drift", "feedback/quality/drift.py"),
    ("Where is an erased person's tombstone?", "tombstones", "feedback/store/tombstones.py"),
    ("Where do nights resume after a crash?", "resuming", "flows/night/record.py"),
    ("Where does `ratchet up` start the servers?", "ratchet up", "flows/stack/local_stack.py"),
    ("Where do alerts go?", "alerts", "infra/alerts/outbox.py"),
    ("Where are SQL migrations?", "migrations", "infra/database/schema.py"),
)


def room_of(file: str) -> Path:
    return (ROOT / file).parent


def sentence(room: Path) -> str:
    """First paragraph of a room's docstring."""
    return (ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "").split("\n\n")[0]


def line_of_the_map(room: Path) -> str:
    """The line of the README's map that names the room."""
    text = (ROOT / "README.md").read_text().split("## The map")[1].split("```")[1]
    named = [line for line in text.splitlines() if room.name in line.replace("/", " ").replace("(", " ").split()]
    return " ".join(named)


@pytest.mark.parametrize(("question", "word", "file"), QUESTIONS, ids=[file for _, _, file in QUESTIONS])
def test_the_fields_word_leads_to_the_file(question: str, word: str, file: str) -> None:
    assert (ROOT / file).is_file(), question
    room = room_of(file)
    said = f"{sentence(room)} {line_of_the_map(room)}".lower()
    assert word.lower() in said, f"{question} {word!r} stands neither in the map nor in {room.name}'s sentence: {said}"


def test_there_are_thirty_questions_and_no_two_the_same() -> None:
    assert len({file for _, _, file in QUESTIONS}) == len(QUESTIONS) >= 30
