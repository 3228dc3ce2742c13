"""What stands around the versions: their labels, scores, files, and trying them out."""

from fastapi import APIRouter

from app.policies import (
    benchmark_routes,
    download_routes,
    label_routes,
    score_routes,
    slate_queue_routes,
    try_out_routes,
)

router = APIRouter()
router.include_router(slate_queue_routes.router)
router.include_router(label_routes.router)
router.include_router(score_routes.router)
router.include_router(download_routes.router)
router.include_router(try_out_routes.router)

api = APIRouter()
api.include_router(slate_queue_routes.api)
api.include_router(benchmark_routes.api)
api.include_router(label_routes.api)
api.include_router(download_routes.api)
