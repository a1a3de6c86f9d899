"""Evaluation: every engagement is ranked before anything may learn from it."""
