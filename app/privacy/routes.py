"""Everything about privacy: a person's own data, and the erasure of a person."""

from fastapi import APIRouter

from app.privacy import erasure_routes, own_data_routes

router = APIRouter()
router.include_router(own_data_routes.router)
router.include_router(erasure_routes.router)

api = APIRouter(tags=["privacy"])
api.include_router(own_data_routes.api)
