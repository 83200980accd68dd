"""The database as a thing to be started and brought up to date."""
