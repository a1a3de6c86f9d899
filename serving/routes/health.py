"""Liveness, readiness, metrics and the status the page shows."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headwater.events import iso
from serving.faults import fault
from serving.routes.access import HeadwaterState, json_response

router = APIRouter(tags=["operation"])


@router.get("/health/live")
async def live() -> Response:
    """Return that the process answers."""
    return json_response({"status": "live"})


@router.get("/health/ready")
async def ready(state: HeadwaterState) -> Response:
    """Return whether this server should get queries, and if not, why."""
    reason = state.not_ready()
    return fault(503, "not-ready", reason) if reason else json_response({"status": "ready"})


@router.get("/metrics")
async def metrics(state: HeadwaterState) -> Response:
    """Return Prometheus metrics."""
    state.followed.publish_metrics()
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/status")
async def status(state: HeadwaterState) -> Response:
    """Return what an operator wants to see first."""
    watermark_ms = state.retrieval.clock.watermark_ms
    return json_response(
        {
            "ready": state.not_ready() is None,
            "reason": state.not_ready(),
            "live": state.loaded.wanted,
            "generations": {version: len(pair.index) for version, pair in state.loaded.pairs.items()},
            "lag_records": state.followed.lag,
            "following": state.following(),
            "responding": state.responding(),
            "watermark": iso(watermark_ms) if watermark_ms else None,
            "freshness_ms": state.retrieval.clock.freshness_ms(),
            "queries": state.metrics.answered_queries(),
            "refused": state.metrics.refused_queries(),
            "in_flight": state.in_flight,
            "latency_p50_ms": state.metrics.recent_latency_ms(0.5),
            "latency_p99_ms": state.metrics.recent_latency_ms(0.99),
        }
    )
