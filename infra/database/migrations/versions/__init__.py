"""The revisions. A file's name begins with `r` and its number, which is its revision: `r0002_what_it_does.py`."""
