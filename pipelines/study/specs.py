"""Turn the options of a study or a sweep into trainings and measurements."""

from pipelines.study.config import DataOptions, MeasureOptions, ModelOptions, RecipeOptions, StudyConfig, SweepConfig, require
from tune_spaces import Base, get_space
from uvb.data import ImageSet
from uvb.experiments import experiment_names, get_experiment
from uvb.models import get_model
from uvb.models.activations import activation
from uvb.models.capacity import widths_at
from uvb.spec import RECIPES, DataRef, Recipe, RunSpec


def build_recipe(options: RecipeOptions) -> Recipe:
    """The named recipe, changed as the options say. The changes become part of its name.

    Raises:
        UserError: there is no such recipe, or a value is not allowed.
    """
    require(options.recipe in RECIPES, f"unknown recipe {options.recipe!r}; choose one of: {', '.join(RECIPES)}")
    values = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate")}
    return RECIPES[options.recipe].changed(**{name: value for name, value in values.items() if value is not None})


def data_ref(options: DataOptions, images: ImageSet, batch_size: int | None = None) -> DataRef:
    """The reference by which specs name the images to train on.

    Raises:
        UserError: there are fewer images than the options ask for, or fewer than one batch needs.
    """
    available = len(images.train)
    require(
        options.train_images <= available,
        f"--train-images {options.train_images}: {images.name} has {available}; choose 2 to {available}, or 0 for all",
    )
    chosen = options.train_images or available
    require(
        batch_size is None or batch_size <= chosen,
        f"--batch-size {batch_size}: there are {chosen} training images; choose at most {chosen}",
    )
    return DataRef(images.name, images.checksum, images.shape, chosen)


def build_specs(config: StudyConfig, images: ImageSet) -> list[RunSpec]:
    """Every model at every noise level and seed, and the extra models at the largest noise level."""
    return specs_of(config, data_ref(config, images, config.batch_size), build_recipe(config))


def specs_of(options: ModelOptions, data: DataRef, recipe: Recipe) -> list[RunSpec]:
    """The trainings of `options` on the images `data`, all with one recipe.

    Raises:
        UserError: there is no such model or activation function.
    """
    pairs = [(model, sigma) for sigma in options.sigmas for model in options.models]
    pairs += [(model, max(options.sigmas)) for model in options.extra_models]
    activation(options.activation)  # raises for an unknown one
    widths = {model: widths_at(model, data.shape, options.width) for model in dict.fromkeys(model for model, _ in pairs)}
    return [
        RunSpec(data, model, widths[model], sigma, get_model(model).objective, recipe, options.activation, seed)
        for seed in dict.fromkeys(options.seeds)
        for model, sigma in dict.fromkeys(pairs)
    ]


def sweep_specs(config: StudyConfig, images: ImageSet) -> list[RunSpec]:
    """The trainings of a sweep's space.

    Raises:
        UserError: there is no such space, or it does not train the models asked for.
    """
    assert isinstance(config, SweepConfig)
    activation(config.activation)  # raises for an unknown one
    data = data_ref(config, images, config.batch_size)
    base = Base(data, config.models, config.sigmas, config.seeds, build_recipe(config), config.activation, config.width)
    specs = list(dict.fromkeys(get_space(config.space).specs(base)))
    trained = list(dict.fromkeys(spec.model for spec in specs))
    require(
        config.models == StudyConfig.models or set(config.models) == set(trained),
        f"--models {' '.join(config.models)}: the space {config.space} trains its own, {' '.join(trained)}; leave --models out",
    )
    return specs


def chosen_experiments(options: MeasureOptions) -> list[str]:
    """The names of the experiments to run.

    Raises:
        UserError: there is no such experiment.
    """
    names: list[str] = []
    for name in options.experiments:
        if name in ("default", "all"):
            names += experiment_names(default_only=name == "default")
        else:
            names.append(get_experiment(name).name)
    return list(dict.fromkeys(names))
