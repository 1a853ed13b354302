"""The page of a report: one file with its figures and its style in it, no script, nothing from elsewhere. Pure.

Every text that comes from data is escaped where it is put in; the page's own policy lets nothing run or load.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from consumers.plots import Plot, style, svg
from consumers.report import Outcomes, Report, Table
from consumers.unit_plots import words
from schemas.safe_harbor import SMALLEST
from streams.quality.shown import Block

TONES = {
    "worse": ("▲", "Above what was expected"),
    "better": ("▼", "Below what was expected"),
    "quiet": ("●", "As expected"),
    "unknown": ("○", "Too few to judge"),
}
RAISED = {
    "cusum_upper": "worse (CUSUM)",
    "cusum_lower": "better (CUSUM)",
    "vlad_low": "worse (VLAD)",
    "vlad_high": "better (VLAD)",
}
CSS = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
main{max-width:46rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0}
h2{font-size:1.35rem;margin:3rem 0 .5rem;padding-top:1rem;border-top:2px solid var(--faint)}
h3{font-size:1.05rem;margin:1.75rem 0 .25rem}
p{margin:.5rem 0}
.note,figcaption,caption{color:var(--soft);font-size:.875rem;text-align:left}
.answers{list-style:none;margin:1.5rem 0;padding:0;display:grid;gap:.75rem}
.answer{border:1px solid var(--faint);border-left:6px solid var(--tone);border-radius:6px;padding:.75rem 1rem}
.answer p{margin:.15rem 0}
.answer .tone{color:var(--tone);font-weight:600;font-size:.875rem}
.answer .said{font-size:1.15rem;font-weight:600;line-height:1.35}
.worse{--tone:var(--worse)}.better{--tone:var(--better)}.quiet{--tone:var(--main)}.unknown{--tone:var(--plain)}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.5rem;margin:1rem 0}
.tiles div{background:var(--wash);border-radius:6px;padding:.6rem .75rem}
.tiles dt{font-size:.8rem;color:var(--soft)}
.tiles dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums}
.tiles small{display:block;font-size:.75rem;font-weight:400;color:var(--soft)}
dl{margin:0}
figure{margin:1rem 0}
svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;margin:.5rem 0;font-variant-numeric:tabular-nums}
caption{padding:.25rem 0}
th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid var(--faint);vertical-align:top}
th:first-child,td:first-child,.words th,.words td{text-align:left}
thead th{border-bottom:2px solid var(--faint);font-weight:600}
tbody th{font-weight:400}
table:not(.words) :is(td,tbody th){white-space:nowrap}
summary{cursor:pointer;font-size:.875rem;color:var(--main)}
@media (max-width:36rem){.tiles{grid-template-columns:repeat(2,1fr)}}
@media print{
@page{margin:16mm}
body{font-size:10.5pt}main{max-width:none;padding:0}
h2,h3{break-after:avoid}figure,.answer,.tiles,tr{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}summary{display:none}
}
"""
SOURCES = (
    "Risk-adjusted CUSUM: Steiner, Cook, Farewell and Treasure, Biostatistics 1, 2000, 441–452.",
    "VLAD: Lovegrove, Valencia, Treasure, Sherlaw-Johnson and Gallivan, Lancet 350, 1997, 1128–1130.",
    "Limits by a Markov chain: Brook and Evans, Biometrika 59, 1972; Knoth, Wittenberg and Gan, Stat Med 38, 2019.",
    "Interval of observed over expected: Garwood, Biometrika 28, 1936.",
    "Funnel with overdispersion: Spiegelhalter, Stat Med 24, 2005, 1185–1202.",
    "Survival: Kaplan and Meier, JASA 53, 1958; log-rank test: Mantel, Cancer Chemother Rep 50, 1966.",
    "What to look at after a signal, and in which order: Mohammed and Stevens, PLoS ONE 8(3), 2013, e57845.",
    "Small numbers: cell size suppression policy of the CMS, no count of 1 to 10.",
)


