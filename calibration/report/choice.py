"""What ``--modalities auto`` chose, in words and as a table of the report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from asperity.calibration.record import Choice, TriedModalities
from asperity.calibration.report.types import NAMES
from asperity.runtime.frame import ModalityName

SHOWN = 8
"""Sets in the table, best first, and the chosen one."""


def chosen_words(choice: Choice) -> str:
    """One line: the set, how far it is from the best, what it costs."""
    chosen, best = choice.chosen, choice.tried[0]
    words = f"{_named(chosen.modalities)}: AUROC {chosen.auroc:.3f} on pseudo-defects"
    if chosen.modalities != best.modalities:
        words += f", {chosen.loss:.3f} below the best ({_named(best.modalities)}, "
        words += f"standard error {chosen.standard_error:.3f})"
    words += f"; cost {chosen.cost:g} times that of colour alone"
    if choice.frame_ms:
        words += f", about {_ms(choice, chosen.modalities):.0f} ms a frame in calibration"
    return words


def choice_section(choice: Choice | None) -> str:
    """A section of the page; empty where the modalities were named."""
    if choice is None:
        return ""
    shown = [*choice.tried[:SHOWN], *(one for one in choice.tried[SHOWN:] if one == choice.chosen)]
    rows = "".join(_row(choice, one) for one in shown)
    measured = ", ".join(
        f"{NAMES[name]} {'' if name == 'rgb' else '+'}{value:.1f} ms" for name, value in choice.frame_ms.items()
    )
    missing = "".join(
        f"<p>{NAMES[name].capitalize()} could not be tried: {escape(why)}.</p>"
        for name, why in choice.unavailable.items()
    )
    return f"""<h2>Modalities chosen</h2>
<p>{escape(chosen_words(choice))}. Good frames without and with pseudo-defects were judged by banks that hold none of
their parts; calibration frames took no part. Of {len(choice.tried)} sets the cheapest within one standard error of the
best was taken. Costs are declared; 1 is a frame by colour alone. Measured here while calibrating, by torch and with
whatever else this machine did: {measured}. The times decided nothing.</p>{missing}
<table><tr><th>set</th><th>AUROC</th><th>below the best</th><th>cost</th><th>ms</th></tr>{rows}</table>"""


def _row(choice: Choice, one: TriedModalities) -> str:
    name = _named(one.modalities)
    name = f"<b>{name}</b>, chosen" if one.modalities == choice.chosen.modalities else name
    return (
        f"<tr><td>{name}</td><td>{one.auroc:.3f}</td><td>{one.loss:.3f} &plusmn; {one.standard_error:.3f}</td>"
        f"<td>{one.cost:g}</td><td>{_ms(choice, one.modalities):.0f}</td></tr>"
    )


def _named(names: Sequence[ModalityName]) -> str:
    return " + ".join(NAMES[name] for name in names)


def _ms(choice: Choice, names: Sequence[ModalityName]) -> float:
    return sum(choice.frame_ms.get(name, 0.0) for name in names)
