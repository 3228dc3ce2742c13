"""Everything about people: signing in, invitations, accounts, a project's members, the audit log, the home page."""

from fastapi import APIRouter

from app.people import (
    access_routes,
    account_routes,
    audit_routes,
    home_routes,
    member_routes,
    name_routes,
    sign_in_routes,
    sign_on_routes,
)

router = APIRouter()
router.include_router(home_routes.router)
router.include_router(sign_in_routes.router)
router.include_router(sign_on_routes.router)
router.include_router(account_routes.router)
router.include_router(access_routes.router)
router.include_router(member_routes.router)
router.include_router(name_routes.router)
router.include_router(audit_routes.router)

api = APIRouter()
api.include_router(account_routes.api)
api.include_router(member_routes.api)
api.include_router(name_routes.api)
api.include_router(audit_routes.api)
