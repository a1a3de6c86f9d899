"""Embeddings of items as the catalogue has them, though items change meanwhile."""

import asyncio
from collections.abc import Mapping, Sequence

from headwater.stores import FeatureStore
from headwater.stores.protocol import StoredItem
from streams.embedder import Embedder, tombstones
from streams.publisher import Publisher


async def publish_present(
    store: FeatureStore,
    publisher: Publisher,
    embedder: Embedder,
    versions: Sequence[str],
    items: Mapping[str, StoredItem | None],
) -> None:
    """Publish items' embeddings, and tombstones for those that are gone, until nothing has changed meanwhile.

    An item that changes after the last look into the catalogue is published by the item agent, and so later than here.

    Args:
        versions: Which bundles' embeddings.
        items: Item id to what the catalogue has, None where the item is gone.

    Raises:
        RedisError, PublishFailed: some may not be published.
    """
    while items:
        present = [stored.item for stored in items.values() if stored is not None]
        gone = [item_id for item_id, stored in items.items() if stored is None]
        embeddings = await asyncio.to_thread(embedder.embed, present, versions)
        await publisher.publish([*embeddings, *tombstones(gone, versions)])
        current = zip(items.items(), await store.items(list(items)), strict=True)
        items = {item_id: stored for (item_id, published), stored in current if stored != published}
