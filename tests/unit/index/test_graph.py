"""The graph: which items share a node, and what becomes of nodes nobody needs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.index import graph as graph_module
from headwater.index.graph import Graph

D = 4
ELSEWHERE = 100


def embedding(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=D).astype(np.float32)


@pytest.mark.parametrize("min_dead", [graph_module.MIN_DEAD, 1])
@given(operations=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=80))
@settings(max_examples=100, deadline=None)
def test_it_holds_exactly_what_was_put_last(min_dead: int, operations: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_module, "MIN_DEAD", min_dead)
        _check(operations)


def _check(operations: list[tuple[int, int]]) -> None:
    graph, truth = Graph(D), dict[int, int]()
    for row, look in operations:
        if look:
            graph.put([row], embedding(look)[None, :])
            truth[row] = look
        else:
            graph.remove(row)
            truth.pop(row, None)
        if row in truth and row + ELSEWHERE not in truth and look == 4:
            graph.move(row, row + ELSEWHERE)
            truth[row + ELSEWHERE] = truth.pop(row)
    assert len(graph) == len(truth)
    assert graph.nodes == len(set(truth.values()))
    assert sorted(graph.search(embedding(1), 100).tolist()) == sorted(truth)


def test_turnovers_leave_neither_dead_nodes_nor_holes() -> None:
    graph, wide = Graph(D), np.random.default_rng(0).normal(size=(20_000, D)).astype(np.float32)
    most = 0
    for begin in range(0, len(wide), 500):
        graph.put(range(begin, begin + 500), wide[begin : begin + 500])
        for number in range(max(0, begin - 2_000), max(0, begin - 1_500)):
            graph.remove(number)
        most = max(most, graph.size)
    assert len(graph) == graph.nodes == 2_000
    assert most <= 2_500 + graph_module.MIN_DEAD + 1_500
    live = wide[-2_000:]
    for query in wide[:50]:
        found = {row - 18_000 for row in graph.search(query, 10).tolist()}
        assert len(found & set(np.argsort(-live @ query)[:10].tolist())) >= 9


def test_a_node_is_revived_and_replaced() -> None:
    graph = Graph(D)
    graph.put([0], embedding(1)[None, :])
    graph.remove(0)
    graph.put([1], embedding(1)[None, :])
    assert graph.search(embedding(1), 1).tolist() == [1]
    graph.remove(1)
    graph.put([2], embedding(2)[None, :])
    graph.put([3], embedding(1)[None, :])
    assert sorted(graph.search(embedding(1), 9).tolist()) == [2, 3]


def test_of_very_many_equal_items_the_newest_are_returned() -> None:
    graph = Graph(D)
    graph.put(range(1000), np.tile(embedding(1), (1000, 1)))
    assert graph.search(embedding(1), 3).tolist() == [999, 998, 997]


def test_it_grows_and_keeps_shared_nodes_through_a_file(tmp_path: Path) -> None:
    graph = Graph(D)
    many = np.stack([20 * (number < 2) * embedding(0) + embedding(number // 2) for number in range(5000)])
    graph.put(range(5000), many)
    graph.remove(0)
    graph.move(4999, 0)
    hashes, nodes = graph.save(tmp_path / "graph.bin")
    loaded = Graph(D)
    loaded.load(tmp_path / "graph.bin", hashes, nodes)
    assert (len(loaded), loaded.nodes) == (4999, 2500)
    for query in map(embedding, range(20)):
        assert loaded.search(query, 100).tolist() == graph.search(query, 100).tolist()
    loaded.remove(1)
    loaded.put([5000], many[:1])
    assert loaded.nodes == 2500
    assert loaded.search(embedding(0), 1).tolist() == [5000]
    assert len(loaded.search(embedding(7), 100)) == 100
