"""Send telemetry: MLflow runs by a journal, OpenTelemetry traces, system metrics."""
