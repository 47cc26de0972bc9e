"""Read a pipeline's config: one YAML file, its schema and cross-checks, and the job files made of it."""
