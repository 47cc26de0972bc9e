"""Report on Prefect's pages and in MLflow what tasks do: progress bars, tables, curves."""
