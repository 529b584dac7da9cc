"""The tables that the records draw, and their checks."""
