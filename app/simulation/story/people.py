"""What people and the sampler do in a story: demonstrations, rankings, blind comparisons, and the slates for them."""

from datetime import timedelta
from random import Random
from uuid import uuid4

from sqlalchemy import select

from app.labeling import demonstrations, leases, queue, writings
from app.labeling.demonstration_content import WritingContent
from app.labeling.models import Completion, Lease, Slate, SlateKind
from app.labeling.service import Judgement, submit_ranking
from app.labeling.task_models import Writing, WritingTask
from app.people.access import access_to, labeler_of
from app.people.models import Account, Labeler
from app.people.owners import Owner
from app.policies.models import PolicyVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt
from app.rounds.models import Round, RoundState
from app.simulation.crowd import shown_text
from app.simulation.gold import gold_preference
from app.simulation.labelers import SimulatedLabeler
from app.simulation.story.files import starter_encoder
from app.simulation.story.scene import HOUR, WRITERS, Scene, StoryWentAstray
from app.simulation.story.texts import CURT, Writer

GUESSES = 0.5  # noise of a labeler who does not read: fast, too


class People:
    """The labelers, who take turns, and the sampler, who writes what they rank."""

    def __init__(self, scene: Scene, judges: dict[int, SimulatedLabeler]) -> None:
        """judges: by account."""
        self.scene, self.judges = scene, judges
        self.labelers = list(judges)  # accounts of those who work
        self.labeler_ids: dict[int, int] = {}  # by account
        self.turn = 0
        self.rng = Random(f"{scene.seed}/story")  # noqa: S311 - reproducible, not secret
        self.drawing = Random(f"{scene.seed}/prompts")  # noqa: S311
        self.encoder = starter_encoder()

    def labeler(self, account_id: int) -> Labeler:
        if account_id not in self.labeler_ids:
            account = self.scene.session.get_one(Account, account_id)
            access = access_to(self.scene.session, account, self.scene.told.slug)
            self.labeler_ids[account_id] = labeler_of(self.scene.session, access).id
        return self.scene.session.get_one(Labeler, self.labeler_ids[account_id])

    def next_labeler(self) -> int:
        """Their account; they take turns."""
        self.turn += 1
        return self.labelers[self.turn % len(self.labelers)]

    def demonstrate(self, num: int, *, days: float) -> None:
        """Labelers answer prompts themselves, well."""
        for _ in range(num):
            self.scene.now += timedelta(days=days) / num
            account_id = self.next_labeler()
            labeler = self.labeler(account_id)
            writing = writings.open_writing(
                self.scene.session,
                labeler,
                self.scene.project,
                WritingTask.ANSWER,
                now=self.scene.now,
                rng=self.drawing,
            )
            if writing is None:
                raise StoryWentAstray("There is no prompt left to answer; nothing was kept.")
            prompt = self.prompt_of(writing)
            answer = WritingContent(answer=Writer(1.0, rambling=0).write(self.rng, shown_text(prompt.messages)))
            owner = Owner(account_id, labeler.project_id)
            demonstrations.submit(
                self.scene.session, owner, writing.id, uuid4(), answer, count_tokens=None, now=self.scene.now
            )
        self.scene.told.num_demonstrations += num

    def prompt_of(self, writing: Writing) -> Prompt:
        return self.scene.session.get_one(Prompt, writing.prompt_id)

    def rank(self, num: int, *, days: float) -> None:
        """Labelers rank slates of the current policy, evenly over the days."""
        self.fill_queue(num)
        for _ in range(num):
            self.scene.now += timedelta(days=days) / num
            if self.rank_next() is None:
                raise StoryWentAstray("There was no slate to rank; nothing was kept.")

    def rank_next(self) -> Slate | None:
        """The next labeler ranks the slate that they are given; None when there is none for anyone."""
        for _ in self.labelers:
            account_id = self.next_labeler()
            labeler = self.labeler(account_id)
            rng = Random(f"{self.scene.seed}/{self.turn}")  # noqa: S311
            held = leases.take_leases(
                self.scene.session,
                labeler,
                self.scene.project,
                wanted=1,
                now=self.scene.now,
                rng=rng,
            )
            if not held:
                continue
            lease = self.scene.session.get_one(Lease, held[0])
            slate = self.scene.session.get_one(Slate, lease.slate_id)
            judgement = self.judgement(slate, self.judges[account_id])
            owner = Owner(account_id, labeler.project_id)
            submit_ranking(self.scene.session, owner, lease.id, uuid4(), judgement, now=self.scene.now)
            self.scene.session.expire(slate, ["state", "free_from", "done_at"])
            self.scene.told.num_rankings += slate.kind is SlateKind.TRAINING
            return slate
        return None

    def judgement(self, slate: Slate, judge: SimulatedLabeler) -> Judgement:
        """What the labeler says of the slate. Of two they are sure: who compares which pair must not matter."""
        prompt = shown_text(self.scene.session.get_one(Prompt, slate.prompt_id).messages)
        completions = sorted(slate.completions, key=lambda completion: completion.position)
        texts = [completion.text for completion in completions]
        if slate.kind is SlateKind.EVALUATION:
            better = gold_preference(prompt, *texts)
            first = 1 if better >= 0.5 else 2
            ranks = [first, 1 if better == 0.5 else 3 - first]
            return Judgement(dict(zip([each.id for each in completions], ranks, strict=True)), active_s=9.0)
        said = judge.judge(prompt, texts)
        given = zip(completions, said.ranks, said.qualities, strict=True)
        by_id = {completion.id: (completion, rank, quality) for completion, rank, quality in given}
        return Judgement(
            ranks={id: rank for id, (_, rank, _) in by_id.items()},
            qualities={id: quality for id, (_, _, quality) in by_id.items()} if slate.asks_full_form else {},
            flags={id: self.flags(completion) for id, (completion, _, _) in by_id.items()},
            active_s=4.0 if judge.noise >= GUESSES else 25.0 + 5 * len(texts),
        )

    def flags(self, completion: Completion) -> list[str]:
        return [self.scene.project.flags[1]] if completion.text.startswith(CURT) else []

    def fill_queue(self, num: int) -> None:
        """Plan and fill so many slates, as the sampler does, with what the current policy would write."""
        self.scene.project.queue_target = num
        queue.plan_slates(self.scene.session, self.scene.project, now=self.scene.now)
        others = self.scene.session.scalars(select(Project.id).where(Project.id != self.scene.project.id)).all()
        claimed = queue.claim_slates(
            self.scene.session,
            owner="sampler@story",
            limit=num,
            duration=HOUR,
            now=self.scene.now,
            except_projects=others,
        )
        for slate in claimed:
            version = current_version(self.scene.session, self.scene.project)
            rng = Random(f"{slate.seed}/{version.number}")  # noqa: S311
            texts = WRITERS[version.number].write_distinct(rng, shown_text(slate.messages), slate.k)
            completions = [self.completion(text, version, slate.seed + number) for number, text in enumerate(texts)]
            queue.store_completions(self.scene.session, slate.claim, completions, now=self.scene.now)
        self.scene.session.flush()

    def completion(self, text: str, version: PolicyVersion, seed: int) -> queue.NewCompletion:
        token_ids = self.encoder.ids(text)
        return queue.NewCompletion(
            text=text,
            policy_version_id=version.id,
            seed=seed,
            temperature=1.0,
            top_p=1.0,
            finish_reason="stop",
            logprob=-1.2 * len(token_ids),
            token_ids=token_ids,
            tokenizer_sha256=version.tokenizer_sha256,
        )

    def compare(self, round: Round, *, days: float) -> None:
        """Labelers compare blind until the round has what it needs."""
        while self.scene.session.get_one(Round, round.id, populate_existing=True).state is RoundState.AWAITING_LABELS:
            self.scene.now += timedelta(days=days) / round.evaluation_comparisons
            if self.rank_next() is None:
                raise StoryWentAstray("A round waits for comparisons that nobody is given; nothing was kept.")
        self.scene.end(round)
