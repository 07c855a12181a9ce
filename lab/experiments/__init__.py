"""Experiments: a file says what is tried, runs of it are recordings, and everything else is read from recordings."""
