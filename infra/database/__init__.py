"""Connect to SQL (SQLite or Postgres): timeouts, error codes, schema version, migrations."""
