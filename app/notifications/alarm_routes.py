"""Pages and API of alarms: the list, one with its evidence, and that somebody has read it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.db import SessionDep, clock
from app.notifications import alarms
from app.notifications.alarms import AlarmFilter, AlarmState
from app.notifications.kinds import MEANINGS
from app.notifications.models import Alarm, AlarmKind
from app.notifications.pictures import HEIGHT, WIDTH, small_charts, table_of
from app.notifications.schemas import Acknowledgement, AlarmOut, AlarmsOut, alarm_out
from app.pages import render
from app.people.access import AdminAccess, ResearcherAccess
from app.rounds.views import table_as_csv

router = APIRouter(prefix="/projects/{slug}/alarms")
api = APIRouter(prefix="/projects/{slug}/alarms", tags=["alarms"])


def wanted_alarms(state: str = "", kind: str = "", round: str = "", before: int | None = None) -> AlarmFilter:
    """The filter in the address. What it does not know narrows nothing: an old link still shows a list."""
    return AlarmFilter(
        state=AlarmState(state) if state in set(AlarmState) else None,
        kind=AlarmKind(kind) if kind in set(AlarmKind) else None,
        round=int(round) if round.isdecimal() and len(round) < 10 else None,
        before=before,
    )


WantedAlarms = Annotated[AlarmFilter, Depends(wanted_alarms)]


def found_alarm(access: ResearcherAccess, alarm_id: int, session: SessionDep) -> Alarm:
    """The alarm of the address, for whoever may look at it."""
    return alarms.get_alarm(session, access.project, alarm_id)


FoundAlarm = Annotated[Alarm, Depends(found_alarm)]


@router.get("")
def list_alarms(request: Request, access: ResearcherAccess, session: SessionDep, wanted: WantedAlarms) -> Response:
    """Every alarm, open or not, the newest first."""
    found, has_more = alarms.list_alarms(session, access.project, wanted)
    return render(
        request,
        "notifications/alarms.html",
        alarms=found,
        has_more=has_more,
        wanted=wanted,
        states=list(AlarmState),
        meanings=MEANINGS,
        is_empty=not found and alarms.num_alarms(session, access.project) == 0,
    )


@router.get("/{alarm_id}")
def show_alarm(request: Request, access: ResearcherAccess, alarm: FoundAlarm) -> Response:
    """One alarm with its evidence, what it means and what to do."""
    names, rows = table_of(alarm.series)
    return render(
        request,
        "notifications/alarm.html",
        alarm=alarm,
        meaning=MEANINGS[alarm.kind],
        charts=small_charts(alarm),
        size=(WIDTH, HEIGHT),
        names=names,
        rows=rows,
    )


@router.get("/{alarm_id}/series.csv")
def alarm_numbers(alarm: FoundAlarm) -> Response:
    """What the alarm was seen in, as a file."""
    return Response(
        table_as_csv(*table_of(alarm.series)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="alarm-{alarm.id}.csv"'},
    )


@router.post("/{alarm_id}/acknowledge")
def acknowledge(
    access: AdminAccess, alarm: FoundAlarm, session: SessionDep, note: Annotated[str, Form()] = ""
) -> Response:
    """Somebody has read it."""
    alarms.acknowledge(session, alarm, account=access.account, note=note, now=clock(session))
    return RedirectResponse(f"/projects/{access.project.slug}/alarms/{alarm.id}", status_code=303)


# The API


@api.get("")
def alarms_out(access: ResearcherAccess, session: SessionDep, wanted: WantedAlarms) -> AlarmsOut:
    """A page of the project's alarms, the newest first."""
    found, has_more = alarms.list_alarms(session, access.project, wanted)
    return AlarmsOut(alarms=[alarm_out(alarm) for alarm in found], next_before=found[-1].id if has_more else None)


@api.post("/{alarm_id}/acknowledge")
def acknowledge_out(access: AdminAccess, alarm: FoundAlarm, session: SessionDep, sent: Acknowledgement) -> AlarmOut:
    """Somebody has read it."""
    alarms.acknowledge(session, alarm, account=access.account, note=sent.note, now=clock(session))
    return alarm_out(alarm)
