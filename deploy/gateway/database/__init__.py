"""Query the database with a time limit: a thread pool of its own, and background tasks that keep trying."""
