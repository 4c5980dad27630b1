"""The plan of a recipe: its cells with the overrides of the command line as ordinary experiments, and the changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from genbench.errors import PluginError, UsageError, unknown
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, create_components, plan
from genbench.registry.options import complete, specs
from genbench.reproduction.comparison import OptionChange
from genbench.reproduction.recipe import ParsedRecipe, RecipeCell, parse

if TYPE_CHECKING:
    from genbench.api import DataConfig, Recipe
    from genbench.registry.loader import Registry


@dataclass(frozen=True)
class RecipeOverrides:
    """The cells and models of a recipe (none: all), budget, seeds and options that the command line selects."""

    cells: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    budget: float = 1.0
    seeds: int | None = None
    settings: tuple[str, ...] = ()


def read_recipe(name: str, registry: Registry, settings: Sequence[str] = ()) -> tuple[Recipe, ParsedRecipe]:
    """The recipe of a plug-in and its parsed text; `settings` are the recipe's own, `NAME.OPTION=VALUE`."""
    from genbench.api import Recipe

    factory = registry.get("recipe", name).spec.factory
    recipe = factory(**complete(name, factory, _texts(settings)))
    if not isinstance(recipe, Recipe):
        raise PluginError(f"the recipe '{name}' made a {type(recipe).__name__}, not a genbench.api.Recipe")
    parsed = parse(recipe.text, recipe.where)
    if parsed.name != name:
        raise PluginError(f"{recipe.where}: key 'name': '{parsed.name}', but the plug-in registers it as '{name}'")
    if (parsed.study == "experiment") != (recipe.experiment is not None):
        has = "no" if recipe.experiment is None else "an"
        raise PluginError(f"{recipe.where}: key 'study': '{parsed.study}', but the plug-in has {has} experiment")
    return recipe, parsed


def _texts(settings: Sequence[str]) -> dict[str, str]:
    """The texts of `NAME.OPTION=VALUE` by option."""
    pairs = [setting.partition(".")[2].partition("=") for setting in settings]
    return {option.strip(): value.strip() for option, _, value in pairs}


def recipe_changes(name: str, registry: Registry, settings: Sequence[str]) -> tuple[OptionChange, ...]:
    """The recipe's own options whose values are not its defaults."""
    factory = registry.get("recipe", name).spec.factory
    defaults, ours = complete(name, factory, {}), complete(name, factory, _texts(settings))
    return tuple(
        OptionChange("recipe", name, option.replace("_", "-"), defaults[option], value)
        for option, value in ours.items()
        if value != defaults[option]
    )


def cell_changes(cell: RecipeCell, overrides: RecipeOverrides, registry: Registry) -> tuple[OptionChange, ...]:
    """The options of a cell's models, metrics and so on whose values are not the recipe's."""
    recipe = create_components(cell_config(cell, replace(overrides, settings=())), registry)
    changes = []
    for (kind, name), (component,) in create_components(cell_config(cell, overrides), registry).items():
        known = specs(registry.get(kind, name).spec.factory)
        for option, value in component.options:
            before, shown = recipe[kind, name][0].values[option], option.replace("_", "-")
            if value != before:
                changes.append(OptionChange(kind, name, shown, before, value, known[shown].meaning.file))
    return tuple(changes)


def chosen_cells(recipe: ParsedRecipe, names: Sequence[str], models: Sequence[str] = ()) -> list[RecipeCell]:
    """The cells of these names with these of their models; all where none is named."""
    by_name = {cell.name: cell for cell in recipe.cells}
    for name in names:
        if name not in by_name:
            raise unknown(f"cell of {recipe.name} called", name, by_name)
    chosen = [by_name[name] for name in dict.fromkeys(names)] if names else list(recipe.cells)
    known = {model for cell in chosen for model in cell.models}
    for model in models:
        if model not in known:
            raise unknown(f"model of {recipe.name} called", model, known)
    if not models:
        return chosen
    return [_with_models(cell, models) for cell in chosen if set(cell.models) & set(models)]


def _with_models(cell: RecipeCell, models: Sequence[str]) -> RecipeCell:
    """The cell with these of its models alone, and without the options of the others."""
    left_out = [model for model in cell.models if model not in models]
    settings = tuple(setting for setting in cell.settings if setting.partition(".")[0].strip() not in left_out)
    return replace(cell, models=tuple(model for model in cell.models if model in models), settings=settings)


def cell_config(cell: RecipeCell, overrides: RecipeOverrides) -> ExperimentConfig:
    """The configuration of a cell, with the seeds and options of the command line."""
    overridden = {setting.partition("=")[0].strip() for setting in overrides.settings}
    remaining = tuple(setting for setting in cell.settings if setting.partition("=")[0].strip() not in overridden)
    shared = {field.name for field in fields(RecipeCell)} & {field.name for field in fields(ExperimentConfig)}
    same = {name: getattr(cell, name) for name in shared - {"seeds", "settings"}}
    seeds = tuple(range(overrides.seeds or cell.seeds))
    return ExperimentConfig(**same, seeds=seeds, settings=remaining + tuple(overrides.settings))


def plan_cell(cell: RecipeCell, overrides: RecipeOverrides, registry: Registry, data_config: DataConfig) -> Plan:
    """The checked plan of a cell at a fraction of the images of each run, at least one batch."""
    config = cell_config(cell, overrides)
    for (_, name), components in create_components(config, registry).items():
        if len(components) > 1:
            raise UsageError(f"--set {name}.…: a published number is compared with one value of each option; give one")
    planned = plan(config, registry, data_config)
    if overrides.budget >= 1:
        return planned
    images = max(config.batch, round(overrides.budget * planned.runs[0].images))
    return plan(replace(config, epochs=None, images=images), registry, data_config)


def refuse_overrides(recipe: ParsedRecipe, overrides: RecipeOverrides) -> None:
    """`UsageError` for options that need cells, where a recipe is an experiment without any."""
    if overrides.cells or overrides.models or overrides.settings:
        flag = "--cells" if overrides.cells else "--models" if overrides.models else f"--set {overrides.settings[0]}"
        raise UsageError(f"{flag}: {recipe.name} is an experiment without cells; it has the options {recipe.name}.…")
