"""The options of a study, as frozen dataclasses from which tyro makes the command line.

`StudyConfig` has all options. Each of its base classes has the options of one subject. Do not import torch here, so that
`--help` is quick.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from pipelines.bounds import Bounded
from pipelines.files.names import plain_name
from uvb.errors import UserError
from uvb.naming import dataset_stem
from uvb.paper import SIGMAS

if TYPE_CHECKING:
    from uvb.data.readers.own import ReadOptions
    from uvb.measure.losses import EvalConfig


@dataclass(frozen=True)
class StorageOptions(Bounded):
    """Where a study's files and its MLflow runs are stored."""

    storage: str = os.environ.get("UVB_STORAGE", "outputs")
    """Where studies are kept: a folder, or a URI such as s3://bucket/studies. UVB_STORAGE changes the default."""
    tracking_uri: Annotated[str | None, arg(metavar="URI")] = None
    """MLflow's store: sqlite:///... or http://host:port. Default: MLFLOW_TRACKING_URI if it is set, else mlflow.db in the
    working directory."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints of a training."""
    dry_run: bool = False
    """Only print the models, their parameter counts and the estimated time on this machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.storage), "--storage is empty: give a folder, or a URI such as s3://bucket/studies")


@dataclass(frozen=True)
class ClusterOptions(Bounded):
    """Which machines train, and how models share them."""

    num_workers: int = 0
    """Data-parallel workers for each model. 0: chosen to suit the cluster."""
    use_gpu: bool = False
    """Train on GPUs. This is off by default, since an autoscaling cluster may show no GPU before its workers join."""
    cpus_per_worker: float = 0.0
    """CPUs for each worker. 0: chosen to suit the cluster."""
    gpus_per_worker: float = 1.0
    """GPUs for each worker, with --use-gpu."""
    concurrent_trials: int = 0
    """How many groups of models train at the same time. 0: chosen to suit the cluster."""
    expect_cpus: int = 0
    """CPUs that an autoscaling cluster can grow to. 0: what it has now."""
    expect_gpus: int = 0
    """GPUs that an autoscaling cluster can grow to. 0: what it has now."""
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    """Precision of the training's arithmetic. auto: bf16 if the hardware supports it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the step with torch.compile. With one worker on a GPU the step also becomes one CUDA graph. auto: compile on
    GPUs, and on a CPU if a bf16 training takes about a quarter of an hour or more."""
    replan: bool = False
    """Resume with a new plan (workers, device, precision) instead of the stored one."""
    address: str = ""
    """Ray cluster to use: an address, auto, or local. Default: a running cluster if there is one, else a new Ray on this
    machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.gpus_per_worker < 1 or self.gpus_per_worker % 1 == 0,
            f"--gpus-per-worker {self.gpus_per_worker}: above 1 it must be a whole number, since a worker has whole GPUs",
        )


@dataclass(frozen=True)
class MeasureOptions(Bounded):
    """How trained models are measured."""

    experiments: Annotated[tuple[str, ...], arg(metavar="EXPERIMENT ...")] = ("default",)
    """Experiments on each trained model: losses, internals, denoise_rows, walk_jump, walk_jump_<sampler>, energies,
    one_z, nebula, decoder_samples, likelihood, detection, jump_quality, mixing, restoration, convexity, score_error, mixture,
    or default, or all."""
    eval_images: int = 10_000
    """How many training images the training loss is measured on. 0: all."""
    eval_test_images: int = 0
    """How many test images the test loss is measured on. 0: all."""
    eval_draws: int = 4
    """How many times noise is drawn for each image."""
    eval_precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the measurements' arithmetic."""
    scale: float = 1.0
    """Share of the usual chains and images that experiments use, in (0, 1]. A smaller share is faster."""

    @property
    def evaluation(self) -> "EvalConfig":
        """How losses are measured."""
        from uvb.measure.losses import EvalConfig

        return EvalConfig(self.eval_images, self.eval_test_images, self.eval_draws)


@dataclass(frozen=True)
class RecipeOptions(Bounded):
    """How weights are optimized."""

    recipe: Annotated[str, arg(metavar="RECIPE")] = "fast"
    """How weights are optimized: fast (ours), muon (ours, by Muon), muon_conv (Muon for convolutions too), or paper
    (Adam, 1e-4 constant, 400 epochs)."""
    epochs: Annotated[int | None, arg(metavar="INT")] = None
    """Epochs, instead of the recipe's."""
    batch_size: Annotated[int | None, arg(metavar="INT")] = None
    """Images in a batch, over all workers, instead of the recipe's."""
    learning_rate: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Peak learning rate, instead of the recipe's."""


