"""Release a version: preconditions, open a canary, hold, promote, and roll back."""
