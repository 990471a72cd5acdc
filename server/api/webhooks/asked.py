"""What a caller may say of a webhook, and when that is refused. Knows no HTTP and no queue."""

from __future__ import annotations

from server.api.schemas import WebhookRequest
from server.api.webhooks.guard import Forbidden
from server.api.webhooks.messenger import Messenger
from server.broker import Webhook
from server.errors import InvalidRequest
from server.spec import GenerationState

NO_SECRET = (
    "webhook: this server has no secret to sign webhooks with; its operator sets "
    "DARKROOM_WEBHOOK_SECRET"
)


def webhook_of(asked: WebhookRequest | None, messenger: Messenger | None) -> Webhook | None:
    """The webhook to keep; `messenger` is None where this server calls none.

    Raises:
        InvalidRequest: it would never be called, as far as that is known without asking for its
            name.
    """
    if asked is None:
        return None
    if messenger is None:
        raise InvalidRequest(NO_SECRET, field="webhook")
    try:
        messenger.guard.check(asked.url)
    except Forbidden as error:
        raise InvalidRequest(f"webhook.url: {error}", field="webhook.url") from None
    return Webhook(url=asked.url, states=tuple(map(GenerationState, asked.states or ())))
