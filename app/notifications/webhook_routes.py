"""Pages and API of a project's webhooks. Admins alone: an address may hold a secret of its receiver."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.notifications import webhooks
from app.notifications.courier import PAUSES
from app.notifications.errors import BadWebhook
from app.notifications.models import CHOOSABLE_EVENTS, EventType, Webhook
from app.notifications.schemas import DeliveryOut, NewWebhookOut, SecretOut, WebhookIn, WebhookOut, delivery_out
from app.notifications.signing import message_id, secret_text
from app.pages import render
from app.people.access import Access, AdminAccess
from app.rounds.events import live

router = APIRouter(prefix="/projects/{slug}/settings/webhooks")
api = APIRouter(prefix="/projects/{slug}/webhooks", tags=["webhooks"])

EVENT_NAMES = {
    EventType.ROUND_FINISHED: "A round has finished: succeeded, failed or cancelled",
    EventType.NEEDS_LABELS: "A round waits for blind comparisons",
    EventType.ALARM_RAISED: "An alarm was raised",
    EventType.TEST: "Test",
}


def found_webhook(access: AdminAccess, webhook_id: int, session: SessionDep) -> Webhook:
    """The webhook of the address."""
    return webhooks.get_webhook(session, access.project, webhook_id)


FoundWebhook = Annotated[Webhook, Depends(found_webhook)]
ChosenEvents = Annotated[list[str], Form(default_factory=list)]


@router.get("")
def list_page(request: Request, access: AdminAccess, session: SessionDep) -> Response:
    """Every webhook, and the form that adds one."""
    return webhooks_page(request, access, session)


@router.post("")
def add(
    request: Request,
    access: AdminAccess,
    session: SessionDep,
    events: ChosenEvents,
    url: Annotated[str, Form()] = "",
) -> Response:
    """Add one; the page that answers shows its secret, once."""
    try:
        webhook = webhooks.add_webhook(
            session, access.project, url=url, events=events, account=access.account, now=clock(session)
        )
    except BadWebhook as error:
        return webhooks_page(request, access, session, url=url, events=events, problem=error)
    return webhook_page(request, access, session, webhook, secret=secret_text(webhook.secret))


def webhooks_page(
    request: Request,
    access: Access,
    session: Session,
    *,
    url: str = "",
    events: list[str] | None = None,
    problem: BadWebhook | None = None,
) -> Response:
    return render(
        request,
        "notifications/webhooks.html",
        status_code=422 if problem else 200,
        webhooks=webhooks.webhooks_of(session, access.project),
        last=webhooks.last_deliveries(session, access.project),
        choices=[(event.value, EVENT_NAMES[event]) for event in CHOOSABLE_EVENTS],
        url=url,
        events=[event.value for event in CHOOSABLE_EVENTS] if events is None else events,
        problem=problem,
    )


@router.get("/{webhook_id}")
def show(request: Request, access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """One webhook: what it is sent, and what became of it."""
    return webhook_page(request, access, session, webhook)


@router.get("/{webhook_id}/live")
def deliveries_now(request: Request, access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """The part of the page that changes."""
    return webhook_page(request, access, session, webhook, template="notifications/_deliveries.html")


@router.get("/{webhook_id}/events")
async def delivery_events(access: AdminAccess, webhook: FoundWebhook) -> StreamingResponse:
    """Server-sent events: `changed` whenever something was sent."""
    return live(f"project:{access.project.id}")


@router.post("/{webhook_id}")
def change(
    request: Request,
    access: AdminAccess,
    session: SessionDep,
    webhook: FoundWebhook,
    events: ChosenEvents,
    url: Annotated[str, Form()] = "",
) -> Response:
    """Another address, or other events."""
    try:
        webhooks.change_webhook(session, webhook, url=url, events=events, account=access.account)
    except BadWebhook as error:
        return webhook_page(request, access, session, webhook, url=url, events=events, problem=error)
    return back_to(access, webhook)


@router.post("/{webhook_id}/rotate")
def rotate(request: Request, access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """A new secret, shown once."""
    webhooks.rotate_secret(session, webhook, account=access.account, now=clock(session))
    return webhook_page(request, access, session, webhook, secret=secret_text(webhook.secret))


@router.post("/{webhook_id}/test")
def test(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """Send a test."""
    webhooks.send_test(session, webhook, account=access.account, now=clock(session))
    return back_to(access, webhook)


@router.post("/{webhook_id}/switch-off")
def switch_off(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """Send nothing until it is switched on."""
    webhooks.switch_off(session, webhook, account=access.account, now=clock(session))
    return back_to(access, webhook)


@router.post("/{webhook_id}/switch-on")
def switch_on(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """Send again."""
    webhooks.switch_on(session, webhook, account=access.account, now=clock(session))
    return back_to(access, webhook)


@router.post("/{webhook_id}/remove")
def remove(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> Response:
    """Forget it."""
    webhooks.remove_webhook(session, webhook, account=access.account, now=clock(session))
    return RedirectResponse(f"/projects/{access.project.slug}/settings/webhooks", status_code=303)


@router.post("/{webhook_id}/deliveries/{delivery_id}/again")
def send_again(access: AdminAccess, session: SessionDep, webhook: FoundWebhook, delivery_id: int) -> Response:
    """Send one once more."""
    webhooks.send_again(session, webhook, delivery_id, account=access.account, now=clock(session))
    return back_to(access, webhook)


def webhook_page(
    request: Request,
    access: Access,
    session: Session,
    webhook: Webhook,
    *,
    template: str = "notifications/webhook.html",
    secret: str | None = None,
    url: str | None = None,
    events: list[str] | None = None,
    problem: BadWebhook | None = None,
) -> Response:
    return render(
        request,
        template,
        status_code=422 if problem else 200,
        webhook=webhook,
        deliveries=webhooks.deliveries_of(session, webhook),
        event_names={event.value: name for event, name in EVENT_NAMES.items()},
        choices=[(event.value, EVENT_NAMES[event]) for event in CHOOSABLE_EVENTS],
        most_attempts=len(PAUSES) + 1,
        message_id=message_id,
        secret=secret,
        url=webhook.url if url is None else url,
        events=webhook.events if events is None else events,
        problem=problem,
    )


def back_to(access: Access, webhook: Webhook) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/settings/webhooks/{webhook.id}", status_code=303)


# The API


@api.get("")
def webhooks_out(access: AdminAccess, session: SessionDep) -> list[WebhookOut]:
    """The project's webhooks."""
    return [WebhookOut.model_validate(webhook) for webhook in webhooks.webhooks_of(session, access.project)]


