"""What can go wrong with alarms and webhooks."""

from app.errors import PodiumError


class NotificationError(PodiumError):
    """Something is wrong with an alarm or a webhook."""

    code = "notification_error"


class AlarmNotFound(NotificationError):
    """The project has no such alarm."""

    code = "alarm_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such alarm; choose one from the list of alarms.")


class AlarmIsClosed(NotificationError):
    """Somebody acknowledged the alarm before, or it has gone by itself."""

    code = "alarm_is_closed"

    def __init__(self) -> None:
        super().__init__("This alarm is not open any more; reload the page to see who read it, and what they wrote.")


class WebhookNotFound(NotificationError):
    """The project has no such webhook."""

    code = "webhook_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such webhook; choose one under Settings, Webhooks.")


class DeliveryNotFound(NotificationError):
    """The webhook has no such delivery."""

    code = "delivery_not_found"

    def __init__(self) -> None:
        super().__init__("This webhook has no such delivery; it may be older than a month. Choose one from its list.")


class WebhookIsOff(NotificationError):
    """Nothing is sent to a webhook that is switched off."""

    code = "webhook_is_off"

    def __init__(self) -> None:
        super().__init__("This webhook is switched off, so nothing was sent; switch it on first.")


class BadWebhook(NotificationError):
    """The address or the events of a webhook cannot be used. field: which of the two."""

    code = "bad_webhook"

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(rule, field=field)
        self.field = field
