"""Phases: what each kind of computation does."""