def page(of: Report) -> str:
    title = f"Outcomes of {of.unit}"
    where = f", {of.site}" if of.site else ""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title + where)}</title>",
        f"<style>{_style()}</style></head><body><main>",
        f"<h1>{escape(title)}</h1>",
        _p(f"{of.site + ', as' if of.site else 'As'} known in {of.known}.", "note"),
        '<ul class="answers">',
        *(_answer(one) for one in of.outcomes),
        "</ul>",
        _p(
            f"Every figure and every number here stands for at least {SMALLEST} people, so that it tells of nobody: "
            f"smaller counts are not shown, points of a chart are of {SMALLEST} people or more, and times are months, "
            "or quarters where a month has too few.",
            "note",
        ),
        *(_outcomes(number, one) for number, one in enumerate(of.outcomes)),
        "<h2>Survival beside all others</h2>",
        _survival(of),
        "<h2>Who the patients were</h2>",
        _p(of.mix.said),
        _table(of.mix, f"Outcomes of the first measure above, {words(of.outcomes[0].measure)}, by quarter"),
        "<h2>What patients and insurers report</h2>",
        _p(of.reports.said) if of.reports.said else "",
        _table(of.reports, "The latest of each person, with 95% intervals of the mean", text=True),
        "<h2>Staffing</h2>",
        _p(of.staffing.said),
        _table(of.staffing, "Persons present of those planned, added up over shifts"),
        "<h2>Quality of the data</h2>",
        *(_waiting(one) for one in of.outcomes),
        _p(of.troubles.said),
        _table(of.troubles, "Cases left out"),
        _method(of),
        "</main></body></html>\n",
    ]
    return "\n".join(one for one in parts if one)


def _style() -> str:
    more = ":root{--soft:#52606d;--wash:#f2f5f8}"
    night = "@media screen and (prefers-color-scheme:dark){:root{--soft:#a8b3bf;--wash:#1e252d}}"
    return (style() + more + night + CSS).replace("\n", "")


def _p(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _answer(of: Outcomes) -> str:
    sign, tone = TONES[of.answer.tone]
    said = f'<p class="tone"><span aria-hidden="true">{sign}</span> {tone}</p>' + _p(of.answer.sentence, "said")
    return f'<li class="answer {of.answer.tone}">{said}{_p(of.answer.chance) if of.answer.chance else ""}</li>'


def _outcomes(number: int, of: Outcomes) -> str:
    name, parts = f"m{number}", [f"<h2>{escape(_capital(words(of.measure)))}</h2>", _tiles(of)]
    if of.over is None:
        few = f"Fewer than {SMALLEST} people had this outcome, or had it not: a chart or a ratio would tell how many."
        parts.append(_p(few))
    for plot, (kind, title, how) in zip(of.plots, HOW, strict=False):
        parts.append(f"<h3>{title}</h3>{_p(how)}{_figure(plot, f'{name}-{kind}')}")
    if of.blocks:
        parts.append(_details("Both charts as a table", _blocks(of.blocks)))
    parts.append("<h3>Among its peers</h3>" + _p(of.place))
    if of.funnel is not None:
        how = (
            "Each point is a unit of the site. The more events are expected, the less chance moves it, so the limits "
            "narrow. One unit in 20 lies outside 95% by chance, one in 500 outside 99.8%."
        )
        left = f" {of.left_out} with too few events count for the limits and are not drawn." if of.left_out else ""
        parts += [_p(how + left, "note"), _figure(of.funnel, f"{name}-funnel"), _peers(of)]
    return "\n".join(parts)


HOW = (
    (
        "cusum",
        "Did something change, and when?",
        "The upper line rises with each event that was not expected and falls with each that did not come; at the "
        "limit it signals and begins again at 0. The lower line does the same for fewer events. A point is the highest "
        "level within its outcomes.",
    ),
    (
        "vlad",
        "How many more or fewer?",
        "Expected less observed, added up: below 0 there were more than expected. It begins again after each period, "
        "so that what is long past does not hide what is new.",
    ),
)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(of: Outcomes) -> str:
    over, few = of.over, "not shown"
    tiles = [("Outcomes", f"{of.cases:,}" if of.cases is not None else f"<{SMALLEST}", "")]
    tiles.append(("Observed", f"{over.observed:,}" if over else few, ""))
    tiles.append(("Expected", f"{over.expected:,.1f}" if over else few, ""))
    interval = f"95%: {over.low:.2f} to {over.high:.2f}" if over else ""
    tiles.append(("O/E", f"{over.ratio:.2f}" if over else few, interval))
    made = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{made}</dl>'


def _figure(plot: Plot, name: str) -> str:
    return (
        f"<figure>{svg(plot, name)}<figcaption>{escape(plot.title)}. {escape(plot.description)}</figcaption></figure>"
    )


def _details(summary: str, inner: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def _table(of: Table, caption: str, *, text: bool = False) -> str:
    if not of.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in of.head)
    body = "".join(_row(row) for row in of.rows)
    kind = ' class="words"' if text else ""
    return (
        f'<div class="wide"><table{kind}><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str]) -> str:
    first, *others = (escape(one) for one in cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in others)}</tr>'


def _blocks(blocks: Sequence[Block]) -> str:
    head = ("outcomes up to", "quarter", "more", "limit", "fewer", "limit", "VLAD", "from", "to", "signals")
    rows = []
    for one in blocks:
        around = one.vlad_limits or (None, None)
        quarter = f"{one.first[:4]}-Q{(int(one.first[5:7]) + 2) // 3}"
        numbers = (one.upper, one.limits[0], one.lower, one.limits[1], one.vlad, *around)
        raised = ", ".join(dict.fromkeys(RAISED[each.kind] for each in one.signals))
        rows.append([f"{one.cases:,}", quarter, *(_number(each) for each in numbers), raised])
    return _table(Table(head, rows, ""), "CUSUM, highest in each block; VLAD at its end, with its limits")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "−")


