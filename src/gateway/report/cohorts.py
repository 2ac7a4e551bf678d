"""The page's heat map of labels: what was reported of each week's payments, by their age."""

from __future__ import annotations

from gateway.report.charts import Row, heat_map
from gateway.report.figures import figure_of
from gateway.report.sentence import Name, Number, Sentence
from gateway.report.tables import Cohort, Cohorts

_WEEKS = 16


def cohort_map(one: Cohorts) -> str:
    """Return a product's weeks, the newest first; empty where there are none."""
    shown = list(one.cohorts)[-_WEEKS:]
    whole = [x for x in shown if x.share and x.share[-1] is not None]
    if not shown or not one.ages_days:
        return ""
    caption: Sentence = (
        "Share of each week's payments that was reported as fraud, by so many days after the "
        "payment. To the right more has been reported; what is empty has not come yet: so much of "
        "the newest weeks is still to be told. ",
        *(_told(whole[-1]) if whole else ("No week is whole yet.",)),
    )
    heads: list[Sentence] = [
        (Number(f"{one.at}/ages_days/{i}", age, "n"), " d") for i, age in enumerate(one.ages_days)
    ]
    rows = [
        Row(
            (Name(x.begin),),
            (Number(f"{x.at}/passed", x.passed, "n"),),
            [
                None if share is None else (share, (Number(f"{x.at}/share/{i}", share, "share"),))
                for i, share in enumerate(x.share)
            ],
        )
        for x in reversed(shown)
    ]
    return figure_of(caption, heat_map(rows, "week from", "went through", heads))


def _told(last: Cohort) -> Sentence:
    share = last.share[-1]
    if share is None:
        return ()
    return (
        *("The last whole week, from ", Name(last.begin), ", came to "),
        *(Number(f"{last.at}/share/{len(last.share) - 1}", share, "share"), "."),
    )