@api.post("", status_code=201)
def add_out(access: AdminAccess, session: SessionDep, sent: WebhookIn) -> NewWebhookOut:
    """Add a webhook. The answer holds its secret, which cannot be asked for again."""
    webhook = webhooks.add_webhook(
        session,
        access.project,
        url=sent.url,
        events=[event.value for event in sent.events],
        account=access.account,
        now=clock(session),
    )
    shown = WebhookOut.model_validate(webhook)
    return NewWebhookOut(**shown.model_dump(), secret=secret_text(webhook.secret))


@api.post("/{webhook_id}/rotate")
def rotate_out(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> SecretOut:
    """A new secret. The old one signs beside it for a day."""
    now = clock(session)
    webhooks.rotate_secret(session, webhook, account=access.account, now=now)
    return SecretOut(secret=secret_text(webhook.secret), old_until=now + webhooks.OLD_SECRET_SIGNS_FOR)


@api.post("/{webhook_id}/test", status_code=202)
def test_out(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> WebhookOut:
    """Send a test; the deliveries say what became of it."""
    webhooks.send_test(session, webhook, account=access.account, now=clock(session))
    return WebhookOut.model_validate(webhook)


@api.get("/{webhook_id}/deliveries")
def deliveries_out(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> list[DeliveryOut]:
    """The last deliveries, the newest first."""
    return [delivery_out(delivery) for delivery in webhooks.deliveries_of(session, webhook)]


@api.delete("/{webhook_id}", status_code=204)
def remove_out(access: AdminAccess, session: SessionDep, webhook: FoundWebhook) -> None:
    """Forget a webhook and its deliveries."""
    webhooks.remove_webhook(session, webhook, account=access.account, now=clock(session))
