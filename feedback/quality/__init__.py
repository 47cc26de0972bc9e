"""Check data quality: great-expectations suites, drift by evidently, health of ingestion."""
