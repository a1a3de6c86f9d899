"""The index: one generation's item embeddings, searched with or without a topic."""

from headwater.index.item_index import Candidates, ItemIndex, Relevance

__all__ = ["Candidates", "ItemIndex", "Relevance"]
