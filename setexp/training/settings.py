"""How a run is trained, evaluated and tracked: closed sections of the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Optimizer(Enum):
    """Gradient methods of the protocols."""

    adam = "adam"
    adamax = "adamax"
    rmsprop = "rmsprop"


class Select(Enum):
    """Which weights a run reports: those after the last step, or of the best evaluation."""

    last = "last"
    best = "best"


class Precision(Enum):
    """Arithmetic of training; evaluations are in float32, or TF32 under `tf32`.

    float32: nothing is rounded to less, on any device. tf32: a GPU's matrix products, convolutions
    and recurrent layers round their factors to TF32, as PyTorch's convolutions do by default. bf16:
    the forward pass under autocast; inner steps of 800 and batch norm of small batches suffer.
    """

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"


# What changes where or how a run happens, but not what it computes, rounding aside.
OPERATIONAL: dict[str, tuple[str, ...]] = {
    "dataset": ("root", "source", "resident"),
    "trainer": ("until", "log_every", "checkpoint_seconds", "stack", "compile"),
    "crossval": ("stack",),
}


@dataclass
class Trainer:
    """One training run.

    Args:
        epochs: passes over the training split. steps: stop earlier, after that many steps.
        until: pause after that many epochs; the same command with more, or null, goes on.
        batch_size: sets a step. eval_batch_size: sets a step of an evaluation.
        slice: sets of a batch that are held at a time, their gradients added up; null for all.
        drop_last: leave the last batch of an epoch out where it is smaller.
        optimizer, lr, weight_decay: as PyTorch defines them.
        clip: largest gradient norm of all parameters of one seed; null for none.
        lr_epochs, lr_factor: multiply the learning rate at the start of each of these epochs.
        lr_warmup: steps in which the learning rate grows linearly to what it is to be.
        lr_warmup_epochs: epochs in which it grows likewise, by the same amount after each.
        lr_decay, lr_decay_steps: it falls by that factor over that many steps, a little in each.
        lr_max: largest learning rate; null for no limit.
        lr_part, lr_part_factor: a part of the task, "encoder.count" say, whose learning rate is so
            many times as large; null for none.
        inner_steps, inner_epochs: inner steps of the decoder in training, [20, 40] with [50] being
            20, and 40 from epoch 50 on; the final evaluation uses the decoder's own number, which
            empty lists mean throughout.
        evaluate_every: epochs between evaluations during training; 0 for none.
        report_at: epochs after which final metrics are taken as well; their names end in "_ep10".
        select, select_metric, select_lower: see `Select`; the metric is an evaluation's.
        milestones: values of select_metric; the first epoch after which an evaluation during
            training reaches one is reported, as "epochs_to_0.99".
        average_from: evaluations during training are averaged from this epoch to the last; their
            names end in "_mean". null for no average.
        precision, compile: see `Precision`; `torch.compile` of the training step.
        log_every: steps between log lines, and between checks that the loss is finite.
        checkpoint_seconds: time between checkpoints; a signal writes one at once.
        stack: most parameters of a model whose seeds are stacked where they share a process.
    """

    epochs: int = 1
    steps: int | None = None
    until: int | None = None
    batch_size: int = 32
    eval_batch_size: int = 32
    slice: int | None = None
    drop_last: bool = True
    optimizer: Optimizer = Optimizer.adam
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float | None = None
    lr_epochs: list[int] = field(default_factory=list)
    lr_factor: float = 1.0
    lr_warmup: int = 0
    lr_warmup_epochs: int = 0
    lr_decay: float = 1.0
    lr_decay_steps: int = 1
    lr_max: float | None = None
    lr_part: str | None = None
    lr_part_factor: float = 1.0
    inner_steps: list[int] = field(default_factory=list)
    inner_epochs: list[int] = field(default_factory=list)
    evaluate_every: int = 0
    report_at: list[int] = field(default_factory=list)
    select: Select = Select.last
    select_metric: str | None = None
    select_lower: bool = True
    milestones: list[float] = field(default_factory=list)
    average_from: int | None = None
    precision: Precision = Precision.float32
    compile: bool = False
    log_every: int = 50
    checkpoint_seconds: float = 60.0
    stack: int = 1_000_000


@dataclass
class CrossValidation:
    """A run that trains all folds of its dataset at every point of a grid, and selects a point.

    Args:
        grid: numbers for keys of the model and the trainer, but its epochs, nested as the config
            is; null or empty for no cross-validation, of which a command says null, since it adds
            to what is there. Their order is that of the points, the last key changing fastest.
        together: keys of the grid whose points share a stack: those that buffers hold, not shapes.
        stack: most models that are stacked.
    """

    grid: dict[str, Any] | None = field(default_factory=dict)
    together: list[str] = field(default_factory=list)
    stack: int = 20


class Use(Enum):
    """What becomes of another run's weights: they are not used; stay as they are; are trained."""

    none = "none"
    frozen = "frozen"
    unfrozen = "unfrozen"


@dataclass
class Pretrained:
    """Where parts of the model get their first weights.

    Args:
        use: see `Use`.
        table, row, column: the cell whose run, of the same seed, scale and data source, has them.
        overrides: further ones of that run, such as "dataset.noise_on_padding=false".
        part: of both models, by name; or a list of several.
    """

    use: Use = Use.none
    table: str | None = None
    row: str | None = None
    column: str | None = None
    overrides: list[str] = field(default_factory=list)
    part: Any = "encoder"


class TrackingMode(Enum):
    """Weights & Biases: local files, uploaded, or not at all."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class Tracking:
    """Weights & Biases. It is a view: records and curves are kept without it.

    Args:
        mode: see `TrackingMode`. project, entity, group: as W&B defines them; group null means the
            table, or the experiment.
    """

    mode: TrackingMode = TrackingMode.offline
    project: str = "setexp"
    entity: str | None = None
    group: str | None = None


@dataclass
class Evaluation:
    """What is measured, and where.

    Args:
        losses: per set and averaged over sets, by name.
        stats: of those a task measures per set (`Outcome.stats`), averaged, by name.
        metrics: functions of all predicted and true sets of a split, each with its own names.
        summaries: alike, of what a task measures per set, (all sets, ...), by name.
        at: inner steps whose predictions are read, all from one pass of the longest; each name
            then ends in "@steps". Empty: the final prediction, names unchanged. During training,
            those up to the number that training itself takes at the time (`trainer.inner_steps`).
        during: split that is read during training; None for none.
        curves: splits of which stats are taken after every epoch, of a whole stack in one call.
        final: splits that are read at the end, with the suffix of their names.
        drop_last: leave an incomplete last batch out, as DSPN's batch-mean objective requires.
        double: in double precision, for splits whose batches are.
    """

    losses: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    summaries: dict[str, Any] = field(default_factory=dict)
    stats: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    during: str | None = None
    curves: list[str] = field(default_factory=list)
    final: dict[str, str] = field(default_factory=dict)
    drop_last: bool = False
    double: bool = False
