"""What everything stands on: settings, database, artifacts, tracking, alerts, the local stack."""
