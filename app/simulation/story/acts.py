"""A project of six rounds with everything that happens to one, built in seconds to look at: `podium story`.

Five simulated labelers write and rank for six weeks. One round makes the SFT policy, one fails, one is cancelled, one
policy is promoted by the rule and rolled back two days later. All of it goes through the services that labelers,
admins and the trainer use, in one transaction, at the times it is told to have happened; only what a model would
compute is drawn instead (texts, numbers, files). The same seed tells the same story.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import event
from sqlalchemy.orm import Session

from app.people import members
from app.people.models import Account
from app.policies.models import PolicyState, PolicyVersion
from app.policies.promotion import promote, roll_back
from app.policies.service import current_version
from app.projects.service import create_project, update_settings
from app.projects.starter import inspect_starter, starter_prompts
from app.prompts.messages import user_message
from app.prompts.models import PromptKind
from app.prompts.service import add_prompts
from app.quality.guidelines import accept
from app.rounds import claims
from app.rounds.configuration import Overrides
from app.rounds.models import Recipe, Round
from app.rounds.service import cancel_round, start_round
from app.settings import Settings
from app.simulation.labelers import SimulatedLabeler
from app.simulation.people import join, simulated
from app.simulation.story.people import People
from app.simulation.story.scene import HOUR, MINUTE, Scene, Told
from app.simulation.story.trainer import Trainer

NAME = "Story: six rounds of a small assistant"
DAYS = 42
NUM_PROMPTS = 500
NUM_COMPARISONS = 50  # blind ones at the end of a round
NOISE = (0.15, 0.2, 0.25, 0.3, 0.5)  # share of comparisons on which each labeler errs; the last one only guesses
GUIDELINES = """# Ranking everyday replies

Put the replies in the order in which you would like to get them yourself; equal replies may share a rank.

1. It answers what was asked.
2. It is courteous.
3. It is precise, and finished.

