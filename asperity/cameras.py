"""What a package of your own needs to add a camera to `asperity camera live`: docs/cameras.md."""

from asperity.runtime.cameras.source import Device, Shot, Source, SourceKind, Triggers
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError, SourceEnded
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.settings.toml_tables import Section, host_text, number, path_text, text

__all__ = [
    "CameraError", "CameraLostError", "ConfigError", "Device", "Frame", "Intrinsics", "Section", "Shot", "Source",
    "SourceEnded", "SourceKind", "Triggers", "host_text", "number", "path_text", "text",
]  # fmt: skip
