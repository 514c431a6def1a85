"""Combined stations in ``station.toml``: their configuration, and what must fit together at start."""

from __future__ import annotations

import msgspec

from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.paths import journal_path
from asperity.runtime.settings.station_toml import StationConfig, StationSection, hosted
from asperity.runtime.settings.view_sections import COMBINED_MAX, Combined
from asperity.runtime.wire import VIEWS_MAX


def combining(config: StationConfig, combined: Combined, view: StationSection | None = None) -> StationConfig:
    """The configuration of a combined station, as if it were the only one. ``view``: any of its views."""
    return msgspec.structs.replace(
        config,
        station=StationSection(combined.name, combined.number, triggers=view.triggers if view else "software"),
        stations=[],
        journal=msgspec.structs.replace(config.journal, path=combined.journal),
    )


def names_of(config: StationConfig) -> list[str]:
    """Every station of the process that a client can name."""
    return [each.station.name for each in hosted(config)] + [each.name for each in config.combined]


def view_of(config: StationConfig) -> str:
    """The combined station of which this station is a view; empty: of none, its results are those of parts."""
    return next((each.name for each in config.combined if config.station.name in each.views), "")


def check_combined(config: StationConfig, where: str) -> None:
    """That a combined station can tell which part each picture is of, and is known by itself. Raises ConfigError."""
    if not config.combined:
        return
    if len(config.combined) > COMBINED_MAX:
        raise ConfigError(
            f"{where}: there are {len(config.combined)} [[combined]], but one process hosts at most {COMBINED_MAX}; "
            "run the others in another process"
        )
    taken = {
        (key, value): f"[[stations]] {each.station.name}"
        for each in hosted(config)
        for key, value in _marks(each).items()
    }
    seen_by: dict[str, str] = {}
    for combined in config.combined:
        at = f"{where}: [[combined]] {combined.name}"
        for key, value in _marks(combining(config, combined)).items():
            other = taken.setdefault((key, value), f"[[combined]] {combined.name}")
            if other != f"[[combined]] {combined.name}":
                raise ConfigError(f"{at} and {other} both have {key} {value!r}; give each its own {key}")
        _check_views(config, combined, at)
        for name in combined.views:
            if seen_by.setdefault(name, combined.name) != combined.name:
                raise ConfigError(f"{at}: {name} is a view of {seen_by[name]} already; a station is a view of one only")
        _check_time(config, combined, at)
        _check_recipes(config, combined, at)


def _marks(config: StationConfig) -> dict[str, str | int]:
    station = config.station
    return {"name": station.name, "number": station.number, "journal": str(journal_path(config))}


def _check_views(config: StationConfig, combined: Combined, at: str) -> None:
    stations = {each.name: each for each in config.stations}
    if not 1 <= len(combined.views) <= VIEWS_MAX:
        raise ConfigError(f"{at}: views names {len(combined.views)} stations; give 1 to {VIEWS_MAX}")
    for name in combined.views:
        if name not in stations:
            known = ", ".join(stations) or "none"
            raise ConfigError(f"{at}: views names {name!r}; available in [[stations]]: {known}")
        if stations[name].triggers == "free_run":
            raise ConfigError(
                f'{at}: view {name} has triggers = "free_run", where nothing says which part a picture is of; set '
                "software or hard_wired"
            )
    modes = {stations[name].triggers for name in combined.views}
    if len(modes) > 1:
        raise ConfigError(f"{at}: its views have triggers {' and '.join(sorted(modes))}; give all of them the same")
    if modes == {"hard_wired"} and len(set(combined.views)) < len(combined.views):
        raise ConfigError(
            f"{at}: views names a station twice, and its triggers are hard-wired: nothing says which exposure is which "
            "view; give software triggers"
        )


def _check_time(config: StationConfig, combined: Combined, at: str) -> None:
    most = max(combined.views.count(name) for name in combined.views)
    software = any(each.triggers == "software" for each in config.stations if each.name in combined.views)
    timeout_ms, deadline_ms = config.triggers.timeout_max_ms if software else 0, config.limits.deadline_ms
    needed_ms = most * timeout_ms + deadline_ms
    if combined.complete_ms < needed_ms:
        times = f"{most} x [triggers] timeout_max_ms ({timeout_ms}) + " if software else ""
        raise ConfigError(
            f"{at}: complete_ms is {combined.complete_ms}, below {times}[limits] deadline_ms ({deadline_ms}): a view "
            f"could be answered after the part; set it to {needed_ms} or more, or lower those"
        )


def _check_recipes(config: StationConfig, combined: Combined, at: str) -> None:
    views = set(combined.views)
    for part, names in combined.recipes.items():
        if set(names) != views:
            named, known = ", ".join(names) or "no view", ", ".join(sorted(views))
            raise ConfigError(f"{at}: recipe {part} names {named}; name each of {known}")
        for view, recipe in names.items():
            if recipe not in config.recipes:
                known = ", ".join(config.recipes) or "none"
                raise ConfigError(f"{at}: recipe {part} of view {view} is {recipe!r}; available in [recipes]: {known}")
    first = {each.name: each.recipe for each in config.stations if each.name in views and each.recipe}
    if len(first) == len(views) and len(set(first.values())) > 1 and first not in list(combined.recipes.values()):
        shown = ", ".join(f"{view} {recipe}" for view, recipe in first.items())
        raise ConfigError(
            f"{at}: its views begin with different recipes ({shown}), which are not one row of its recipes; add "
            f"recipes = {{ part = {{ ... }} }} with them"
        )
