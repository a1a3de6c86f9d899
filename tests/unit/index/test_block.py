"""What a block keeps of its rows is what a look at all of them finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.activity import ItemActivity
from headwater.index import block as blocks
from headwater.index.block import Block

EMBEDDING = np.ones(2, dtype=np.float32)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "engage", "remove", "ask"]), st.integers(0, 9), st.integers(1, 200)),
        max_size=80,
    )
)
@settings(max_examples=200, deadline=None)
def test_active_rows_and_item_ids(operations: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(blocks, "SCANNED_FOR_MS", 50)
        monkeypatch.setattr(blocks, "MOST_ACTIVATED", 3)
        block, published, engaged = Block(2), dict[str, int](), dict[str, int]()
        for what, number, at_ms in operations:
            item_id = f"i{number}"
            if what == "put":
                published[item_id], engaged[item_id] = at_ms, 0
                block.put(item_id, EMBEDDING, at_ms, ItemActivity())
            elif what == "engage" and item_id in block:
                engaged[item_id] = at_ms
                block.set_activity(item_id, ItemActivity(as_of_ms=at_ms))
            elif what == "remove" and item_id in block:
                block.remove(item_id)
                del published[item_id]
            elif what == "ask":
                expected = {each for each in published if max(published[each], engaged[each]) >= at_ms}
                assert {block.item_ids[row] for row in block.active_rows(at_ms)} == expected
                listed = block.listed(len(block))
                assert listed is not None
                assert listed.ids == block.item_ids
