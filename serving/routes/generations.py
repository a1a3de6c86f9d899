"""Index generations, and what this server has loaded of them."""

import asyncio

from fastapi import APIRouter, Response

from headwater.events import Identifier
from serving.routes.access import HeadwaterState, json_response
from serving.verification import verify

router = APIRouter(tags=["generations"])


@router.get("/v1/generations")
async def generations(state: HeadwaterState) -> Response:
    """Return every registered generation, the items this server has loaded of it, and which one is live."""
    registered = await asyncio.to_thread(state.loaded.generations.all)
    alias = await asyncio.to_thread(state.loaded.generations.alias)
    listed = []
    for generation in registered:
        pair = state.loaded.pairs.get(generation.version)
        loaded_items = len(pair.index) if pair else None
        is_live = generation.version == alias.version
        listed.append({**generation.model_dump(by_alias=True), "held_items": loaded_items, "live": is_live})
    return json_response({"alias": alias.model_dump(by_alias=True), "generations": listed})


@router.post("/v1/generations/{version}/verify")
async def verify_generation(state: HeadwaterState, version: Identifier) -> Response:
    """Check a generation in this server: dimensions, coverage of the catalogue, recall against exact search."""
    report = await verify(state, version)
    return json_response(report.model_dump())
