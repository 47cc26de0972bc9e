"""List the fixed prompts and answers that a version's probe is measured on."""

from __future__ import annotations

CONVERSATIONS: tuple[tuple[str, str], ...] = (
    ("Hello! Who are you?", "I am an assistant. How can I help you today?"),
    ("My parcel has not arrived and I want my money back.", "I am sorry to hear that. Let me look into your order."),
    ("Answer with a JSON object with the fields name and age: Ada is 36.", '{"name": "Ada", "age": 36}'),
    ("Translate to French: good morning", "Bonjour"),
    ("What is 17 + 25?", "17 + 25 = 42"),
    ("Summarise in one sentence: the meeting was moved to Friday.", "The meeting is now on Friday."),
)
