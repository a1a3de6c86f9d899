"""The index: one generation's item embeddings, searched with or without a topic."""

from headwater.index.candidates import Candidates, ItemIds
from headwater.index.item_index import ItemIndex
from headwater.index.relevance import Relevance

__all__ = ["Candidates", "ItemIds", "ItemIndex", "Relevance"]
