"""The views of explain.py, for each kind of run."""