*This project is a story: its labelers are simulated, and its numbers were drawn and not trained.*
"""
OUT_OF_MEMORY = {
    "code": "out_of_memory",
    "message": "the stage ran out of memory at step 9",
    "advice": "lower ppo.batch_size, or ppo.micro_batch_tokens, and resume the round",
    "last_lines": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB.",
}


@dataclass(frozen=True)
class Story:
    """Who acts in it."""

    scene: Scene
    people: People
    trainer: Trainer


def tell_story(session: Session, settings: Settings, *, slug: str, now: datetime, seed: int = 0) -> Told:
    """Build the project, from six weeks ago until now. The caller commits.

    Raises SlugTaken, and StoryWentAstray where a rule of the project has come to forbid what the story does.
    """
    scene = Scene(session, settings, now=now - timedelta(days=DAYS), seed=seed, told=Told(slug))
    event.listen(session, "before_flush", scene.date)
    try:
        story = Story(scene, begin(scene), Trainer(scene))
        the_sft_policy(story)
        a_better_policy(story)
        a_round_that_fails(story)
        a_policy_that_is_rolled_back(story)
        a_round_that_is_cancelled(story)
        the_policy_of_today(story)
        today(story, now)
    finally:
        event.remove(session, "before_flush", scene.date)
    return scene.told


def begin(scene: Scene) -> People:
    """A project, its admin, five labelers, and prompts."""
    session, slug = scene.session, scene.told.slug
    scene.admin = simulated(session, slug, "admin", "Simulated admin")
    scene.project = create_project(
        session,
        slug=slug,
        name=NAME,
        policy=inspect_starter(),
        guidelines=GUIDELINES,
        created_by=scene.admin,
        now=scene.now,
        seed=scene.seed,
        max_k=6,
        evaluation_comparisons=NUM_COMPARISONS,
        task_weights={"rank": 3, "answer": 1},
    )
    judges = {}
    for number, noise in enumerate(NOISE, start=1):
        account = simulated(session, slug, f"simulated-{number}", f"Simulated labeler {number}")
        join(session, scene.project, account, now=scene.now)
        accept(session, account, scene.project, version=1, now=scene.now)
        judges[account.id] = SimulatedLabeler(scene.seed * 1000 + number, noise)
    prompts = map(user_message, starter_prompts()[:NUM_PROMPTS])
    add_prompts(session, scene.project, prompts, kind=PromptKind.IMPORTED)
    scene.catch_up()
    return People(scene, judges)


def the_sft_policy(story: Story) -> None:
    story.people.demonstrate(40, days=2)
    story.people.rank(50, days=4)
    round = start(story, "sft", "reward", "evaluate")
    story.trainer.train(round)
    story.people.compare(round, days=1)
    promote_made(story, round)


def a_better_policy(story: Story) -> None:
    story.people.rank(60, days=6)
    round = start(story, "reward", "ppo", "evaluate")
    story.trainer.train(round)
    story.people.compare(round, days=1)
    promote_made(story, round)


def a_round_that_fails(story: Story) -> None:
    """The graphics card was too small for the batch; nobody takes the round up again."""
    story.people.rank(40, days=5)
    round = start(story, "reward", "ppo", "evaluate", overrides={"ppo": {"batch_size": 256}})
    story.trainer.train(round, until=Recipe.PPO)
    claim = story.trainer.claim(round, Recipe.PPO)
    story.trainer.report_steps(claim, round, num_steps=8)
    claims.fail_stage(story.scene.session, claim, OUT_OF_MEMORY, now=story.scene.now)
    story.scene.end(round)


def a_policy_that_is_rolled_back(story: Story) -> None:
    """The rule promotes it, its replies turn out to be long-winded, and the admin goes back to the one before."""
    story.people.rank(20, days=3)
    update_settings(
        story.scene.session, story.scene.project, {"promotes_at_lower_bound": 0.5}, account=story.scene.admin
    )
    story.scene.catch_up()
    round = start(story, "reward", "ppo", "evaluate", overrides={"ppo": {"kl_coef": 0.02}})
    story.trainer.train(round)
    story.people.compare(round, days=1)
    promote_made(story, round)
    story.people.rank(15, days=2)
    roll_back(story.scene.session, story.scene.project, account=story.scene.admin, now=story.scene.now)
    story.scene.catch_up()


def a_round_that_is_cancelled(story: Story) -> None:
    """A labeler who only guesses is paused, and the round that learns from the guesses is called off."""
    story.people.rank(40, days=5)
    round = start(story, "reward", "ppo", "evaluate")
    story.trainer.train(round, until=Recipe.PPO)
    claim = story.trainer.claim(round, Recipe.PPO)
    story.trainer.report_steps(claim, round, num_steps=14)
    guesser = story.people.labelers.pop()
    members.pause(story.scene.session, story.scene.project, guesser, by=story.scene.admin, now=story.scene.now)
    story.scene.told.paused_labeler = story.scene.session.get_one(Account, guesser).name
    cancel_round(story.scene.session, round, account=story.scene.admin, now=story.scene.now)
    story.scene.now += MINUTE
    claims.cancel_stage(story.scene.session, claim, now=story.scene.now)
    story.scene.end(round)


def the_policy_of_today(story: Story) -> None:
    story.people.rank(60, days=6)
    round = start(story, "reward", "ppo", "evaluate", overrides={"ppo": {"kl_coef": 0.2}})
    story.trainer.train(round)
    story.people.compare(round, days=1)
    promote_made(story, round)


def today(story: Story, now: datetime) -> None:
    """Labelers have gone on since; the queue is full again."""
    story.people.rank(30, days=(now - story.scene.now) / timedelta(days=1))
    story.scene.now = now
    story.people.fill_queue(12)
    story.scene.catch_up()
    story.scene.told.current = current_version(story.scene.session, story.scene.project).number


def start(story: Story, *stages: str, overrides: Overrides | None = None) -> Round:
    round = start_round(
        story.scene.session,
        story.scene.project,
        stages=stages,
        overrides=overrides or {},
        account=story.scene.admin,
        now=story.scene.now,
    )
    story.scene.catch_up()
    return round


def promote_made(story: Story, round: Round) -> None:
    """The admin promotes what the round made, where the rule has not done it yet."""
    scene = story.scene
    candidate = scene.session.get_one(PolicyVersion, round.candidate_id, populate_existing=True)
    scene.now += HOUR
    if candidate.state is PolicyState.CANDIDATE:
        promote(scene.session, scene.project, candidate, account=scene.admin, now=scene.now)
    scene.catch_up()
