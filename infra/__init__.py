"""Hold what every other package stands on: settings, database, artifacts, tracking, alerts, the local stack."""
