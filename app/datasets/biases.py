"""Biases that a set of rankings shows, added up while the rankings pass. Pure values; knows no table.

Readers of preference data ask them first: people, and the reward models that learn from them, tend to prefer what is
longer (Singhal et al. 2023, arXiv:2310.03716) and what they saw first.
"""

from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from app.datasets.rows import RankingRow
from app.labeling.models import SlateKind
from app.quality.agreement import FEWEST_PROMPTS, MOST_BLOCKS, Estimate, Floats, make_blocks, ratio_estimates

NOTHING_TO_COMPARE = "no comparison tells"


def _no_sums() -> Floats:
    return np.zeros(MOST_BLOCKS)


@dataclass
class Biases:
    """Sums over blocks of prompts: prompts are resampled whole, as quality's intervals do.

    Of comparisons of which one is better: how often it is the longer one, in characters, where the lengths differ; and
    how often the one shown first, of rankings made here (who ranked for a file saw an order that is not known).
    """

    longer: Floats = field(default_factory=_no_sums)
    of_two_lengths: Floats = field(default_factory=_no_sums)
    first: Floats = field(default_factory=_no_sums)
    shown_here: Floats = field(default_factory=_no_sums)
    num_ties: int = 0
    num_compared: int = 0  # ties among them
    prompts: set[str] = field(default_factory=set)  # the first few: fewer say nothing about the next ones

    def add(self, row: RankingRow) -> None:
        block = crc32(row.group_key.encode()) % MOST_BLOCKS
        if len(self.prompts) < FEWEST_PROMPTS:
            self.prompts.add(row.group_key)
        lengths = [len(completion.text) for completion in row.completions]
        places = {position: place for place, position in enumerate(row.order_shown)}
        is_shown_here = row.kind is not SlateKind.IMPORTED
        for better in range(len(row.ranks)):
            for worse in range(len(row.ranks)):
                if row.ranks[better] < row.ranks[worse]:
                    self.num_compared += 1
                    self.of_two_lengths[block] += lengths[better] != lengths[worse]
                    self.longer[block] += lengths[better] > lengths[worse]
                    self.shown_here[block] += is_shown_here
                    self.first[block] += is_shown_here and places[better] < places[worse]
                elif better < worse and row.is_tie(better, worse):
                    self.num_compared += 1
                    self.num_ties += 1

    def longer_is_better(self) -> Estimate:
        return self._share(self.longer, self.of_two_lengths)

    def first_is_better(self) -> Estimate:
        return self._share(self.first, self.shown_here)

    def tie_share(self) -> float | None:
        return self.num_ties / self.num_compared if self.num_compared else None

    def _share(self, parts: Floats, wholes: Floats) -> Estimate:
        every_block, one_group = np.arange(MOST_BLOCKS), np.zeros(MOST_BLOCKS, dtype=np.int64)
        num_prompts = np.array([len(self.prompts)])
        blocks = make_blocks(MOST_BLOCKS)
        (share,) = ratio_estimates(every_block, one_group, parts, wholes, blocks, num_prompts, NOTHING_TO_COMPARE)
        return share
