"""What can go wrong, in words: the base of every named error, and the one table that knows its HTTP status."""

from typing import Any, ClassVar


class PodiumError(Exception):
    """Something that a person or a program asked for cannot be done; the message is one sentence with the next move.

    members: further facts for programs, e.g. the newer draft that a stale one met.
    """

    code: ClassVar[str] = "refused"
    page: str | None = None  # where a person goes on: whoever asked for a page is led there

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self.members = members


# By code, so that an area may import PodiumError from here. What is not listed is a conflict with the state of things.
HTTP_STATUS = {
    "not_signed_in": 401,
    "stale_form": 403,
    "role_too_low": 403,
    "scope_too_narrow": 403,
    "membership_paused": 403,
    "not_found": 404,
    "project_not_found": 404,
    "invitation_not_found": 404,
    "reset_link_not_found": 404,
    "reset_link_withdrawn": 403,
    "import_not_found": 404,
    "lease_not_found": 404,
    "prompt_not_found": 404,
    "ranking_not_found": 404,
    "snapshot_not_found": 404,
    "snapshot_redacted": 410,
    "erasure_not_found": 404,
    "erasure_not_confirmed": 422,
    "too_many_attempts": 429,
    "writing_not_found": 404,
    "turn_not_found": 404,
    "onboarding_first": 403,
    "chosen_is_not_best": 422,
    "submission_not_found": 404,
    "suggestion_not_found": 404,
    "suggestions_not_offered": 404,
    "task_not_offered": 404,
    "incomplete_writing": 422,
    "writing_too_long": 422,
    "bad_export": 422,
    "bad_filter": 422,
    "bad_prompt": 422,
    "bad_known_answer": 422,
    "guidelines_not_accepted": 403,
    "guidelines_not_found": 404,
    "known_answer_not_found": 404,
    "lesson_not_found": 404,
    "onboarding_waits": 403,
    "import_refused": 422,
    "incomplete_ranking": 422,
    "invalid_person": 422,
    "strength_does_not_fit": 422,
    "unknown_format": 422,
    "weak_password": 422,
    "slate_not_in_queue": 404,
    "reason_missing": 422,
    "bad_decision": 422,
    "round_not_found": 404,
    "stage_not_found": 404,
    "chart_not_found": 404,
    "try_not_found": 404,
    "policy_version_not_found": 404,
    "label_source_not_found": 404,
    "slate_not_found": 404,
    "ranking_unknown": 404,
    "policy_store_away": 503,
    "bad_try_out": 422,
    "try_out_not_found": 404,
    "bad_setting": 422,
    "bad_stages": 422,
    "bad_comparison": 422,
    "bad_rule": 422,
    "no_rule": 404,
    "bad_project_setting": 422,
    "alarm_not_found": 404,
    "webhook_not_found": 404,
    "delivery_not_found": 404,
    "bad_webhook": 422,
    "policy_not_usable": 422,
    "reward_model_not_found": 404,
    "reward_evaluation_not_found": 404,
    "bad_evaluation": 422,
    "scores_away": 503,
    "report_being_made": 503,
    "bad_scoring": 422,
    "scoring_not_found": 404,
    "metrics_not_open": 404,
    "wrong_metrics_token": 403,
}
CONFLICT = 409


def status_of(error: PodiumError) -> int:
    """The HTTP status of an error, by the nearest class that names one."""
    codes = (getattr(ancestor, "code", None) for ancestor in type(error).__mro__)
    return next((HTTP_STATUS[code] for code in codes if code in HTTP_STATUS), CONFLICT)
