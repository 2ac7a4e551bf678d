"""One evaluation, told to every team: its JSON in, Markdown and one HTML file out. Pure.

    entries   the JSON as frozen values; each knows where in the JSON it stands
    sentence  words, names and numbers, laid out as text, as Markdown or as HTML
    words     what metrics, reasons and numbers are called
    verdicts  what is judged, and what is worst
    owners    who answers for which figure
    claims    hypotheses as frozen values; `hypotheses` tells them
    story     what is in danger, who is worse off, what it costs: in sentences
    markdown  at most 20 lines, the verdict first
    reasons   why a decision was made and what came of it, in sentences
    waterfall a call's stages as inline SVG
    frame     what pages beside the report have in common
    decision, decisions, traces   those pages
    page      the HTML file: `sections` in order, `charts` as inline SVG, `style`

A number is written by `sentence` alone: on the page it carries its exact value and its place in the
JSON, so that a test can hold each to it. So are names: what came from the JSON is escaped there.
"""
