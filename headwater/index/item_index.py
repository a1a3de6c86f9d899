"""One index generation's items, searched exactly inside a topic, by cells inside a large one, by HNSW over a large corpus."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from headwater.activity import HALF_LIVES_MS, ItemActivity
from headwater.errors import DimensionMismatch, UnknownTopic
from headwater.features import STREAMING
from headwater.index.added_scores import AddedScores
from headwater.index.block import Block, with_room
from headwater.index.candidates import Candidates
from headwater.index.cells import Cells
from headwater.index.exact_search import search_exactly
from headwater.index.graph import Graph
from headwater.index.hits import to_candidates
from headwater.index.large_search import LargeSearch
from headwater.index.relevance import Relevance
from headwater.item_embedding import ItemEmbedding

EXACT_LIMIT = 100_000
"""Items up to which all of them are scored."""
EXACT_TOPIC_LIMIT = 50_000
"""Items of a topic up to which all of them are scored."""
ACTIVE_MS = HALF_LIVES_MS[2]
"""Items engaged with or published so recently are always scored."""
ACTIVE_SHARE = 0.1
"""Share of active items above which all items are scored."""

Embeddings = npt.NDArray[np.float32]


class ItemIndex:
    """Inserts, deletes, updates and searches the items of one bundle version. One thread owns it.

    Args:
        dimension: D of the static item embeddings.
        template: Index whose item activity is copied and whose size is preallocated, since growing blocks queries.
        version: The bundle whose item tower embeds the items.
    """

    def __init__(self, dimension: int, template: "ItemIndex | None" = None, version: str = "") -> None:
        self.dimension, self.version = dimension, version
        self._expected = template.topics() if template is not None else {}
        expected = len(template) if template is not None else 0
        self.everything = Block(dimension, expected)
        self.graph = Graph(dimension, with_room(expected))
        self._blocks: dict[str, Block] = {}
        self._topics: list[tuple[str, ...]] = []
        self._activities: dict[str, ItemActivity] = dict(template._activities) if template is not None else {}
        self._large = LargeSearch(self.everything, self._blocks, self.graph)
        self._needing_cells: set[str] = set()

    def __len__(self) -> int:
        return len(self.everything)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.everything

    def topics(self) -> dict[str, int]:
        """Return the number of live items of each topic."""
        return {topic: len(block) for topic, block in self._blocks.items()}

    def topic_names(self) -> Collection[str]:
        """Return the topics of live items, a view."""
        return self._blocks.keys()

    def large_topics(self) -> list[str]:
        """Return the topics that are searched by cells, the largest first."""
        large = [topic for topic, block in self._blocks.items() if len(block) > EXACT_TOPIC_LIMIT]
        return sorted(large, key=lambda topic: -len(self._blocks[topic]))

    def embeddings(self, topic: str | None) -> Embeddings:
        """Return the static embeddings of a topic's items, or of all, (N, D), a view."""
        return (self.everything if topic is None else self._blocks[topic]).embeddings()

    def has_topic(self, topic: str) -> bool:
        """Say whether a live item carries the topic."""
        return topic in self._blocks

    def topics_of(self, item_id: str) -> tuple[str, ...]:
        """Return an item's topics, none for an unknown item."""
        row = self.everything.rows.get(item_id)
        return () if row is None else self._topics[row]

    def topic_sets(self) -> list[tuple[str, ...]]:
        """Return the topics of each item, in the order of `everything`."""
        return self._topics

    def upsert(self, items: Sequence[ItemEmbedding]) -> None:
        """Insert or update items.

        Raises:
            DimensionMismatch: an embedding is not (D,).
        """
        fresh: dict[str, ItemEmbedding] = {item.item_id: item for item in items}
        self._large.changes += len(fresh)
        for item in fresh.values():
            if item.embedding.shape != (self.dimension,):
                raise DimensionMismatch(
                    f"{item.item_id}: embedding of {len(item.embedding)} dimensions, the index has {self.dimension}"
                )
        changed = [item for item in fresh.values() if self._is_changed(item)]
        for item in fresh.values():
            self._place(item)
        if changed:
            rows = [self.everything.rows[item.item_id] for item in changed]
            self.graph.put(rows, np.stack([item.embedding for item in changed]))

    def restore(
        self,
        item_ids: Sequence[str],
        topic_sets: Sequence[tuple[str, ...]],
        topic_set_of: npt.NDArray[np.int64],
        published_ms: npt.NDArray[np.int64],
        embeddings: Embeddings,
    ) -> None:
        """Place N items in the empty index; its graph is loaded, and cells are learned, separately.

        Args:
            item_ids: N ids.
            topic_sets: The topics that items carry together, each combination once.
            topic_set_of: (N,) positions in `topic_sets`.
            published_ms: (N,) publish times.
            embeddings: (N, D) float32.
        """
        self.everything.fill(item_ids, embeddings, published_ms, np.arange(len(item_ids)))
        self._topics = [topic_sets[number] for number in topic_set_of.tolist()]
        ends = np.cumsum(np.bincount(topic_set_of, minlength=len(topic_sets)))
        members = np.split(np.argsort(topic_set_of, kind="stable"), ends)[:-1]
        carriers: dict[str, list[npt.NDArray[np.int64]]] = {}
        for topics, rows in zip(topic_sets, members, strict=True):
            for topic in dict.fromkeys(topics):
                carriers.setdefault(topic, []).append(rows)
        names = np.array(item_ids, dtype=np.object_)
        for topic, parts in carriers.items():
            rows = np.sort(np.concatenate(parts))
            self._blocks[topic] = Block(self.dimension)
            self._blocks[topic].fill(names[rows].tolist(), embeddings, published_ms, rows)
            self._note_size(topic)

    def _is_changed(self, item: ItemEmbedding) -> bool:
        return item.item_id not in self.everything or not np.array_equal(
            self.everything.embedding(item.item_id), item.embedding
        )

    def _place(self, item: ItemEmbedding) -> None:
        activity = self._activities.get(item.item_id, ItemActivity())
        for topic in set(self.topics_of(item.item_id)) - set(item.topics):
            self._remove_from(topic, item.item_id)
        row = self.everything.put(item.item_id, item.embedding, item.published_at, activity)
        self._topics[row : row + 1] = [item.topics]
        for topic in item.topics:
            block = self._blocks.get(topic)
            if block is None:
                block = self._blocks[topic] = Block(self.dimension, self._expected.get(topic, 0))
            block.put(item.item_id, item.embedding, item.published_at, activity)
            self._note_size(topic)

    def _note_size(self, topic: str) -> None:
        block = self._blocks[topic]
        if len(block) > EXACT_TOPIC_LIMIT and (block.cells is None or block.cells.is_stale()):
            self._needing_cells.add(topic)

    def topics_needing_cells(self) -> list[str]:
        """Return the large topics whose cells are missing or stale; until they are learned, the old ones are used."""
        return [topic for topic in self._needing_cells if topic in self._blocks]

    def learn_cells(self) -> None:
        """Learn the cells of `topics_needing_cells`: half a second for 300,000 items, so servers do it in a thread."""
        for topic in self.topics_needing_cells():
            self.give_cells(topic, Cells.learned(self.embeddings(topic)))

    def give_cells(self, topic: str, cells: Cells) -> None:
        """Take over cells that were learned of `embeddings(topic)`; no item may have come, changed or gone since."""
        self._blocks[topic].cells = cells
        self._needing_cells.discard(topic)

    def delete(self, item_ids: Collection[str]) -> None:
        """Delete items; unknown ids are ignored."""
        for item_id in item_ids:
            if item_id in self.everything:
                row = self.everything.rows[item_id]
                for topic in set(self._topics[row]):
                    self._remove_from(topic, item_id)
                self.graph.remove(row)
                self.everything.remove(item_id)
                topics = self._topics.pop()
                if row != len(self.everything):  # the last row has moved there
                    self._topics[row] = topics
                    self.graph.move(len(self.everything), row)
                self._large.changes += 1

    def _remove_from(self, topic: str, item_id: str) -> None:
        block = self._blocks[topic]
        block.remove(item_id)
        if not len(block):
            del self._blocks[topic]

    def set_activity(self, item_id: str, activity: ItemActivity) -> None:
        """Set an item's activity, kept for when the item arrives later than its engagements."""
        self._activities[item_id] = activity
        if item_id in self.everything:
            self.everything.set_activity(item_id, activity)
            for topic in self.topics_of(item_id):
                self._blocks[topic].set_activity(item_id, activity)

    def forget_activity(self, item_id: str) -> None:
        """Drop the activity that is kept for an item that is not here."""
        self._activities.pop(item_id, None)

    def search(
        self,
        embeddings: Embeddings,
        k: int,
        topic: str | None,
        now_ms: int,
        *,
        relevance: Relevance = Relevance.TOPIC,
        exclude: Sequence[Collection[str]] | None = None,
        added: AddedScores | None = None,
        max_age_ms: int | None = None,
        min_relevance: float = 0.5,
    ) -> list[Candidates]:
        """Return the k best live items for each user embedding; fewer only where fewer eligible items exist.

        Args:
            embeddings: (B, D + STREAMING) float32.
            k: Candidates per row.
            topic: The condition; None searches everything.
            now_ms: The time that streaming features and ages are computed for.
            relevance: TOPIC restricts to the topic's items; OFF leaves it to the user tower; THRESHOLD drops items
                whose cosine with the topic's centroid is below `min_relevance`.
            exclude: Item ids that each row must not have.
            added: What is added to the scores of single items.
            max_age_ms: Leaves out items published longer ago.

        Raises:
            DimensionMismatch: the user tower and this index generation do not belong together.
            UnknownTopic: no live item carries the topic, and the answer is restricted to it.
        """
        if embeddings.shape[1] != self.dimension + STREAMING:
            raise DimensionMismatch(
                f"user embeddings of {embeddings.shape[1]} dimensions, the index has {self.dimension} + {STREAMING}"
            )
        excluded = exclude if exclude is not None else [()] * len(embeddings)
        block = self._block(topic, relevance)
        eligible = self._eligible(block, topic, relevance, now_ms, max_age_ms, min_relevance)
        active = self._active_of_large(block, now_ms) if eligible is None else None
        if active is None:
            return to_candidates(block, search_exactly(block, embeddings, k, now_ms, eligible, excluded, added))
        return [
            self._large.search(block, active, embedding, k, now_ms, out, added.of([row]) if added else None)
            for row, (embedding, out) in enumerate(zip(embeddings, excluded, strict=True))
        ]

    def _block(self, topic: str | None, relevance: Relevance) -> Block:
        if topic is None or relevance is Relevance.OFF:
            return self.everything
        block = self._blocks.get(topic)
        if block is None:
            raise UnknownTopic(topic, [])
        return block if relevance is Relevance.TOPIC else self.everything

    def _eligible(
        self,
        block: Block,
        topic: str | None,
        relevance: Relevance,
        now_ms: int,
        max_age_ms: int | None,
        min_relevance: float,
    ) -> npt.NDArray[np.bool_] | None:
        eligible: npt.NDArray[np.bool_] | None = None
        if max_age_ms is not None:
            eligible = block.published_ms() >= now_ms - max_age_ms
        if relevance is Relevance.THRESHOLD and topic is not None:
            relevant = self.relevance(topic, block.embeddings()) >= min_relevance
            eligible = relevant if eligible is None else eligible & relevant
        return eligible

    def centroid(self, topic: str) -> npt.NDArray[np.float32]:
        """Return the mean of the static embeddings of a topic's items, (D,)."""
        return self._blocks[topic].centroid()

    def relevance(self, topic: str, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        """Return the cosine of each static embedding (N, D) with the centroid of the topic's items, (N,)."""
        centroid = self.centroid(topic)
        norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(centroid)
        cosine: npt.NDArray[np.float32] = embeddings @ centroid / np.maximum(norms, 1e-12)
        return cosine

    def _active_of_large(self, block: Block, now_ms: int) -> npt.NDArray[np.int64] | None:
        """Return a block's active rows if it is too large to score all rows, and they are few; else None."""
        large = len(block) > EXACT_LIMIT if block is self.everything else len(block) > EXACT_TOPIC_LIMIT and block.cells
        active = block.active_rows(now_ms - ACTIVE_MS) if large else None
        return None if active is None or len(active) > ACTIVE_SHARE * len(block) else active
