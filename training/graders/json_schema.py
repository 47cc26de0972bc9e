"""Is the answer JSON that the reference, a JSON Schema, allows? Library: jsonschema."""

from __future__ import annotations

import json

from training.graders.grader import Grader
from training.graders.json_answers import NOTHING, json_value


def grade(answer: str, reference: str) -> float:
    """1 when the answer is JSON and valid, else 0. A schema that points to another document allows nothing.

    Raises:
        ValueError: the reference is no JSON.
        jsonschema.SchemaError: it is no JSON Schema.
    """
    from jsonschema import validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    schema = json.loads(reference)
    checker = validators.validator_for(schema)
    checker.check_schema(schema)
    value = json_value(answer)
    try:
        # Schemas come with feedback. Without a registry of our own, jsonschema would fetch what a $ref points to.
        return float(value is not NOTHING and checker(schema, registry=Registry()).is_valid(value))
    except Unresolvable:
        return 0.0


GRADER = Grader("json_schema", "the answer is JSON that the reference, a JSON Schema, allows", grade, isolated=True)
