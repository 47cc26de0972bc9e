"""Measure base abilities for the forgetting budget: a bundled regression pack, and lm-eval tasks."""
