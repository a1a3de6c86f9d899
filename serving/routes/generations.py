"""Index generations as this server holds them."""

import asyncio

from fastapi import APIRouter, Response

from headwater.events import Identifier
from serving.routes.access import HeadwaterState, json_response
from serving.verification import verify

router = APIRouter(tags=["generations"])


@router.get("/v1/generations")
async def generations(state: HeadwaterState) -> Response:
    """Return every registered generation, what this server holds of it, and which one is live."""
    registered = await asyncio.to_thread(state.held.generations.all)
    alias = await asyncio.to_thread(state.held.generations.alias)
    listed = []
    for generation in registered:
        pair = state.held.pairs.get(generation.version)
        held = len(pair.index) if pair else None
        listed.append({**generation.model_dump(), "held_items": held, "live": generation.version == alias.version})
    return json_response({"alias": alias.model_dump(), "generations": listed})


@router.post("/v1/generations/{version}/verify")
async def verify_generation(state: HeadwaterState, version: Identifier) -> Response:
    """Check a generation in this server: dimensions, coverage of the catalogue, recall against exact search."""
    report = await verify(state, version)
    return json_response(report.model_dump())
