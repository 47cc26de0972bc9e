"""Detect abuse of feedback: floods, bursts, backdoor triggers, disagreement with trusted people, other languages."""
