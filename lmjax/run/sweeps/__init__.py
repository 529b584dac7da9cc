"""A search of settings: its study, its workers, its page."""
