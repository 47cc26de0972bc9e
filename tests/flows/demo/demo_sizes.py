"""The demo's acts at a size that the tiny random model of the tests can play in a minute or two."""

from flows.demo.sizes import DemoSizes


def tiny_sizes() -> DemoSizes:
    """Few tickets, few steps. No quality is to be expected: thresholds are loosened here, and only here."""
    return DemoSizes(
        night_tickets=60,
        live_tickets=60,
        held_out_tickets=12,
        honest_tickets=12,
        poison_accounts=2,
        poison_tickets=40,
        agents=3,
        crowd=8,
        release_anyway=True,
        poison_recipe="sft-lora",
        config={
            "snapshot": {"validation_share": 0.1, "rolling_share": 0.3, "frozen_share": 0.0},
            "training": {"methods": ["sft-lora", "sft-dpo-lora", "sft-kto-lora"], "threads": 1, "minimum_examples": 4},
            "evaluation": {"max_new_tokens": 16, "noise_items": 4, "regression_limit": 1, "seed_twin_nights": 0},
            "gate": {"alpha_night": 0.05, "min_units": 5},
            "serving": {"threads": 1, "dtype": "float32"},
            "canary": {
                "steps": [0.5],
                "step_seconds": 0.0,
                "step_units": 2,
                "minimum_seconds": 1.0,
                "deadline_seconds": 10.0,
                "at_deadline": "back",
                "holdback": 0.0,
                "window_seconds": 2.0,
            },
        },
    )