def _peers(of: Outcomes) -> str:
    rows = [
        [
            row["name"],
            f"{row['events']:,}",
            f"{row['expected']:,.1f}",
            f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{'above' if row['beyond'] > 0 else 'below'} {100 * abs(row['beyond']):g}%" if row["beyond"] else "",
        ]
        for row in of.funnel_rows
    ]
    head = ("unit", "observed", "expected", "O/E (95% interval)", "beyond")
    table = _table(Table(head, rows, ""), f"Units by how far they are from the others, {words(of.measure)}")
    return _details("The funnel as a table", table)


def _survival(of: Report) -> str:
    if isinstance(of.survival, str):
        return _p(of.survival)
    plot, table = of.survival
    body = _table(table, "Share alive with its 95% interval")
    return _p(table.said) + _figure(plot, "survival") + _details("The curves as a table", body)


def _waiting(of: Outcomes) -> str:
    late, unscored = of.waiting
    said = f"{_capital(words(of.measure))}: {late} outcomes are not due yet, {unscored} have no expected risk."
    return _p(said)


def _method(of: Report) -> str:
    times = f"{of.odds_ratio:g} times as"
    said = (
        "Expected risks are those that the sender told, or that the model in force gave from what was known when the "
        "case began. An outcome counts once it is due: a death or a readmission within 30 days when 30 days have "
        "passed, or the dead would be counted before the living.",
        f"The CUSUM adds up the evidence for odds {times} high as expected, and below 0 for odds {times} low. Its "
        f"limits let one false signal come in about {of.run_length:,.0f} outcomes on each side; they were found on the "
        f"unit's own mix of risks. The VLAD's limits are left in about {of.alarms:.0%} of periods of {of.period} "
        "outcomes when nothing is wrong.",
        "A signal says that chance is an unlikely reason. It does not say why. Look at the data first, then at who the "
        "patients were, at how the place works and is staffed, and only then at persons. Patients do not come by lot: "
        "whatever makes them sicker and is not in the model looks like worse care.",
        "Several measures and many units are watched, so some false signals are to be expected. Who denies the use of "
        "his or her data is not counted.",
    )
    sources = "".join(f"<li>{escape(one)}</li>" for one in SOURCES)
    text = "".join(_p(one) for one in said)
    return f'<h2>Method and limits</h2>{text}<ul class="note">{sources}</ul>'
