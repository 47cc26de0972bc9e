"""A folder to put on PYTHONPATH: Python runs its `sitecustomize` at start."""
