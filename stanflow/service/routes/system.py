"""Whether the server works, and what it does."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

import stanflow
from stanflow.service import schemas
from stanflow.service.context import Here
from stanflow.service.problems import DAMAGED, try_later

router = APIRouter(tags=["system"])


@router.get("/v1/health")
def health(here: Here) -> schemas.Health:
    """Say whether the database answers and jobs are run; needs no token."""
    counts = here.store.counts()
    if here.damaged:
        raise try_later(DAMAGED)
    if not here.supervisor.alive:
        raise try_later("jobs are not being run")
    return schemas.Health(
        status="ok",
        version=stanflow.__version__,
        queued=counts.get("queued", 0),
        running=counts.get("running", 0),
    )


@router.get(
    "/v1/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(here: Here) -> Response:
    """Return counts of jobs, and what the process uses, as Prometheus reads them."""
    registry = CollectorRegistry()
    jobs = Gauge("stanflow_jobs", "Jobs by status.", ["status"], registry=registry)
    for status, count in here.store.counts().items():
        jobs.labels(status).set(count)
    text = generate_latest(registry) + generate_latest()
    return Response(text, media_type=CONTENT_TYPE_LATEST)
