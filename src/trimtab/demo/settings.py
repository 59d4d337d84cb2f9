"""Every number of the demo. Tests run a smaller grid by replacing fields; nothing else may differ."""

from __future__ import annotations

from dataclasses import dataclass

#: The embedded world's emotions, in the order in which they are shown; "neutral" is the sixth class.
EMOTIONS = ("happy", "sad", "angry", "afraid", "calm")
NEUTRAL = "neutral"


@dataclass(frozen=True)
class DemoSettings:
    """Doses are totals over the layers: displacement ÷ typical residual norm, summed. See the fields'
    comments.
    """

    seed: int = 0
    emotions: tuple[str, ...] = EMOTIONS
    #: Total doses of the curves, closest together where coherence begins to give; 0 is shared by all emotions.
    doses: tuple[float, ...] = (-0.8, -0.4, 0.0, 0.2, 0.4, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0, 1.2)
    #: Held-out prompts (the items), and seeded samples of each.
    prompts: int = 32
    samples: int = 3
    max_tokens: int = 32
    #: Sampling of every condition, steered or not.
    temperature: float = 0.7
    top_p: float = 0.9
    #: Random directions of equal displacement, with their own number of samples per prompt (fewer samples make their
    #: means noisier and so their 95 % quantile higher: a harder baseline).
    random_directions: int = 5
    random_samples: int = 1
    #: Layer sets that the `select` prompts choose among, at these doses.
    layer_sets: tuple[tuple[int, ...], ...] = ((2, 3), (2, 3, 4), (1, 2, 3, 4))
    select_prompts: int = 12
    select_doses: tuple[float, ...] = (0.7, 0.8, 0.9)
    #: Doses and layer of the honesty direction, and samples of each open question.
    honesty_doses: tuple[float, ...] = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6)
    honesty_layer: int = 3
    honesty_items: int | None = None
    open_samples: int = 2
    #: The learned vector: Adam steps, its step and the vector's largest length in units of the typical norm.
    learn_steps: int = 45
    learn_rate: float = 0.1
    learn_max_norm: float = 0.32
    learn_layer: int = 1
    learn_batch: int = 24
    #: The second term: unsteered answers stay likely. Its weight, and how many answers per step.
    keep_weight: float = 1.0
    keep_batch: int = 8
    #: Where tokens are read, and how many stories score the readings.
    read_layer: int = 4
    stories: int = 120
    #: Prompts and stories that the report shows.
    shown_prompts: int = 6
    shown_stories: int = 3
    #: Rows that run together.
    rows: int = 1024
