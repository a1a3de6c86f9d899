"""The methods that can be trained and compared, by name: each is a change of the default's settings."""

from collections.abc import Mapping
from typing import Any

CONDITIONAL = "conditional"
UNCONDITIONAL = "learned-retrieval"
HELD_OUT = "held-out-topics"
DEFAULT = (UNCONDITIONAL, CONDITIONAL)
NOBODY = 2**62
METHODS: Mapping[str, Mapping[str, Any]] = {
    UNCONDITIONAL: {"fusion": "alone"},
    CONDITIONAL: {},
    "logistic-regression": {"fusion": "constant", "min_engagements": NOBODY},
    "fusion-sum": {"fusion": "sum"},
    "fusion-concatenation": {"fusion": "concatenation"},
    "fusion-cross": {"fusion": "cross"},
    "fusion-experts": {"fusion": "experts"},
    "conditioned-only": {"unconditioned": False},
    "conditions-popular": {"condition_sampling": "popular"},
    "conditions-stratified": {"condition_sampling": "stratified"},
    "conditions-all": {"conditions": 8},
    "no-same-condition-negatives": {"same_condition": 0, "uniform": 1536},
    "few-negatives": {"same_condition": 128},
    HELD_OUT: {"held_out": 0.1},
    "auxiliary-loss": {"auxiliary": 0.1},
    "ungated-ids": {"min_engagements": 0},
    "no-ids": {"min_engagements": NOBODY},
    "no-streaming-features": {"streaming": False},
    "no-covisits": {"covisits": False},
    **{f"dimension-{dimension}": {"dimension": dimension} for dimension in (8, 16, 32, 128, 256)},
}
"""Name to the fields of `LearningSettings` that differ from the default."""
