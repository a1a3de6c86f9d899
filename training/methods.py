"""The methods that can be trained and compared, by name: each changes some of the default settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from headwater.events import Item
from training.text_codes import text_of

CONDITIONAL = "conditional"
UNCONDITIONAL = "learned-retrieval"
HELD_OUT = "held-out-topics"
DEFAULT = (UNCONDITIONAL, CONDITIONAL)
ID_ROWS = 2048
NEVER_ADMITTED = 2**62
"""A `min_engagements` that no item reaches."""
METHODS: Mapping[str, Mapping[str, Any]] = {
    UNCONDITIONAL: {"fusion": "alone"},
    CONDITIONAL: {},
    "logistic-regression": {"fusion": "constant", "min_engagements": NEVER_ADMITTED},
    "fusion-sum": {"fusion": "sum"},
    "fusion-concatenation": {"fusion": "concatenation"},
    "fusion-cross": {"fusion": "cross"},
    "fusion-experts": {"fusion": "experts"},
    "conditioned-only": {"unconditioned": False},
    "conditions-popular": {"condition_sampling": "popular"},
    "conditions-stratified": {"condition_sampling": "stratified"},
    "conditions-all": {"conditions": 8},
    "no-same-condition-negatives": {"same_condition": 0, "uniform": 640},
    "many-negatives": {"same_condition": 1024},
    HELD_OUT: {"held_out": 0.1},
    "auxiliary-loss": {"auxiliary": 0.1},
    "personas-3": {"personas": 3},
    "metric-reward": {"reward": 0.3},
    "second-stage": {"second_stage": True},
    "ids-hashed": {"ids": "hashed", "id_rows": ID_ROWS},
    "ids-expiring": {"ids": "expiring", "id_rows": ID_ROWS},
    "ids-ungated": {"min_engagements": 0},
    "ids-none": {"min_engagements": NEVER_ADMITTED},
    "text-codes": {"ids": "text"},
    "text-codes-and-ids": {"ids": "text-and-own"},
    "no-streaming-features": {"streaming": False},
    "no-covisits": {"covisits": False},
    **{f"dimension-{dimension}": {"dimension": dimension} for dimension in (8, 16, 32, 128, 256)},
}
"""Name to the fields of `LearningSettings` that differ from the default."""
NOT_SERVED = {"personas", "second_stage", "streaming", "covisits", "held_out"}
NOT_SERVED_IDS = {"expiring", "text", "text-and-own"}
NOT_CONDITIONAL = {"alone", "constant"}
SERVABLE = [
    name
    for name, changes in METHODS.items()
    if not NOT_SERVED & changes.keys()
    and changes.get("ids") not in NOT_SERVED_IDS
    and changes.get("fusion") not in NOT_CONDITIONAL
]
"""Methods that a server can answer from as they were trained, and whose whole state a checkpoint holds. A method that does
not use the condition is none of them: the gate would refuse it."""


def methods_for(items: Iterable[Item]) -> list[str]:
    """Return the methods that can learn from such items: those of texts need some."""
    if any(map(text_of, items)):
        return list(METHODS)
    return [name for name, changes in METHODS.items() if not str(changes.get("ids")).startswith("text")]
