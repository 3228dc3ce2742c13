"""PPO: improve the policy against a frozen reward model, near a reference policy (Ziegler et al., arXiv:1909.08593).

Reads data/prompts.parquet (train and validation), data/pretraining.parquet where PPO-ptx is asked for, and two models,
a policy and a reward model; the reference is the policy it starts from unless the stage names another. The result is
the policy with the best held-out score within all limits. The loop around a step is trainer.improvement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from trainer.checkpoints import require_finite
from trainer.improvement import Phases, improve, is_look, open_models, policy_learner, read_task
from trainer.kl import KLController
from trainer.policy_run import Run
from trainer.policy_updates import Learner, Minibatch, learn_policy, mean_metrics, plan_epoch
from trainer.ppo import Models, PPOExperience, update_policy, update_value, weigh
from trainer.pretraining import PretrainingMix, read_pretraining_mix
from trainer.recipes.program import Interrupt, run_recipe
from trainer.recomputing import checkpointing
from trainer.rollouts import Rollouts
from trainer.round_folder import RoundFolder, Stage
from trainer.settings import PPOConfig
from trainer.side_by_side import side_by_side
from trainer.stage_models import open_value_model


def run_ppo(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    config = cast(PPOConfig, stage.config)
    opened = open_models(stage, config)
    value = open_value_model(stage, config, opened.rewards)
    checkpointing(value, config.gradient_checkpointing)
    scorer = opened.rewards.scorer
    models = Models(opened.policy.model, opened.reference.model, scorer, value, scorer.score_stds[0])
    ppo = PPO(
        models=models,
        policy=policy_learner(opened.policy, config),
        value=Learner(value, config.rate(config.value_learning_rate), config.warmup_updates, config.max_gradient_norm),
        kl=KLController(cast(Literal["fixed", "adaptive"], config.kl_control), config.kl_coef, config.kl_target),
        pretraining=read_pretraining_mix(folder, models.policy, config, stage.seed),
        config=config,
        seed=stage.seed,
    )
    run = Run({"policy": ppo.policy, "value": ppo.value}, ppo.kl)
    improve(run, read_task(folder, stage, config, opened), ppo.learn_from, interrupt)


@dataclass(frozen=True, kw_only=True)
class PPO:
    """What a step of PPO needs beside the completions it learns from."""

    models: Models
    policy: Learner
    value: Learner
    kl: KLController
    pretraining: PretrainingMix | None
    config: PPOConfig
    seed: int

    def learn_from(self, rollouts: Rollouts, step: int, phases: Phases) -> dict[str, float]:
        """One step: the rollouts are weighed and learned from. Raises RatioNotOne, NotFinite."""
        plans = [plan_epoch(rollouts, self.config, self.seed, step, epoch) for epoch in range(self.config.num_epochs)]
        with phases.phase("score"):
            experience = weigh(self.models, rollouts, plans[0], self.config, self.kl.coef)
        with phases.phase("update"):
            return self.learn(experience, plans, step) | experience.describe()

    def learn(self, experience: PPOExperience, plans: Sequence[Sequence[Minibatch]], step: int) -> dict[str, float]:
        """All updates of one step, policy and value model at once: neither reads what the other learns.

        Returns the mean metrics of the updates; ratio_error is that before the first, where it must be 0.
        """
        learns_values_only = step <= self.config.value_warmup_steps
        of_policy, of_value = side_by_side(
            self.models.policy.device,
            lambda: {} if learns_values_only else self.learn_policy(experience, plans, step),
            lambda: self.learn_value(experience, plans, step),
        )
        return of_policy | of_value

    def learn_policy(
        self, experience: PPOExperience, plans: Sequence[Sequence[Minibatch]], step: int
    ) -> dict[str, float]:
        """Raises RatioNotOne, NotFinite."""
        first_update = (step - 1) * sum(len(plan) for plan in plans)

        def update(minibatch: Minibatch, number: int) -> dict[str, float]:
            return update_policy(
                self.policy, experience, minibatch, self.config, lambda: self.add_pretraining(first_update + number)
            )

        is_first = step == self.config.value_warmup_steps + 1
        return learn_policy(
            self.policy,
            experience,
            plans,
            update,
            self.config,
            step=step,
            checks_whole_batch=is_first or is_look(step, self.config),
        )

    def add_pretraining(self, update: int) -> dict[str, float]:
        if self.pretraining is None:
            return {}
        return self.pretraining.add_gradients(self.policy.model, self.config.minibatch_size, update)

    def learn_value(
        self, experience: PPOExperience, plans: Sequence[Sequence[Minibatch]], step: int
    ) -> dict[str, float]:
        """Raises NotFinite."""
        seen = []
        for minibatch in (minibatch for plan in plans for minibatch in plan):
            seen.append(update_value(self.value, self.models, experience, minibatch, self.config))
            require_finite(step, **seen[-1])
        return mean_metrics(seen)


if __name__ == "__main__":
    run_recipe(run_ppo)
