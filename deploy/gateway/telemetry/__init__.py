"""Export metrics to Prometheus and spans to OpenTelemetry."""
