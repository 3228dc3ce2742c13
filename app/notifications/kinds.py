"""What each alarm means to the person who reads it, and what to do about it."""

from dataclasses import dataclass

from app.notifications.models import AlarmKind


@dataclass(frozen=True)
class Meaning:
    """title: a few words.  is_condition: true while it holds, cleared when it has gone; others stay until read."""

    title: str
    means: str
    advice: str
    is_condition: bool = False


_STOP = "Cancel the round, or let it end and look at its samples and blind comparisons before you promote anything."

MEANINGS = {
    AlarmKind.HELD_OUT_FALLS: Meaning(
        "Held-out score falls",
        "The policy gets better on the prompts it learns from and worse on those it never saw: it exploits the reward"
        " model on particular prompts.",
        "The checkpoint with the best held-out score is the one that is kept, so nothing is lost by letting the stage"
        " end. More prompts, a higher kl_coef or a lower learning_rate help the next round.",
    ),
    AlarmKind.LENGTH_DRIFTS: Meaning(
        "Length pays",
        "Completions become longer while the score rises. Reward models often pay for length where people would not"
        " (arXiv:2310.03716).",
        f"Read the samples: is the added text worth reading? {_STOP} A lower max_length_factor or max_length_share"
        " stops the next round earlier; rankings of long, empty completions teach the reward model.",
    ),
    AlarmKind.EOS_FALLS: Meaning(
        "Completions stop ending",
        "More and more completions are cut off at the length limit. A score of an unfinished text says little.",
        f"{_STOP} Check that max_completion_tokens leaves room for an answer; a larger penalty (missing_eos) or a"
        " lower max_eos_drop holds the next round back.",
    ),
    AlarmKind.DISAGREEMENT_GROWS: Meaning(
        "Reward models disagree more",
        "The members of the ensemble give ever more different scores: the policy writes what none of them was fitted"
        " to, and their mean means less (arXiv:2310.02743).",
        f"{_STOP} Rank slates of the new policy before the next round, or choose ensemble_rule worst or variance.",
    ),
    AlarmKind.PEOPLE_DISAGREE: Meaning(
        "People do not prefer what scores higher",
        "The reward model prefers the new policy clearly, and people who compared blind do not: the score was gained"
        " by something that people do not want.",
        "Do not promote it for its score. Rank slates of both policies, so that the next reward model learns the"
        " difference, and start the next round with a smaller kl_budget.",
    ),
    AlarmKind.STAGE_FAILED: Meaning(
        "A stage failed",
        "The round has stopped. What was computed until the last checkpoint is kept, and labelers see the same policy"
        " as before.",
        "Its message on the round's page says what to change. Resume the round, or start another.",
        is_condition=True,
    ),
    AlarmKind.TRAINER_SILENT: Meaning(
        "No trainer is at work",
        "A round is under way and no trainer has been heard of for two minutes: it waits.",
        "Start one (podium trainer), or look at the log of the one that went silent. The stage goes on from its last"
        " checkpoint.",
        is_condition=True,
    ),
    AlarmKind.SAMPLER_SILENT: Meaning(
        "The sampler went silent",
        "The sampler has not been heard of for two minutes and did not say that it ends: no new slates are made.",
        "Look at its log and start it again (podium sampler). Labelers rank what is ready meanwhile.",
        is_condition=True,
    ),
    AlarmKind.QUEUE_EMPTY: Meaning(
        "Nothing to rank",
        "No slate has been ready for ten minutes: whoever comes to rank is sent away.",
        "Look at what the sampler does on the project page. If every prompt has been used, import more.",
        is_condition=True,
    ),
    AlarmKind.WEBHOOK_OFF: Meaning(
        "A webhook was switched off",
        "Its receiver refused or did not answer for days, so nothing is sent to it any more.",
        "Correct the address or the receiver, send a test, and switch it on again under Settings, Webhooks.",
        is_condition=True,
    ),
}
