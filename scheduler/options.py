"""Scheduler options: files, plugins and settings become one configuration, or a text that says what is wrong where."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from navarch.settings import FILE, LIST, POSITIVE_SECONDS, Kind, SettingError, Settings
from navarch.world import describe
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import Plugin
from scheduler.framework.profiles import load_plugin
from scheduler.framework.ties import RULES, tie_break

SETTINGS = Settings("scheduler", {
    "config": FILE,
    "plugin": LIST,
    "pod-initial-backoff-seconds": POSITIVE_SECONDS,
    "pod-max-backoff-seconds": POSITIVE_SECONDS,
    "tie-break": Kind("one of " + ", ".join(RULES), tie_break),
})  # fmt: skip


def load(settings: Sequence[str], config: str = "", plugins: Sequence[str] = ()) -> SchedulerConfig:
    """The configuration. ``--set config=FILE`` and ``--set plugin=MODULE:CLASS,...`` are the flags of that name: what
    `navarch up` can hand on. Raises ValueError."""
    values = SETTINGS.read_all(settings)
    file = values.pop("config", config)
    plugins = [*plugins, *values.pop("plugin", ())]
    try:
        text = Path(file).read_text() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    classes = [plugin_class(p) for p in plugins]
    try:
        loaded = SchedulerConfig.load(text, classes)
    except ValueError as error:
        raise SettingError(f"{file}: {error}" if file else str(error)) from None
    for name, value in values.items():
        setattr(loaded, name.replace("-", "_"), value)
    return loaded


def check(settings: Sequence[str]) -> None:
    """Whether the scheduler can be told this by ``--set``. Raises ValueError."""
    load(settings)


def plugin_class(text: str) -> type[Plugin]:
    """The plugin of this name. Raises SettingError that says in which line of its file it fails."""
    try:
        return load_plugin(text)
    except SyntaxError as error:
        raise SettingError(f"plugin {text}: {error.filename}:{error.lineno}: {error.msg}") from None
    except (ValueError, ModuleNotFoundError, FileNotFoundError) as error:
        raise SettingError(f"plugin {text}: {_place(error, text)}{error}") from None
    except Exception as error:  # the user's module does when it is imported what it likes
        raise SettingError(f"plugin {text}: {_place(error, text)}{describe(error)}") from None


def _place(error: BaseException, text: str) -> str:
    """``FILE:LINE: `` where the user's own file failed, "" if it was not that."""
    stem = Path(text.partition(":")[0]).stem.rpartition(".")[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).stem == stem]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