@dataclass(frozen=True)
class ModelOptions(Bounded):
    """Which models are trained."""

    models: Annotated[tuple[str, ...], arg(metavar="MODEL ...")] = ("uvb", "deen")
    """Models trained at every noise level: uvb, deen, vae, sigma_vae, uvb_laplace, direct, quadratic_ae, uvb_mean, ..."""
    sigmas: Annotated[tuple[float, ...], arg(metavar="SIGMA ...")] = SIGMAS
    """Noise levels σ, where pixels are in [0, 1]."""
    extra_models: Annotated[tuple[str, ...], arg(metavar="[MODEL ...]")] = ("vae",)
    """Models trained at the largest noise level only: by default the plain VAE of Tables 4-5."""
    seeds: Annotated[tuple[int, ...], arg(metavar="SEED ...")] = (0,)
    """Every model is trained once with each seed."""
    width: float = 1.0
    """Factor for UVB's default widths. The other models get about as many parameters as UVB then has."""
    activation: Annotated[str, arg(metavar="NAME")] = "silu"
    """Activation function: silu, relu (footnote 3), softplus, gelu."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.models), "no model asked for: name at least one in --models")
        require(bool(self.sigmas), "no noise level asked for: give at least one in --sigmas, e.g. --sigmas 1.0")
        require(bool(self.seeds), "no seed asked for: give at least one in --seeds, e.g. --seeds 0")


@dataclass(frozen=True)
class DataOptions(Bounded):
    """Which images are studied, and the study's name."""

    dataset: Annotated[str, arg(metavar="DATA")] = "digits"
    """Data set: a name (digits, mnist, cifar10, mixture), a path to your own (a folder of pictures, Parquet, .npz), or
    hf:owner/name[:config] for one of the Hugging Face hub."""
    study: str = ""
    """Name of the study, and of its folder under --storage. Default: the data set's name."""
    data_dir: str = "data"
    """The folder of named data sets. A data set that is not there is downloaded."""
    image_column: Annotated[str | None, arg(metavar="NAME")] = None
    """The column of images in your own Parquet. Default: image, img or pixel_values."""
    label_column: Annotated[str | None, arg(metavar="NAME")] = None
    """The column of labels in your own Parquet. Default: label or labels, if there is one."""
    split: Annotated[tuple[str, ...], arg(metavar="[SPLIT=NAME ...]")] = ()
    """Which splits of your own data to use: train=NAME test=NAME, where NAME+NAME joins two. Default: found by their names."""
    resize: int = 0
    """Resize the images so that the shorter side has this many pixels. 0: keep their size."""
    center_crop: bool = False
    """Crop your own pictures to their central square."""
    background: Literal["none", "black", "white"] = "none"
    """The background to put behind your own transparent pictures. none: refuse them."""
    train_images: int = 0
    """How many images to train on: the first ones of the data set. 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_name(self.name, "choose one by --study")

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study or dataset_stem(self.dataset) or "study"

    @property
    def reading(self) -> "ReadOptions":
        """How the user's own images are read."""
        from uvb.data.readers.decode import Decoding
        from uvb.data.readers.own import ReadOptions

        background: Literal["", "black", "white"] = "" if self.background == "none" else self.background
        decoding = Decoding(self.resize, self.center_crop, background)
        return ReadOptions(self.image_column, self.label_column, self.split, decoding)


@dataclass(frozen=True)
class StudyConfig(StorageOptions, ClusterOptions, MeasureOptions, RecipeOptions, ModelOptions, DataOptions):
    """The whole study of "Unnormalized Variational Bayes": train, measure, draw, report, with one command.

    If the study stops, run the same command again: it keeps what is finished. Its last line is the report's address.

    On real digits (8×8):                 python pipelines/full_study.py

    What it would train, and how long:    python pipelines/full_study.py --dataset mnist --dry-run

    Two noise levels, two models:         python pipelines/full_study.py --sigmas 0.5 1.0 --models uvb direct

    Own pictures, own name:               python pipelines/full_study.py --dataset my_images/ --study mine

    The options of an earlier study:      python pipelines/full_study.py --config outputs/mine/study.yaml --seeds 1
    """


@dataclass(frozen=True)
class SweepConfig(StudyConfig):
    """Train every point of a named space, and rank them.

    There are three kinds of space. A table trains every point to the end, and ranks them on the test set. A choice also trains
    every point to the end, but ranks them on a held-out fifth of the training images. A search is a choice in which ASHA stops
    bad trainings early. If the sweep stops, run the same command again: it keeps what is finished. The results are the study's
    report and tables/leaderboard.parquet.

    Loss against parameters:                             python pipelines/sweep.py --space capacity

    Search the recipe, for both models in the same way:  python pipelines/sweep.py --space recipe --models uvb deen

    ReLU against SiLU, three seeds:                      python pipelines/sweep.py --space activation --seeds 0 1 2

    The options of an earlier sweep:                     python pipelines/sweep.py --config outputs/digits-capacity/study.yaml
    """

    space: Annotated[str, arg(metavar="SPACE")] = "sigma_grid"
    """The space to train: one of these, or the name of a plug-in's space.
    sigma_grid: every model at every noise level (Tables 2 and 3).
    capacity: loss against parameters.
    activation: ReLU against SiLU, softplus and GELU (footnote 3).
    sec311: the paper's learning rate and ten times as much, with smaller batches too.
    remark4: UVB with a Laplace decoder.
    questions: UVB with one part taken away (open question 1).
    train_size: the generalization gap against the number of training images (Remark 3).
    recipe: a search over learning rate, batch size and schedule.
    recipe_details: one change of the recipe at a time, to choose the best."""
    study: str = ""
    """Name of the study, and of its folder under --storage. Default: data set and space, such as digits-capacity."""
    extra_models: Annotated[tuple[str, ...], arg(metavar="[MODEL ...]")] = ()
    """Only for full_study.py; a sweep's models are --models."""
    experiments: Annotated[tuple[str, ...], arg(metavar="EXPERIMENT ...")] = ("losses",)
    """Experiments on each trained model: names, or default, or all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.extra_models, "--extra-models is only for full_study.py; name a sweep's models in --models")

    @property
    def name(self) -> str:
        return self.study or f"{super().name}-{self.space}"


def require(condition: bool, otherwise: str) -> None:
    """If `condition` is false, raise a `UserError` with the line `otherwise`."""
    if not condition:
        raise UserError(otherwise)
