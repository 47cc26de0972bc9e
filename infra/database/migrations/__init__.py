"""How the SQL tables came to be as they are: Alembic's revisions in `versions/`, one file each, oldest first.

`infra/database/schema.py` runs them. A revision is written by hand, names every table and column it touches by itself
(never by today's code, which goes on changing), and is never edited once it was released.
"""
