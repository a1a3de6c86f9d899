"""The operator's page."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

PAGE = Path(__file__).parents[1] / "static" / "index.html"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    """Return the page; it needs nothing but this server."""
    return FileResponse(PAGE, media_type="text/html")
