"""Faust agents: engagements into features, items into embeddings."""
